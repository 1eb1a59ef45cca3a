"""What people note beside a job, names and values. Jobs of before have none."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"


def upgrade() -> None:
    op.add_column("jobs", sa.Column("metadata", sa.JSON(none_as_null=True), nullable=True))
