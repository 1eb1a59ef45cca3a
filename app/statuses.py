"""What each status of an error is called, by people and by programs.

Knows nothing else. Python's own names are not taken: they changed with RFC 9110, so 413 would have another title, and
another code, on another Python. Invariant: an answer and the OpenAPI document call a status the same.
"""

from collections.abc import Mapping
from typing import NamedTuple


class Status(NamedTuple):
    """`title` is RFC 9110's; `code` is that of a problem that has no closer one, and stands in the document."""

    title: str
    code: str


STATUSES: Mapping[int, Status] = {
    400: Status("Bad Request", "bad_request"),
    401: Status("Unauthorized", "invalid_key"),
    403: Status("Forbidden", "foreign_origin"),
    404: Status("Not Found", "not_found"),
    405: Status("Method Not Allowed", "method_not_allowed"),
    406: Status("Not Acceptable", "not_acceptable"),
    408: Status("Request Timeout", "body_too_slow"),
    409: Status("Conflict", "conflict"),
    413: Status("Content Too Large", "content_too_large"),
    415: Status("Unsupported Media Type", "unsupported_encoding"),
    422: Status("Unprocessable Content", "invalid_setting"),
    429: Status("Too Many Requests", "queue_full"),
    500: Status("Internal Server Error", "internal_error"),
    503: Status("Service Unavailable", "not_ready"),
    507: Status("Insufficient Storage", "disk_full"),
}
"""All that the service answers."""
