"""Outages on the destination's row, what a study was held for, rejection notes, indexes of a record that has grown."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add columns and exchange indexes; no row changes."""
    for name in ("unreachable_since", "next_attempt_at", "last_error"):
        op.add_column("destination", sa.Column(name, sa.Text(), nullable=True))
    op.add_column("study", sa.Column("disagreement", sa.Text(), nullable=True))
    op.add_column("study", sa.Column("emptied", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_table(
        "rejection",
        sa.Column("sop_instance_uid", sa.Text(), primary_key=True),
        sa.Column("study_instance_uid", sa.Text(), primary_key=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("note_uid", sa.Text(), nullable=False),
        sa.Column("received_at", sa.Text(), nullable=False),
    )
    op.drop_index("delivery_due", "delivery")
    op.create_index("delivery_by_deadline", "delivery", ["destination", "status", "deliver_before"], unique=False)
    op.create_index("delivery_in_turn", "delivery", ["destination", "status", "attempts"], unique=False)
    op.create_index("instance_by_path", "instance", ["path"], unique=False)
    op.create_index("study_by_receipt", "study", ["received_at"], unique=False)
