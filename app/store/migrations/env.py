"""Runs migrations on the connection, and in the transaction, that the caller has opened."""

from alembic import context

from app.store.schema import metadata

# SQLite's DDL is transactional once the driver does not commit by itself, which Alembic assumes it does.
context.configure(connection=context.config.attributes["connection"], target_metadata=metadata, transactional_ddl=True)
with context.begin_transaction():
    context.run_migrations()
