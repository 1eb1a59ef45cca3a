"""The command line's client, against answers that a service may give."""

import httpx

from app.client import Client

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
