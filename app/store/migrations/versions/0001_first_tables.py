"""The first tables.

As they were then: later changes of schema.py do not reach into this file.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

COUNT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
TIME = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "blobs",
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("stage", sa.String(length=16), nullable=False),
        sa.Column("bytes", COUNT, nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=True),
        sa.Column("touched_at", TIME, nullable=False),
        sa.CheckConstraint("stage IN ('writing', 'dropped') OR length(sha256) = 64", name=op.f("ck_blobs_hashed")),
        sa.CheckConstraint("stage IN ('writing', 'written', 'kept', 'dropped')", name=op.f("ck_blobs_stage")),
        sa.CheckConstraint("bytes >= 0", name=op.f("ck_blobs_bytes")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_blobs")),
    )
    op.create_index(
        "ix_blobs_unkept",
        "blobs",
        ["stage", "touched_at"],
        unique=False,
        sqlite_where=sa.text("stage <> 'kept'"),
        postgresql_where=sa.text("stage <> 'kept'"),
    )
    op.create_table(
        "workers",
        sa.Column("id", sa.String(length=128), nullable=False),
        sa.Column("device", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=True),
        sa.Column("beats", COUNT, nullable=False),
        sa.Column("started_at", TIME, nullable=False),
        sa.Column("seen_at", TIME, nullable=False),
        sa.CheckConstraint("beats >= 1", name=op.f("ck_workers_beats")),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_workers")),
    )
    op.create_table(
        "blob_chunks",
        sa.Column("blob_id", sa.String(length=64), nullable=False),
        sa.Column("chunk_index", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("chunk_index >= 0", name=op.f("ck_blob_chunks_chunk_index")),
        sa.CheckConstraint("length(data) BETWEEN 1 AND 1048576", name=op.f("ck_blob_chunks_size")),
        sa.ForeignKeyConstraint(["blob_id"], ["blobs.id"], name=op.f("fk_blob_chunks_blob_id")),
        sa.PrimaryKeyConstraint("blob_id", "chunk_index", name=op.f("pk_blob_chunks")),
    )
    op.create_table(
        "corpora",
        sa.Column("sequence", COUNT, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("bytes", COUNT, nullable=False),
        sa.Column("characters", COUNT, nullable=False),
        sa.Column("vocabulary_size", sa.Integer(), nullable=False),
        sa.Column("sha256", sa.String(length=64), nullable=False),
        sa.Column("preview", sa.Text(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("blob_id", sa.String(length=64), nullable=False),
        sa.CheckConstraint("characters >= 2 AND bytes >= characters", name=op.f("ck_corpora_size")),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 64", name=op.f("ck_corpora_name")),
        sa.CheckConstraint("length(sha256) = 64", name=op.f("ck_corpora_sha256")),
        sa.CheckConstraint("vocabulary_size BETWEEN 1 AND characters", name=op.f("ck_corpora_vocabulary_size")),
        sa.ForeignKeyConstraint(["blob_id"], ["blobs.id"], name=op.f("fk_corpora_blob_id")),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_corpora")),
        sa.UniqueConstraint("blob_id", name=op.f("uq_corpora_blob_id")),
        sa.UniqueConstraint("id", name=op.f("uq_corpora_id")),
        sa.UniqueConstraint("sha256", name=op.f("uq_corpora_sha256")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_corpora_name_sequence"), "corpora", ["name", "sequence"], unique=False)
    op.create_table(
        "jobs",
        sa.Column("sequence", COUNT, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("status", sa.String(length=16), nullable=False),
        sa.Column("corpus_id", sa.String(length=64), nullable=True),
        sa.Column("corpus_name", sa.String(length=64), nullable=False),
        sa.Column("model", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("training", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("from_checkpoint", sa.String(length=160), nullable=True),
        sa.Column("from_checkpoint_id", sa.String(length=64), nullable=True),
        sa.Column("progress", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("best_step", COUNT, nullable=True),
        sa.Column("best_val_loss", sa.Float(precision=53), nullable=True),
        sa.Column("error", sa.JSON(none_as_null=True), nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("heartbeat", COUNT, nullable=False),
        sa.Column("crashes", sa.Integer(), nullable=False),
        sa.Column("worker", sa.String(length=128), nullable=True),
        sa.Column("cancel_requested", sa.Boolean(), nullable=False),
        sa.Column("pause_requested", sa.Boolean(), nullable=False),
        sa.Column("resume_blob_id", sa.String(length=64), nullable=True),
        sa.Column("resume_step", COUNT, nullable=True),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("started_at", TIME, nullable=True),
        sa.Column("finished_at", TIME, nullable=True),
        sa.CheckConstraint("(status = 'failed') = (error IS NOT NULL)", name=op.f("ck_jobs_error_of_failed")),
        sa.CheckConstraint("(status = 'running') = (worker IS NOT NULL)", name=op.f("ck_jobs_worker_runs")),
        sa.CheckConstraint(
            "(status IN ('cancelled', 'failed', 'succeeded')) = (finished_at IS NOT NULL)",
            name=op.f("ck_jobs_finished_at"),
        ),
        sa.CheckConstraint(
            "NOT (status IN ('queued', 'running', 'paused')) OR corpus_id IS NOT NULL",
            name=op.f("ck_jobs_corpus_while_needed"),
        ),
        sa.CheckConstraint(
            "status <> 'running' OR (attempt >= 1 AND started_at IS NOT NULL)", name=op.f("ck_jobs_started")
        ),
        sa.CheckConstraint(
            "status = 'running' OR NOT (cancel_requested OR pause_requested)",
            name=op.f("ck_jobs_requests_while_running"),
        ),
        sa.CheckConstraint(
            "status IN ('queued', 'running', 'paused', 'succeeded', 'failed', 'cancelled')", name=op.f("ck_jobs_status")
        ),
        sa.CheckConstraint("(resume_blob_id IS NULL) = (resume_step IS NULL)", name=op.f("ck_jobs_resume_point")),
        sa.CheckConstraint("attempt >= 0 AND heartbeat >= 0 AND crashes >= 0", name=op.f("ck_jobs_counters")),
        sa.CheckConstraint("best_step >= 0 AND resume_step >= 0", name=op.f("ck_jobs_steps")),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 64", name=op.f("ck_jobs_name")),
        sa.ForeignKeyConstraint(["corpus_id"], ["corpora.id"], name=op.f("fk_jobs_corpus_id"), ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["resume_blob_id"], ["blobs.id"], name=op.f("fk_jobs_resume_blob_id")),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_jobs")),
        sa.UniqueConstraint("id", name=op.f("uq_jobs_id")),
        sa.UniqueConstraint("resume_blob_id", name=op.f("uq_jobs_resume_blob_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_jobs_corpus_id"), "jobs", ["corpus_id"], unique=False)
    op.create_index(op.f("ix_jobs_status_sequence"), "jobs", ["status", "sequence"], unique=False)
    op.create_table(
        "events",
        sa.Column("id", COUNT, autoincrement=True, nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("data", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.CheckConstraint(
            "type IN ('status', 'progress', 'evaluation', 'sample', 'checkpoint')", name=op.f("ck_events_type")
        ),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_events_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_events_job_id_id"), "events", ["job_id", "id"], unique=False)
    op.create_table(
        "idempotency_keys",
        sa.Column("key", sa.String(length=255), nullable=False),
        sa.Column("request_sha256", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.CheckConstraint("length(request_sha256) = 64", name=op.f("ck_idempotency_keys_request_sha256")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_idempotency_keys_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("key", name=op.f("pk_idempotency_keys")),
    )
    op.create_index(op.f("ix_idempotency_keys_job_id"), "idempotency_keys", ["job_id"], unique=False)
    op.create_table(
        "metrics",
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("step", COUNT, autoincrement=False, nullable=False),
        sa.Column("epoch", sa.Float(precision=53), nullable=True),
        sa.Column("train_loss", sa.Float(precision=53), nullable=True),
        sa.Column("val_loss", sa.Float(precision=53), nullable=True),
        sa.Column("learning_rate", sa.Float(precision=53), nullable=True),
        sa.Column("gradient_norm", sa.Float(precision=53), nullable=True),
        sa.Column("characters_per_second", sa.Float(precision=53), nullable=True),
        sa.Column("seconds", sa.Float(precision=53), nullable=True),
        sa.CheckConstraint("step >= 0", name=op.f("ck_metrics_step")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_metrics_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("job_id", "step", name=op.f("pk_metrics")),
    )
    op.create_table(
        "models",
        sa.Column("sequence", COUNT, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("name", sa.String(length=64), nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=True),
        sa.Column("corpus_id", sa.String(length=64), nullable=True),
        sa.Column("config", sa.JSON(none_as_null=True), nullable=False),
        sa.Column("vocabulary_size", sa.Integer(), nullable=False),
        sa.Column("parameters", COUNT, nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.CheckConstraint("length(name) BETWEEN 1 AND 64", name=op.f("ck_models_name")),
        sa.CheckConstraint("vocabulary_size >= 1 AND parameters >= 1", name=op.f("ck_models_size")),
        sa.ForeignKeyConstraint(["corpus_id"], ["corpora.id"], name=op.f("fk_models_corpus_id"), ondelete="SET NULL"),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_models_job_id"), ondelete="SET NULL"),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_models")),
        sa.UniqueConstraint("id", name=op.f("uq_models_id")),
        sa.UniqueConstraint("job_id", name=op.f("uq_models_job_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(op.f("ix_models_corpus_id"), "models", ["corpus_id"], unique=False)
    op.create_index(op.f("ix_models_name_sequence"), "models", ["name", "sequence"], unique=False)
    op.create_table(
        "checkpoints",
        sa.Column("sequence", COUNT, autoincrement=True, nullable=False),
        sa.Column("id", sa.String(length=64), nullable=False),
        sa.Column("model_id", sa.String(length=64), nullable=False),
        sa.Column("step", COUNT, nullable=False),
        sa.Column("train_loss", sa.Float(precision=53), nullable=True),
        sa.Column("val_loss", sa.Float(precision=53), nullable=True),
        sa.Column("bytes", COUNT, nullable=False),
        sa.Column("best", sa.Boolean(), nullable=False),
        sa.Column("corrupted", sa.Boolean(), nullable=False),
        sa.Column("created_at", TIME, nullable=False),
        sa.Column("blob_id", sa.String(length=64), nullable=False),
        sa.CheckConstraint("NOT (best AND corrupted)", name=op.f("ck_checkpoints_best_is_sound")),
        sa.CheckConstraint("bytes >= 1", name=op.f("ck_checkpoints_bytes")),
        sa.CheckConstraint("step >= 0", name=op.f("ck_checkpoints_step")),
        sa.ForeignKeyConstraint(["blob_id"], ["blobs.id"], name=op.f("fk_checkpoints_blob_id")),
        sa.ForeignKeyConstraint(["model_id"], ["models.id"], name=op.f("fk_checkpoints_model_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("sequence", name=op.f("pk_checkpoints")),
        sa.UniqueConstraint("blob_id", name=op.f("uq_checkpoints_blob_id")),
        sa.UniqueConstraint("id", name=op.f("uq_checkpoints_id")),
        sqlite_autoincrement=True,
    )
    op.create_index(
        "ix_checkpoints_best",
        "checkpoints",
        ["model_id"],
        unique=True,
        sqlite_where=sa.text("best"),
        postgresql_where=sa.text("best"),
    )
    op.create_index("ix_checkpoints_model_id_step", "checkpoints", ["model_id", "step"], unique=True)
