"""Reads of a study's files that failed, apart from the deaths of the analysis process on it."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the column. What counted as a death goes on to count as one: the two cannot be told apart."""
    op.add_column("study", sa.Column("reads", sa.Integer(), nullable=False, server_default="0"))
