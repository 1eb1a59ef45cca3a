"""API keys, whose jobs are whose, and whose turn it is in the queue. Jobs of before belong to nobody."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

COUNT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)
UNREVOKED = sa.text("revoked_at IS NULL")


def upgrade() -> None:
    op.create_table(
        "api_keys",
        sa.Column("sequence", COUNT, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(64), nullable=False),
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("lookup", sa.String(16), nullable=False),
        sa.Column("sha256", sa.String(64), nullable=False),
        sa.Column("scopes", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("max_queued_jobs", sa.Integer(), nullable=True),
        sa.Column("max_streams", sa.Integer(), nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("expires_at", TIME, nullable=True),
        sa.Column("revoked_at", TIME, nullable=True),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 64", name=op.f("ck_api_keys_name")),
        sa.CheckConstraint("length(sha256) = 64", name=op.f("ck_api_keys_sha256")),
        sa.CheckConstraint("max_queued_jobs >= 1 AND max_streams >= 1", name=op.f("ck_api_keys_limits")),
        sa.CheckConstraint("expires_at > created_at", name=op.f("ck_api_keys_expires_at")),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_api_keys")),
        sa.UniqueConstraint("id", name=op.f("uq_api_keys_id")),
        sa.UniqueConstraint("lookup", name=op.f("uq_api_keys_lookup")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_api_keys_unrevoked_name",
        "api_keys",
        ["name"],
        unique=True,
        sqlite_where=UNREVOKED,
        postgresql_where=UNREVOKED,
    )
    op.create_table(
        "queue_turns",
        sa.Column("key_id", sa.String(64), nullable=False),
        sa.Column("turn", COUNT, nullable=False),
        sa.CheckConstraint("turn >= 1", name=op.f("ck_queue_turns_turn")),
        sa.PrimaryKeyConstraint("key_id", name=op.f("pk_queue_turns")),
    )
    op.add_column("jobs", sa.Column("key_id", sa.String(64), nullable=True))
    op.create_index(op.f("ix_jobs_status_key_id_sequence"), "jobs", ["status", "key_id", "sequence"], unique=False)
