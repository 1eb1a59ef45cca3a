"""Recognizing the key that a request presents, at next to no cost and yet as of this very moment.

Knows no HTTP. To look into the database for every request took a fifth of what a short one costs, also where there are
no keys; to ask whether anything was committed since the last look takes microseconds. Invariant: a key that was made,
revoked or expired before a request came is known to be so by that request.
"""

import hmac
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from sqlalchemy import Row, select

from app.store.api_keys import ApiKey, hash_of, key_of
from app.store.database import Commits, Database
from app.store.key_text import parse_key
from app.store.schema import api_keys


class KeyRefused(Exception):
    """No key, or one that is not usable: which of them is told to nobody."""


class Keys:
    """All keys of one moment, by what they are found by."""

    def __init__(self, rows: Sequence[Row[Any]]) -> None:
        self._were_made = bool(rows)
        self._by_lookup = {str(row.lookup): (str(row.sha256), key_of(row)) for row in rows if row.revoked_at is None}

    def recognize(self, presented: str | None, now: datetime) -> ApiKey | None:
        """The key that is presented; None, whatever is presented, if no key was ever made. Raises KeyRefused."""
        if not self._were_made:
            return None
        text = parse_key(presented) if presented else None
        if text is None or text.lookup not in self._by_lookup:
            raise KeyRefused
        stored, key = self._by_lookup[text.lookup]
        if not hmac.compare_digest(stored, hash_of(text.secret)) or not key.is_usable(now):
            raise KeyRefused
        return key


class KeyRing:
    """The keys of a database, held in memory for as long as nothing at all is committed to it.

    `held` belongs to one thread, and may be the event loop's; `read` blocks.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self._commits: Commits | None = None
        self._held: tuple[int, Keys] | None = None

    def held(self) -> tuple[int | None, Keys | None]:
        """The number of commits, and the keys if they are known to be those of this moment."""
        count = self._commits.count() if self._commits else None
        is_current = self._held is not None and count is not None and self._held[0] == count
        return count, self._held[1] if self._held and is_current else None

    def read(self, count: int | None) -> Keys:
        """The keys as they stand. `count` was asked for before, so the next finds out what is committed meanwhile."""
        if self._commits is None:
            self._commits = self.database.commits()
        with self.database.read() as connection:
            keys = Keys(connection.execute(select(api_keys)).all())
        if count is not None:
            self._held = count, keys
        return keys
