"""Ids and names: how they look and how they are told apart.

Knows no database. Invariant: no name has the form of an id, so a key is always one or the other.
"""

import base64
import re
import secrets

_ID = re.compile(r"[a-z]+_[a-z2-7]{26}")
NAME_PATTERN = "[A-Za-z0-9._-]{1,64}"
_NAME = re.compile(NAME_PATTERN)
_FOLDERS = {".", ".."}
"""In an address these mean a folder: clients take them out of it, so nothing of such a name could be asked for."""


class InvalidName(ValueError):
    """A name that may not be given; the message says what is allowed."""


def new_id(prefix: str) -> str:
    """An unguessable id: the prefix, `_`, and 128 random bits in lower-case base 32."""
    return f"{prefix}_{base64.b32encode(secrets.token_bytes(16)).decode().rstrip('=').lower()}"


def is_id(key: str) -> bool:
    """Whether a key has the form of an id (of any kind)."""
    return _ID.fullmatch(key) is not None


def is_name(key: str) -> bool:
    """Whether a key may be a name. What is neither name nor id need not be looked up."""
    return _NAME.fullmatch(key) is not None and not is_id(key) and key not in _FOLDERS


def check_name(name: str) -> str:
    """The name itself, if it may be given to a corpus, job or model. Raises InvalidName."""
    if is_id(name):
        raise InvalidName(f"a name may not have the form of an id, as {name!r} has")
    if name in _FOLDERS:
        raise InvalidName(f"a name may not be {name!r}, which means a folder in an address")
    if not is_name(name):
        raise InvalidName(f"a name is 1 to 64 of letters, digits, '.', '_' and '-', not {name!r}")
    return name
