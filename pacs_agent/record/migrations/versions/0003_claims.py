"""Reads of a study's files that failed, apart from deaths of the analysis process on it; what a claim has in hand."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Add the columns. What counted as a death goes on to count as one: the two cannot be told apart."""
    op.add_column("study", sa.Column("reads", sa.Integer(), nullable=False, server_default="0"))
    op.add_column("study", sa.Column("claimed_through", sa.Integer(), nullable=True))
