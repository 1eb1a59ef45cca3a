"""Why a body could not be read at all, as far as its parsers tell.

Knows the parsers by their exceptions. Invariant: the reason quotes nothing of the body but one byte.
"""

import json
import sys

from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException

SEND_A_FORM = "send a form (multipart/form-data), as `curl -F file=@FILE` does"


def is_form(content_type: str) -> bool:
    """Whether a body is announced as a form that can hold files."""
    return content_type.lower().startswith("multipart/form-data")


def reason(error: HTTPException, content_type: str) -> str | None:
    """What made the framework refuse the body; None if it was something else."""
    cause = error.__cause__ or error.__context__
    if isinstance(cause, MultiPartException):
        return _form_reason(cause, content_type)
    if isinstance(cause, UnicodeDecodeError):
        byte = cause.object[cause.start]
        return (
            f"The body is not valid {cause.encoding.upper()}: byte 0x{byte:02x} at byte {cause.start} ({cause.reason})."
        )
    if isinstance(cause, RecursionError):
        return "The JSON of the body is nested too deeply."
    if isinstance(cause, ValueError) and "int_max_str_digits" in str(cause):
        return f"The JSON of the body holds a whole number of more than {sys.get_int_max_str_digits()} digits."
    return None


def _form_reason(cause: MultiPartException, content_type: str) -> str:
    if not is_form(content_type):
        return f"The body came as {content_type[:100]}: {SEND_A_FORM}."
    told = str(cause.__cause__ or cause.message).rstrip(".")
    return f"The form cannot be read: {told}."


def json_reason(text: str, message: str, position: int) -> str:
    """What the JSON decoder says of a text, with where."""
    at = json.JSONDecodeError(message, text, position)
    return f"not valid JSON: {message} at line {at.lineno}, column {at.colno}"
