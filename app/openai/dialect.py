"""Errors below `/v1` in OpenAI's form: the one place where a problem document becomes one of theirs.

Knows problem documents, no routes. Pure ASGI: whatever answers, a route, a middleware or a handler of the unforeseen,
it answers a problem, and this sits around all of them. Invariants: no problem document leaves the service below `/v1`;
no conflict does as 409, which OpenAI's client would try twice again.
"""

import json
import logging
import re
from collections.abc import Awaitable, Mapping
from typing import Any

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from app.errors import PROBLEM_JSON
from app.logs import REQUEST_ID

log = logging.getLogger(__name__)

PREFIX = "/v1"
STATUSES = {409: 400, 422: 400}
"""Of ours that OpenAI's API has not."""
TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}
_ITEM = re.compile(r"\.[0-9]+$")
CODES = {"invalid_key": "invalid_api_key"}
"""Names of our own that clients know by another one."""


def is_openai(path: str) -> bool:
    """Whether what is answered at a path is to be in OpenAI's form."""
    return path == PREFIX or path.startswith(f"{PREFIX}/")


def error_of(problem: Mapping[str, Any]) -> dict[str, Any]:
    """A problem document as OpenAI's API would tell it."""
    status, code = problem["status"], problem["code"]
    kind = TYPES.get(status, "server_error" if status >= 500 else "invalid_request_error")
    # The parameter, whichever of its items it is: `stop` may have been one text, which is a list here.
    param = next((_ITEM.sub("", error["field"]) for error in problem.get("errors", ())), None)
    return {"error": {"message": problem["detail"], "type": kind, "param": param, "code": CODES.get(code, code)}}


class SpeakOpenAI:
    """ASGI middleware: translates errors below `/v1`."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        is_ours = scope["type"] == "http" and is_openai(scope["path"])
        return self._app(scope, receive, _Answer(send).send if is_ours else send)


class _Answer:
    """The answer on its way out. The beginning of a problem waits for its body, which comes in one piece."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._held: Message | None = None

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            if MutableHeaders(scope=message).get("content-type") == PROBLEM_JSON:
                self._held = message
                return
        elif self._held is not None:
            start, self._held = self._held, None
            message = {**message, "body": self._translated(start, message.get("body", b""))}
            await self._send(start)
        await self._send(message)

    def _translated(self, start: Message, problem: bytes) -> bytes:
        """The body; `start` is changed to be its beginning. To `HEAD` there is none."""
        headers, status = MutableHeaders(scope=start), start["status"]
        start["status"] = STATUSES.get(status, status)
        headers["content-type"] = "application/json"
        if status >= 500:
            log.warning("the answer to %s was %d", REQUEST_ID.get(), status)
        if not problem:
            del headers["content-length"]
            return b""
        body = json.dumps(error_of(json.loads(problem)), ensure_ascii=False, separators=(",", ":")).encode()
        headers["content-length"] = str(len(body))
        return body
