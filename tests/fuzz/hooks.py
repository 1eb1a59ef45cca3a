"""Keeps what Schemathesis asks for short, and what it is to find in its place; loaded in Schemathesis' own process."""

import os
from typing import Any

import schemathesis

MOST_CHARACTERS = 200
FINISHED_JOB = os.environ["FUZZ_FINISHED_JOB"]
KEPT = {"shakespeare", *os.environ["FUZZ_KEPT"].split(",")}


@schemathesis.hook
def before_call(context: Any, case: Any, **_: Any) -> None:
    """A million characters are a valid wish, and take half a minute each time; so does a job that nobody works on."""
    for wish in (case.body, case.query):
        for name in ("max_characters", "max_tokens"):
            if isinstance(wish, dict) and _is_long(wish.get(name)):
                wish[name] = MOST_CHARACTERS
    if case.path.endswith("/events"):
        case.path_parameters["id"] = FINISHED_JOB
    if case.method == "DELETE":
        case.path_parameters |= {k: "nobody" for k, value in case.path_parameters.items() if value in KEPT}


def _is_long(number: object) -> bool:
    return isinstance(number, int) and MOST_CHARACTERS < number <= 1_000_000
