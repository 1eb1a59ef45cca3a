"""Bad requests to score a text."""

from typing import Any

from tests.bad_inputs.case import NAME, Case, called, posted

OFF_RANGE: dict[str, list[Any]] = {
    "text": ["", 1, None, ["a"]],
    "top": [-1, 21, 10**9, 1.5, "5", True],
    "unknown": ["ignore", None],
    "prompt": ["a"],
}


def cases() -> list[Case]:
    refused, unknown = "invalid_request", "unknown_character"
    return [
        *(_scored(f"{field} = {str(value)[:20]}", 422, refused, field, **{field: value})
          for field, values in OFF_RANGE.items() for value in values),
        _scored("a character that the model does not know", 422, unknown, "EURO SIGN) at position 2", text="ab€"),
        _scored("the same, late", 422, unknown, "at position 500000", text="a" * 500_000 + "€"),
        _scored("the same, unknown=skip", 200, text="ab€", unknown="skip"),
        _scored("nothing but unknown characters, unknown=skip", 422, "empty_text", "text", text="€", unknown="skip"),
        _scored("NUL", 422, unknown, "U+0000", text="a\0"),
        _scored("a text over the limit", 422, "text_too_long", "10000000", text="a" * 10_000_001),
        _scored("an unknown model", 404, "model_not_found", "nobody", model="nobody"),
        _scored("an unknown step", 404, "checkpoint_not_found", model=f"{NAME}@999"),
        _scored("a step of 100 digits", 404, "checkpoint_not_found", model=f"{NAME}@{'9' * 100}"),
        _scored("no model named", 422, refused, "model", model=""),
        _raw("no body", b""),
        _raw("no text", b'{"model": "%s"}' % NAME.encode(), says="text"),
        _raw("half a surrogate pair", b'{"model": "%s", "text": "\\ud83d"}' % NAME.encode(), says="surrogate"),
        _raw("invalid UTF-8", b'{"model": "%s", "text": "\xff"}' % NAME.encode(), 400, "bad_request"),
        _raw("lists 100,000 deep", b'{"text": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", 400, "bad_request"),
        called("score: by GET", "GET", "/score", 405, "method_not_allowed"),
        posted("score: a query", "/score?top=3", {"model": NAME, "text": "a"}, says="top"),
    ]  # fmt: skip


def _scored(what: str, status: int, code: str = "", says: str = "", **fields: Any) -> Case:
    return posted(f"score: {what}", "/score", {"model": NAME, "text": "to be"} | fields, status, code, says)


def _raw(what: str, body: bytes, status: int = 422, code: str = "invalid_request", says: str = "") -> Case:
    return posted(f"score: {what}", "/score", body, status, code, says)
