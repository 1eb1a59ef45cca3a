"""API keys: made, listed and revoked.

Knows no HTTP. A key is found by its lookup part and proven by its secret, of which nothing but a hash is stored.
Invariants: a secret leaves this file once, when it is made; rows are never deleted, so an installation
that ever had a key asks for one for good.
"""

import base64
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from hashlib import sha256
from typing import Any

from sqlalchemy import Row, Select, insert, select, update

from app.store.database import Database
from app.store.errors import Conflict, NotFound
from app.store.holding import Lock, take
from app.store.key_text import LOOKUP_BYTES, SECRET_BYTES, KeyText
from app.store.names import check_name, is_id, new_id
from app.store.notices import tell
from app.store.rows import record
from app.store.schema import api_keys


class Scope(StrEnum):
    READ = "read"  # look at everything, download it
    GENERATE = "generate"  # let models write and score
    TRAIN = "train"  # upload texts and models; queue, cancel, pause and resume jobs
    ADMIN = "admin"  # everything, deletions too


@dataclass(frozen=True, slots=True)
class ApiKey:
    """A key, without what proves it."""

    id: str
    name: str
    scopes: frozenset[Scope]
    max_queued_jobs: int | None
    """Of its own jobs; None: as many as the installation takes."""
    max_streams: int | None
    created_at: datetime
    expires_at: datetime | None
    revoked_at: datetime | None

    def __post_init__(self) -> None:
        object.__setattr__(self, "scopes", frozenset(map(Scope, self.scopes)))

    def is_usable(self, now: datetime) -> bool:
        """Whether it opens anything at that time."""
        return self.revoked_at is None and (self.expires_at is None or now < self.expires_at)


def create_key(
    database: Database,
    name: str,
    scopes: frozenset[Scope],
    *,
    max_queued_jobs: int | None = None,
    max_streams: int | None = None,
    lifetime: timedelta | None = None,
) -> tuple[ApiKey, str]:
    """A new key, and the text that is to be presented, which nobody can tell again.

    Raises InvalidName; Conflict while another key that is not revoked has the name.
    """
    check_name(name)
    text, now = KeyText(_random(LOOKUP_BYTES), _random(SECRET_BYTES)), database.now()
    row = {
        "id": new_id("key"),
        "name": name,
        "lookup": text.lookup,
        "sha256": hash_of(text.secret),
        "scopes": sorted(scopes),
        "max_queued_jobs": max_queued_jobs,
        "max_streams": max_streams,
        "created_at": now,
        "expires_at": None if lifetime is None else now + lifetime,
    }
    with database.write() as connection:
        take(connection, Lock.KEYS)
        if connection.execute(_unrevoked(name)).first() is not None:
            raise Conflict(f"there is a key {name!r} already; revoke it, or take another name")
        connection.execute(insert(api_keys).values(row))
        key = key_of(connection.execute(select(api_keys).where(api_keys.c.id == row["id"])).one())
    return key, str(text)


def list_keys(database: Database) -> list[ApiKey]:
    """All that were ever made, newest first."""
    with database.read() as connection:
        rows = connection.execute(select(api_keys).order_by(api_keys.c.sequence.desc()))
        return [key_of(row) for row in rows]


def revoke_key(database: Database, key: str) -> ApiKey:
    """The key of an id, or the unrevoked one of a name, which opens nothing any more. Raises NotFound; Conflict."""
    with database.write() as connection:
        take(connection, Lock.KEYS)
        query = select(api_keys).where(api_keys.c.id == key) if is_id(key) else _unrevoked(key)
        row = connection.execute(query).first()
        if row is None:
            raise NotFound("key", key)
        if row.revoked_at is not None:
            raise Conflict(f"{key} is revoked already")
        tell(connection, None)  # who follows a job with it follows no more
        revoked = update(api_keys).where(api_keys.c.id == row.id).values(revoked_at=database.now())
        return key_of(connection.execute(revoked.returning(api_keys)).one())


def any_usable(database: Database) -> bool:
    """Whether somebody can be let in."""
    return any(key.is_usable(database.now()) for key in list_keys(database))


def _unrevoked(name: str) -> Select[Any]:
    return select(api_keys).where(api_keys.c.name == name, api_keys.c.revoked_at.is_(None))


def key_of(row: Row[Any]) -> ApiKey:
    """The key of a row."""
    return record(ApiKey, row)


def _random(number: int) -> str:
    return base64.b32encode(secrets.token_bytes(number)).decode().lower()


def hash_of(secret: str) -> str:
    """What is stored of a secret. Nothing slower is needed: nobody tries 2^160 secrets (docs/decisions.md)."""
    return sha256(secret.encode()).hexdigest()
