"""A destination's outage on its own row, what a study was held for, rejection notes, the indexes of a record that has
grown; what further bundles say, and what a site knows to be true; events that stay.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_EVENT_TRIGGERS = (
    "CREATE TRIGGER event_stays BEFORE UPDATE ON event BEGIN SELECT RAISE(ABORT, 'events are append-only'); END",
    "CREATE TRIGGER event_goes_by_retention BEFORE DELETE ON event"
    " WHEN NOT EXISTS (SELECT 1 FROM event_removal WHERE study_instance_uid = OLD.study_instance_uid)"
    " BEGIN SELECT RAISE(ABORT, 'events are append-only'); END",
    # REPLACE removes a row without a word to the trigger above.
    "CREATE TRIGGER event_is_new BEFORE INSERT ON event WHEN EXISTS (SELECT 1 FROM event WHERE id = NEW.id)"
    " BEGIN SELECT RAISE(ABORT, 'events are append-only'); END",
)


def upgrade() -> None:
    """Add columns and tables, and exchange indexes. Of the rows only what was parked changes: every try was refused."""
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
    op.create_table(
        "further_analysis",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("revision", sa.Integer(), nullable=False),
        sa.Column("model_name", sa.Text(), nullable=False),
        sa.Column("model_version", sa.Text(), nullable=False),
        sa.Column("bundle_hash", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("deaths", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.Column("analysed_at", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("study_id", "revision", "model_name", "model_version", "bundle_hash"),
    )
    op.create_index("further_analysis_in_turn", "further_analysis", ["state", "deaths", "id"], unique=False)
    op.create_table(
        "further_finding",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("further_analysis_id", sa.Integer(), nullable=False),
        sa.Column("body_part", sa.Text(), nullable=True),
        sa.Column("laterality", sa.Text(), nullable=True),
        sa.Column("finding", sa.Text(), nullable=True),
        sa.Column("abnormal_probability", sa.Float(), nullable=True),
        sa.Column("threshold", sa.Float(), nullable=True),
        sa.Column("image_count", sa.Integer(), nullable=False),
        sa.Column("images_analysed", sa.Integer(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=True),
        sa.ForeignKeyConstraint(["further_analysis_id"], ["further_analysis.id"]),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index(
        op.f("ix_further_finding_further_analysis_id"), "further_finding", ["further_analysis_id"], unique=False
    )
    op.create_table(
        "site_truth",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("study_id", sa.Integer(), nullable=False),
        sa.Column("body_part", sa.Text(), nullable=False),
        sa.Column("laterality", sa.Text(), nullable=False),
        sa.Column("label", sa.Text(), nullable=False),
        sa.Column("file", sa.Text(), nullable=False),
        sa.Column("imported_at", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["study_id"], ["study.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("study_id", "body_part", "laterality"),
    )
    for name in ("transaction_uid", "commitment_due_at"):
        op.add_column("delivery", sa.Column(name, sa.Text(), nullable=True))
    op.add_column("delivery", sa.Column("commitment_failures", sa.Integer(), nullable=False, server_default="0"))
    op.create_index("delivery_by_commitment", "delivery", ["destination", "commitment_due_at"], unique=False)
    op.create_index(
        "delivery_by_transaction",
        "delivery",
        ["transaction_uid"],
        unique=False,
        sqlite_where=sa.text("transaction_uid IS NOT NULL"),
    )
    op.create_table(
        "commitment",
        sa.Column("transaction_uid", sa.Text(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("requested_at", sa.Text(), nullable=False),
        sa.Column("answered_at", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("transaction_uid"),
    )
    op.create_index("ix_commitment_requested_at", "commitment", ["requested_at"], unique=False)
    op.add_column("delivery", sa.Column("refused_attempts", sa.Integer(), nullable=False, server_default="0"))
    op.execute("UPDATE delivery SET refused_attempts = attempts WHERE status = 'parked'")
    op.create_table(
        "rejection_note",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("analysis_id", sa.Integer(), nullable=False),
        sa.Column("destination", sa.Text(), nullable=False),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.Column("report_id", sa.Integer(), nullable=True),
        sa.ForeignKeyConstraint(["analysis_id"], ["analysis.id"]),
        sa.ForeignKeyConstraint(["report_id"], ["report.id"]),
        sa.PrimaryKeyConstraint("id"),
        sa.UniqueConstraint("analysis_id", "destination"),
    )
    op.create_index("rejection_note_in_turn", "rejection_note", ["destination", "report_id"], unique=False)
    op.add_column("instance", sa.Column("calling_address", sa.Text(), nullable=True))
    op.add_column("installation", sa.Column("restored_at", sa.Text(), nullable=True))
    op.create_table(
        "event_removal",
        sa.Column("study_instance_uid", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("study_instance_uid"),
    )
    for trigger in _EVENT_TRIGGERS:
        op.execute(trigger)
