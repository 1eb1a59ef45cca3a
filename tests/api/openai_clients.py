"""OpenAI's own client, unmodified, on a service of ours."""

import json
from contextlib import contextmanager
from typing import Any

import httpx
import openai
import pytest


def client_of(http: httpx.Client, key: str = "any", *, retries: int = 0) -> openai.OpenAI:
    """A client of the service that `http` talks to. It asks no proxy of the environment."""
    own = openai.DefaultHttpxClient(trust_env=False)
    return openai.OpenAI(base_url=f"{http.base_url}/v1", api_key=key, max_retries=retries, http_client=own)


@contextmanager
def refused(status: int, *, param: str | None = None, code: str | None = None, says: str = "") -> Any:
    """The block raises the client's own error, which says this."""
    with pytest.raises(openai.APIStatusError) as raised:
        yield raised
    error = raised.value
    assert error.status_code == status, error
    assert error.body is not None
    assert set(error.body) == {"message", "type", "param", "code"}  # type: ignore[call-overload]
    assert param is None or error.param == param, error
    assert code is None or error.code == code, error
    assert says in error.message
    assert error.request_id


def frames(stream: str) -> list[Any]:
    """The data of server-sent events, each of which has nothing but data."""
    found = []
    for frame in stream.split("\n\n")[:-1]:
        if not frame.startswith(":"):
            assert frame.startswith("data: "), frame
            assert "\n" not in frame
            data = frame.removeprefix("data: ")
            found.append(data if data == "[DONE]" else json.loads(data))
    assert stream.endswith("\n\n")
    return found
