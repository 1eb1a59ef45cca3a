"""Calls that need a scope of the API key, asked for when the call is known and before its body is read.

Knows which key the request has, not how it was found. Invariant: a call of this class cannot be made without its scope,
whichever router it is put into; `app.main` takes no others.
"""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import Request, Response
from fastapi.routing import APIRoute

from app.access import check_allowed


class GuardedRoute(APIRoute):
    """As a dependency this would come too late: FastAPI reads the body before it, a gigabyte that nobody may send."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        answer = super().get_route_handler()

        async def answer_if_allowed(request: Request) -> Response:
            check_allowed(request.state.key, self.name)
            return await answer(request)

        return answer_if_allowed
