"""The tables, and the invariants that the database itself holds.

Knows nothing of who reads or writes them. A change here needs a migration beside it: a test compares the two. Rows that
are listed have a `sequence`, ascending and never reused, which pages and the queue go by; ids are for the outside.
"""

from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Boolean,
    CheckConstraint,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.types import TypeDecorator

from app.store.job_state import FINISHED, JobStatus

REVISIONS = ("0001", "0002", "0003", "0004", "0005", "0006", "0007", "0008")
"""The schema versions that this code knows, oldest first; the last one is what it works on."""

CHUNK_BYTES = 1024 * 1024
EVENT_TYPES = ("status", "progress", "evaluation", "sample", "checkpoint", "setback")

BLOB_STAGES = ("writing", "written", "kept", "dropped")
"""writing: chunks arrive; written: complete, named by no row yet; kept: named by a row; dropped: to be removed."""

LIVE = tuple(status for status in JobStatus if status not in FINISHED)
"""The statuses of jobs that still need their corpus."""


class UtcTime(TypeDecorator[datetime]):
    """An aware UTC time, also where the database knows no zones. A naive time is a bug of ours."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        assert value.tzinfo is not None, "times in the store are aware"
        return value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        # PostgreSQL tells it in the zone of the server's choice.
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


# SQLite counts rows by INTEGER alone; PostgreSQL's INTEGER ends at 2^31.
Count = BigInteger().with_variant(Integer, "sqlite")
Json = JSON(none_as_null=True)


def one_of(column: str, values: Iterable[str]) -> str:
    """The condition that a column holds one of these words."""
    return f"{column} IN ({', '.join(repr(str(value)) for value in values)})"


def _sequence() -> Column[int]:
    return Column("sequence", Count, primary_key=True, autoincrement=True)


def _id() -> Column[str]:
    return Column("id", String(64), nullable=False, unique=True)


def _check(condition: str, name: str) -> CheckConstraint:
    return CheckConstraint(condition, name=name)


metadata = MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "ck": "ck_%(table_name)s_%(constraint_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)

# AUTOINCREMENT: without it SQLite gives the number of a deleted last row again, and a client that resumes after an
# event id would miss what came since.
_NEVER_REUSED: dict[str, Any] = {"sqlite_autoincrement": True}

blobs = Table(
    "blobs",
    metadata,
    Column("id", String(64), primary_key=True),
    Column("stage", String(16), nullable=False),
    Column("bytes", Count, nullable=False),
    Column("sha256", String(64)),
    Column("touched_at", UtcTime, nullable=False),
    _check(one_of("stage", BLOB_STAGES), "stage"),
    _check("bytes >= 0", "bytes"),
    _check("stage IN ('writing', 'dropped') OR length(sha256) = 64", "hashed"),
    Index(
        "ix_blobs_unkept",
        "stage",
        "touched_at",
        sqlite_where=text("stage <> 'kept'"),
        postgresql_where=text("stage <> 'kept'"),
    ),
)

blob_chunks = Table(
    "blob_chunks",
    metadata,
    Column("blob_id", ForeignKey("blobs.id"), primary_key=True),
    Column("chunk_index", Integer, primary_key=True, autoincrement=False),
    Column("data", LargeBinary, nullable=False),
    _check("chunk_index >= 0", "chunk_index"),
    _check(f"length(data) BETWEEN 1 AND {CHUNK_BYTES}", "size"),
)

corpora = Table(
    "corpora",
    metadata,
    _sequence(),
    _id(),
    Column("name", String(64), nullable=False),
    Column("bytes", Count, nullable=False),
    Column("characters", Count, nullable=False),
    Column("vocabulary_size", Integer, nullable=False),
    Column("sha256", String(64), nullable=False, unique=True),
    Column("preview", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("blob_id", ForeignKey("blobs.id"), nullable=False, unique=True),
    _check("length(name) BETWEEN 1 AND 64", "name"),
    _check("characters >= 2 AND bytes >= characters", "size"),
    _check("vocabulary_size BETWEEN 1 AND characters", "vocabulary_size"),
    _check("length(sha256) = 64", "sha256"),
    Index(None, "name", "sequence"),
    **_NEVER_REUSED,
)

vocabularies = Table(
    "vocabularies",
    metadata,
    Column("corpus_id", ForeignKey("corpora.id", ondelete="CASCADE"), primary_key=True),
    Column("normalization", String(16), primary_key=True),
    Column("characters", Text, nullable=False),
)
"""The characters of corpora, by code point: as uploaded (`none`), or of a normalization that the text was read for."""

api_keys = Table(
    "api_keys",
    metadata,
    _sequence(),
    _id(),
    Column("name", String(64), nullable=False),
    Column("lookup", String(16), nullable=False, unique=True),
    Column("sha256", String(64), nullable=False),
    Column("scopes", Json, nullable=False),
    Column("max_queued_jobs", Integer),
    Column("max_streams", Integer),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime),
    Column("revoked_at", UtcTime),
    _check("length(name) BETWEEN 1 AND 64", "name"),
    _check("length(sha256) = 64", "sha256"),
    _check("max_queued_jobs >= 1 AND max_streams >= 1", "limits"),
    _check("expires_at > created_at", "expires_at"),
    # Whoever revokes by name must hit the one key that is meant.
    Index(
        "ix_api_keys_unrevoked_name",
        "name",
        unique=True,
        sqlite_where=text("revoked_at IS NULL"),
        postgresql_where=text("revoked_at IS NULL"),
    ),
    **_NEVER_REUSED,
)
"""Rows are never deleted: that there was a key is what closes an installation to those who have none."""

queue_turns = Table(
    "queue_turns",
    metadata,
    Column("key_id", String(64), primary_key=True),
    Column("turn", Count, nullable=False),
    _check("turn >= 1", "turn"),
)
"""When a job of a key was last claimed, counted in claims; the empty key is that of all jobs without one."""

jobs = Table(
    "jobs",
    metadata,
    _sequence(),
    _id(),
    Column("name", String(64), nullable=False),
    Column("status", String(16), nullable=False),
    Column("corpus_id", ForeignKey("corpora.id", ondelete="SET NULL"), index=True),
    Column("corpus_name", String(64), nullable=False),
    Column("model", Json, nullable=False),
    Column("training", Json, nullable=False),
    Column("from_checkpoint", String(160)),
    # No foreign key: checkpoints belong to models and models come from jobs, which would close a circle of tables.
    Column("from_checkpoint_id", String(64)),
    Column("new_characters", Integer),
    Column("progress", Json, nullable=False),
    Column("best_step", Count),
    Column("best_val_loss", Float(53)),
    Column("error", Json),
    Column("attempt", Integer, nullable=False),
    Column("heartbeat", Count, nullable=False),
    Column("crashes", Integer, nullable=False),
    Column("worker", String(128)),
    Column("cancel_requested", Boolean, nullable=False),
    Column("pause_requested", Boolean, nullable=False),
    Column("resume_blob_id", ForeignKey("blobs.id"), unique=True),
    Column("resume_step", Count),
    Column("created_at", UtcTime, nullable=False),
    Column("started_at", UtcTime),
    Column("finished_at", UtcTime),
    # No foreign key: keys are never deleted, and SQLite adds none to a table that is there.
    Column("key_id", String(64)),
    Column("request_id", String(64)),
    Column("metadata", Json),
    _check("length(name) BETWEEN 1 AND 64", "name"),
    _check(one_of("status", JobStatus), "status"),
    _check("attempt >= 0 AND heartbeat >= 0 AND crashes >= 0", "counters"),
    _check("best_step >= 0 AND resume_step >= 0", "steps"),
    _check("(status = 'running') = (worker IS NOT NULL)", "worker_runs"),
    _check("status = 'running' OR NOT (cancel_requested OR pause_requested)", "requests_while_running"),
    _check("(status = 'failed') = (error IS NOT NULL)", "error_of_failed"),
    _check(f"({one_of('status', sorted(FINISHED))}) = (finished_at IS NOT NULL)", "finished_at"),
    _check("status <> 'running' OR (attempt >= 1 AND started_at IS NOT NULL)", "started"),
    _check(f"NOT ({one_of('status', LIVE)}) OR corpus_id IS NOT NULL", "corpus_while_needed"),
    _check("(resume_blob_id IS NULL) = (resume_step IS NULL)", "resume_point"),
    Index(None, "status", "sequence"),
    Index(None, "status", "key_id", "sequence"),
    Index(None, "name", "sequence"),
    **_NEVER_REUSED,
)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("key", String(255), primary_key=True),
    Column("request_sha256", String(64), nullable=False),
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("created_at", UtcTime, nullable=False),
    _check("length(request_sha256) = 64", "request_sha256"),
)

events = Table(
    "events",
    metadata,
    Column("id", Count, primary_key=True, autoincrement=True),
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), nullable=False),
    Column("type", String(16), nullable=False),
    Column("data", Json, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    _check(one_of("type", EVENT_TYPES), "type"),
    Index(None, "job_id", "id"),
    **_NEVER_REUSED,
)

metrics = Table(
    "metrics",
    metadata,
    Column("job_id", ForeignKey("jobs.id", ondelete="CASCADE"), primary_key=True),
    Column("step", Count, primary_key=True, autoincrement=False),
    Column("epoch", Float(53)),
    Column("train_loss", Float(53)),
    Column("val_loss", Float(53)),
    Column("learning_rate", Float(53)),
    Column("gradient_norm", Float(53)),
    Column("characters_per_second", Float(53)),
    Column("seconds", Float(53)),
    Column("memory_bytes", Count),
    _check("step >= 0", "step"),
)

models = Table(
    "models",
    metadata,
    _sequence(),
    _id(),
    Column("name", String(64), nullable=False),
    Column("job_id", ForeignKey("jobs.id", ondelete="SET NULL"), unique=True),
    Column("corpus_id", ForeignKey("corpora.id", ondelete="SET NULL"), index=True),
    Column("config", Json, nullable=False),
    Column("vocabulary_size", Integer, nullable=False),
    Column("parameters", Count, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    _check("length(name) BETWEEN 1 AND 64", "name"),
    _check("vocabulary_size >= 1 AND parameters >= 1", "size"),
    Index(None, "name", "sequence"),
    **_NEVER_REUSED,
)

checkpoints = Table(
    "checkpoints",
    metadata,
    _sequence(),
    _id(),
    Column("model_id", ForeignKey("models.id", ondelete="CASCADE"), nullable=False),
    Column("step", Count, nullable=False),
    Column("train_loss", Float(53)),
    Column("val_loss", Float(53)),
    Column("bytes", Count, nullable=False),
    Column("best", Boolean, nullable=False),
    Column("corrupted", Boolean, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("blob_id", ForeignKey("blobs.id"), nullable=False, unique=True),
    _check("step >= 0", "step"),
    _check("bytes >= 1", "bytes"),
    _check("NOT (best AND corrupted)", "best_is_sound"),
    Index("ix_checkpoints_model_id_step", "model_id", "step", unique=True),
    Index("ix_checkpoints_best", "model_id", unique=True, sqlite_where=text("best"), postgresql_where=text("best")),
    **_NEVER_REUSED,
)

workers = Table(
    "workers",
    metadata,
    Column("id", String(128), primary_key=True),
    Column("device", String(64), nullable=False),
    Column("memory_bytes", Count),
    Column("job_id", String(64)),
    Column("beats", Count, nullable=False),
    Column("started_at", UtcTime, nullable=False),
    Column("seen_at", UtcTime, nullable=False),
    _check("beats >= 1", "beats"),
)

secrets = Table(
    "secrets",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("value", LargeBinary, nullable=False),
    _check("length(value) BETWEEN 16 AND 1024", "value"),
)
"""What only services of this installation know."""
