"""The command line's client, against answers that a service may give."""

from contextlib import closing

import httpx
import pytest
from pydantic import SecretStr

from app.client import Client, ClientError
from app.store.api_keys import Scope, create_key
from tests.api.service import Service

EVENTS = b"""id: 1
event: status
data: {"status": "queued"}

: a heartbeat

id: 2
event: status
data: {"status": "succeeded"}

"""


def test_a_heartbeat_between_two_events_is_no_event() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("/events"):
            return httpx.Response(200, content=EVENTS, headers={"Content-Type": "text/event-stream"})
        return httpx.Response(200, json={"status": "succeeded"})

    client = Client("http://service")
    client._http = httpx.Client(base_url="http://service", transport=httpx.MockTransport(answer))

    assert list(client.follow("job")) == [("status", {"status": "queued"}), ("status", {"status": "succeeded"})]


def test_a_service_that_tells_its_workers_to_those_with_a_key_counts_as_ready_and_then_asks_for_one(
    service: Service,
) -> None:
    """To wait for workers that are not told would end in the wrong complaint."""
    key = create_key(service.database, "ci", frozenset({Scope.READ}))[1]
    url = str(service.http.base_url)
    with closing(Client(url)) as stranger:
        stranger.wait_until_ready(20)
        with pytest.raises(ClientError, match="set CHARSMITH_API_KEY"):
            stranger.call("GET", "/models")
    with closing(Client(url, SecretStr(key))) as known:
        with pytest.raises(ClientError, match="did not become ready"):
            known.wait_until_ready(0.5)  # there is no worker
        assert list(known.pages("/models")) == []
