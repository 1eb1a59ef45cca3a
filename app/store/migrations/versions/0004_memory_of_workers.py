"""Workers tell how much memory their trainings may take; those that have announced themselves before do not say."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    count = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.add_column("workers", sa.Column("memory_bytes", count, nullable=True))
