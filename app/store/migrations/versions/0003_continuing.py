"""What going on from a checkpoint needs: the characters of a corpus, and how many of them were new.

Both are unknown of what was stored before; the characters are found out when they are asked for.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.create_table(
        "vocabularies",
        sa.Column("corpus_id", sa.String(length=64), nullable=False),
        sa.Column("normalization", sa.String(length=16), nullable=False),
        sa.Column("characters", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["corpus_id"], ["corpora.id"], name=op.f("fk_vocabularies_corpus_id"), ondelete="CASCADE"
        ),
        sa.PrimaryKeyConstraint("corpus_id", "normalization", name=op.f("pk_vocabularies")),
    )
    op.add_column("jobs", sa.Column("new_characters", sa.Integer(), nullable=True))
