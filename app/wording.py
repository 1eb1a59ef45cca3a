"""What pydantic finds wrong with a value, in the plain words of our own messages.

Knows no request. Invariant: the words tell what is allowed, and nothing of what was sent or of how we check it.
"""

from collections.abc import Callable, Mapping
from typing import Any

Context = Mapping[str, Any]


def words(error: Mapping[str, Any]) -> str:
    """What is wrong, for one of pydantic's errors."""
    kind = str(error["type"])
    if kind in PLAIN:
        return PLAIN[kind]
    if kind in FILLED_IN:
        return FILLED_IN[kind]({**error.get("ctx", {}), "item": _kind_of_item(error.get("input"))})
    return str(error["msg"]).removeprefix("Value error, ")


def _kind_of_item(value: object) -> str:
    """A text that a validator of ours made is to pydantic a list like others."""
    return "character" if isinstance(value, str) else "item"


def _items(number: int, item: str) -> str:
    return f"{number} {item}{'s' if number != 1 else ''}"


def _least(number: int, item: str) -> str:
    return "must not be empty" if number == 1 else f"must have at least {_items(number, item)}"


OBJECT = "must be an object, {...}"
WHOLE = "must be a whole number"
REAL = "must be a number"
YES_OR_NO = "must be true or false"

PLAIN = {
    "missing": "must be given",
    "model_type": OBJECT,
    "model_attributes_type": OBJECT,
    "dict_type": OBJECT,
    "list_type": "must be a list, [...]",
    "string_type": "must be a text, in quotes",
    "string_unicode": "holds half a surrogate pair, which is no character",
    "int_type": WHOLE,
    "int_parsing": WHOLE,
    "int_from_float": WHOLE,
    "int_parsing_size": "must be a whole number, and has too many digits",
    "float_type": REAL,
    "float_parsing": REAL,
    "bool_type": YES_OR_NO,
    "bool_parsing": YES_OR_NO,
    "finite_number": "must be a number, and a finite one",
}
FILLED_IN: dict[str, Callable[[Context], str]] = {
    "literal_error": lambda ctx: f"must be {ctx['expected']}",
    "enum": lambda ctx: f"must be {ctx['expected']}",
    "greater_than": lambda ctx: f"must be above {_number(ctx['gt'])}",
    "greater_than_equal": lambda ctx: f"must be at least {_number(ctx['ge'])}",
    "less_than": lambda ctx: f"must be below {_number(ctx['lt'])}",
    "less_than_equal": lambda ctx: f"must be at most {_number(ctx['le'])}",
    "string_too_short": lambda ctx: _least(ctx["min_length"], "character"),
    "string_too_long": lambda ctx: f"must have at most {_items(ctx['max_length'], 'character')}",
    "too_short": lambda ctx: _least(ctx["min_length"], ctx["item"]),
    "too_long": lambda ctx: f"must have at most {_items(ctx['max_length'], ctx['item'])}",
}


def _number(value: float) -> str:
    """2^63 as it is; 10.0 as 10."""
    return str(value) if isinstance(value, int) else f"{value:g}"
