"""Memory in the metrics, setbacks among the events, an index of jobs by name, and no average where none was known.

As it was then: later changes of schema.py do not reach into this file.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

COUNT = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
JSON = sa.JSON(none_as_null=True)
KNOWN_TYPE = "type IN ('status', 'progress', 'evaluation', 'sample', 'checkpoint', 'setback')"


def upgrade() -> None:
    op.add_column("metrics", sa.Column("memory_bytes", COUNT, nullable=True))
    op.create_index(op.f("ix_jobs_name_sequence"), "jobs", ["name", "sequence"], unique=False)
    if op.get_bind().dialect.name == "sqlite":
        _make_events_anew()
    else:
        op.drop_constraint(op.f("ck_events_type"), "events", type_="check")
        op.create_check_constraint(op.f("ck_events_type"), "events", KNOWN_TYPE)
    _tell_what_was_not_done()


def _make_events_anew() -> None:
    """SQLite changes no constraint of a table; its count of ids given out must come along, or some are given again."""
    op.create_table(
        "events_anew",
        sa.Column("id", COUNT, autoincrement=True, nullable=False),
        sa.Column("job_id", sa.String(length=64), nullable=False),
        sa.Column("type", sa.String(length=16), nullable=False),
        sa.Column("data", JSON, nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        sa.CheckConstraint(KNOWN_TYPE, name=op.f("ck_events_type")),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"], name=op.f("fk_events_job_id"), ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("id", name=op.f("pk_events")),
        sqlite_autoincrement=True,
    )
    columns = "id, job_id, type, data, created_at"
    op.execute(f"INSERT INTO events_anew ({columns}) SELECT {columns} FROM events")  # noqa: S608
    op.execute("DELETE FROM sqlite_sequence WHERE name = 'events_anew'")
    op.execute("UPDATE sqlite_sequence SET name = 'events_anew' WHERE name = 'events'")
    op.drop_table("events")
    op.rename_table("events_anew", "events")
    op.create_index(op.f("ix_events_job_id_id"), "events", ["job_id", "id"], unique=False)


def _tell_what_was_not_done() -> None:
    """A job that waits or runs goes on as it began, whatever the setting's default is by then."""
    jobs = sa.table("jobs", sa.column("id", sa.String), sa.column("training", JSON))
    connection = op.get_bind()
    for job_id, training in connection.execute(sa.select(jobs.c.id, jobs.c.training)).all():
        told = {"average_decay": 0.0, "state_reset": 0.0} | training
        connection.execute(sa.update(jobs).where(jobs.c.id == job_id).values(training=told))
