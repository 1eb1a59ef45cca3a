"""Keys that services of one installation share, and nobody else knows.

Invariant: a name has one key for ever, whichever service asks first.
"""

import secrets
from contextlib import suppress

from sqlalchemy import insert, select
from sqlalchemy.exc import IntegrityError

from app.store.database import Database
from app.store.schema import secrets as table

KEY_BYTES = 32


def secret_key(database: Database, name: str) -> bytes:
    """The key of that name, 32 bytes, made when it is first asked for."""
    query = select(table.c.value).where(table.c.name == name)
    with database.read() as connection:
        if (key := connection.execute(query).scalar()) is not None:
            return bytes(key)
    # Another service may be here at the same time, and first.
    with suppress(IntegrityError), database.write() as connection:
        if connection.execute(query).scalar() is None:
            connection.execute(insert(table).values(name=name, value=secrets.token_bytes(KEY_BYTES)))
    with database.read() as connection:
        return bytes(connection.execute(query).scalar_one())
