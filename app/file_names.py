"""Names that are made from file names.

Invariant: whatever a client calls its file, the result can be given to a corpus or model; it is never used as a path.
"""

import re
import unicodedata

from app.store.names import is_id

_EXTENSION = re.compile(r"\.[A-Za-z0-9]{1,12}$")
_FORBIDDEN = re.compile(r"[^A-Za-z0-9._-]+")


def name_from(file_name: str | None, fallback: str) -> str:
    """A name like the file's: folders and extension dropped, accents stripped, other characters become `-`."""
    base = re.split(r"[/\\]", file_name or "")[-1]
    bare = unicodedata.normalize("NFKD", _EXTENSION.sub("", base))
    ascii_only = "".join(c for c in bare if not unicodedata.combining(c))
    name = _FORBIDDEN.sub("-", ascii_only).strip("-._")[:64]
    return fallback if not name or is_id(name) else name
