"""What an API key looks like: `csk_<lookup>_<secret>`, in lower-case base 32.

Knows no database; settings and logs read it too. Invariant: what has this form is never written anywhere by us but to
the person who makes it.
"""

import re
from typing import NamedTuple

PREFIX = "csk"
_LOOKUP, _SECRET = "[a-z2-7]{16}", "[a-z2-7]{32}"
_KEY = re.compile(f"{PREFIX}_({_LOOKUP})_({_SECRET})")
LOOKUP_BYTES, SECRET_BYTES = 10, 20
"""160 random bits to guess; a multiple of five bytes has no padding in base 32."""


class KeyText(NamedTuple):
    """The part that a key is found by, and the part that proves it."""

    lookup: str
    secret: str

    def __str__(self) -> str:
        return f"{PREFIX}_{self.lookup}_{self.secret}"


def parse_key(text: str) -> KeyText | None:
    """The parts of a key; None for anything else."""
    found = _KEY.fullmatch(text)
    return None if found is None else KeyText(*found.groups())


def without_keys(text: str) -> str:
    """The text, of every key in it no more than its beginning."""
    return _KEY.sub(f"{PREFIX}_...", text)
