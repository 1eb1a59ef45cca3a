"""States that clients hand back are signed, with a key that outlives a restart and that all services share."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.create_table(
        "secrets",
        sa.Column("name", sa.String(64), nullable=False),
        sa.Column("value", sa.LargeBinary(), nullable=False),
        sa.CheckConstraint("length(value) BETWEEN 16 AND 1024", name=op.f("ck_secrets_value")),
        sa.PrimaryKeyConstraint("name", name=op.f("pk_secrets")),
    )
