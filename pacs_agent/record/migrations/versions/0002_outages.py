"""A destination's outage on its own row, what a study was held for, and the indexes of a record that has grown."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Add columns and exchange indexes; no row changes."""
    for name in ("unreachable_since", "next_attempt_at", "last_error"):
        op.add_column("destination", sa.Column(name, sa.Text(), nullable=True))
    op.add_column("study", sa.Column("disagreement", sa.Text(), nullable=True))
    op.drop_index("delivery_due", "delivery")
    op.create_index("delivery_by_deadline", "delivery", ["destination", "status", "deliver_before"], unique=False)
    op.create_index("delivery_in_turn", "delivery", ["destination", "status", "attempts"], unique=False)
    op.create_index("instance_by_path", "instance", ["path"], unique=False)
    op.create_index("study_by_receipt", "study", ["received_at"], unique=False)
    for name in ("transaction_uid", "commitment_due_at"):
        op.add_column("delivery", sa.Column(name, sa.Text(), nullable=True))
    op.add_column("delivery", sa.Column("commitment_failures", sa.Integer(), nullable=False, server_default="0"))
    op.create_index("delivery_by_commitment", "delivery", ["destination", "commitment_due_at"], unique=False)
    op.create_table(
        "commitment",
        sa.Column("transaction_uid", sa.Text(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("requested_at", sa.Text(), nullable=False),
        sa.Column("answered_at", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("transaction_uid"),
    )
    op.create_index("ix_commitment_requested_at", "commitment", ["requested_at"], unique=False)
