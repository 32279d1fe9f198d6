"""The tables. Private: outside programs read the views (views.py).

Times are text, UTC, `YYYY-MM-DDTHH:MM:SS.mmmZ`: fixed width, so that text order is time order.
"""

from sqlalchemy import (
    Boolean,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    Table,
    Text,
    UniqueConstraint,
    false,
)

metadata = MetaData()

study = Table(
    "study",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_instance_uid", Text, nullable=False, unique=True),
    # receiving → queued → analysed | failed; held and withdrawn wait for a person.
    Column("state", Text, nullable=False),
    Column("reason", Text),
    Column("accepted", Boolean, nullable=False, default=False),
    Column("disagreement", Text, comment="JSON: the identity values that it was held for, and accepted with"),
    Column("calling_ae_title", Text, nullable=False),
    Column("patient_id", Text, nullable=False),
    Column("issuer_of_patient_id", Text, nullable=False),
    Column("patient_birth_date", Text, nullable=False),
    Column("accession_number", Text, nullable=False),
    Column("study_date", Text, nullable=False),
    Column("station_name", Text, nullable=False),
    Column("manufacturer", Text, nullable=False),
    Column("manufacturer_model_name", Text, nullable=False),
    Column("received_at", Text, nullable=False),
    Column("last_received_at", Text, nullable=False),
    Column("waiting_since", Text, comment="receipt of the first instance not yet analysed"),
    Column("claimed_until", Text, comment="the lease of an analysis in progress"),
    Column("claimed_through", Integer, comment="the last instance that was there when it was last claimed"),
    Column("alone", Boolean, nullable=False, default=False, comment="was in a batch whose process died"),
    Column("deaths", Integer, nullable=False, default=0, comment="of the analysis process while alone"),
    Column("reads", Integer, nullable=False, default=0, server_default="0", comment="of its files, that failed"),
    Column(
        "emptied",
        Boolean,
        nullable=False,
        default=False,
        server_default=false(),
        comment="withdrawn because no image to analyse is left: a further image opens it again",
    ),
)
Index("study_by_state", study.c.state, study.c.last_received_at)
Index("study_by_accession", study.c.accession_number)
Index("study_by_patient", study.c.patient_id)
Index("study_by_receipt", study.c.received_at)

instance = Table(
    "instance",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey("study.id"), nullable=False),
    Column("sop_instance_uid", Text, nullable=False),
    Column("revision", Integer, nullable=False),
    Column("is_current", Boolean, nullable=False, default=True),
    Column("series_instance_uid", Text, nullable=False),
    Column("sop_class_uid", Text, nullable=False),
    Column("transfer_syntax_uid", Text, nullable=False),
    Column("path", Text, comment="relative to the data directory; null once removed by retention"),
    Column("sha256", Text, nullable=False, comment="of transfer syntax and data set"),
    Column("size_bytes", Integer, nullable=False),
    Column("facts", Text, nullable=False, comment="study.instance.Instance as JSON"),
    Column("calling_ae_title", Text, nullable=False),
    Column("received_at", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("reason", Text),
    Column("body_part", Text),
    Column("body_part_source", Text),
    Column("laterality", Text),
    Column("laterality_source", Text),
    Column("abnormal_probability", Float),
    Column("member_probabilities", Text),
    Column("calling_address", Text, comment="whence it came; null of one that was found at start"),
    UniqueConstraint("sop_instance_uid", "sha256"),
)
Index("instance_by_study", instance.c.study_id)
Index("instance_by_path", instance.c.path)
Index("instance_by_caller", instance.c.calling_ae_title, instance.c.received_at)

analysis = Table(
    "analysis",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey("study.id"), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("model_name", Text),
    Column("model_version", Text),
    Column("bundle_hash", Text),
    Column("analysed_at", Text, nullable=False),
    UniqueConstraint("study_id", "revision"),
)

finding = Table(
    "finding",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("analysis_id", ForeignKey("analysis.id"), nullable=False, index=True),
    Column("body_part", Text),
    Column("laterality", Text),
    Column("status", Text, nullable=False, comment="analysed | unsupported"),
    Column("finding", Text),
    Column("abnormal_probability", Float),
    Column("threshold", Float),
    Column("image_count", Integer, nullable=False),
    Column("images_analysed", Integer, nullable=False),
    Column("reason", Text),
)

report = Table(
    "report",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("analysis_id", ForeignKey("analysis.id"), nullable=False, index=True),
    Column("object", Text, nullable=False, comment="sr | capture | rejection"),
    Column("sop_class_uid", Text, nullable=False),
    Column("sop_instance_uid", Text, nullable=False, unique=True),
    Column("series_instance_uid", Text, nullable=False),
    Column("path", Text, comment="relative to the data directory; null once removed by retention"),
    Column("created_at", Text, nullable=False),
)

delivery = Table(
    "delivery",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("report_id", ForeignKey("report.id"), nullable=False),
    Column("destination", Text, nullable=False),
    Column("status", Text, nullable=False),
    Column("attempts", Integer, nullable=False, default=0),
    Column("last_status", Text),
    Column("last_error", Text),
    Column("next_attempt_at", Text),
    Column("deliver_before", Text),
    Column("delivered_at", Text),
    Column("committed_at", Text),
    # Storage commitment: of the request that is out, and when to ask, or until when to wait for the answer.
    Column("transaction_uid", Text),
    Column("commitment_due_at", Text, comment="null: nothing is to be asked"),
    Column("commitment_failures", Integer, nullable=False, default=0, server_default="0"),
    Column(
        "refused_attempts",
        Integer,
        nullable=False,
        default=0,
        server_default="0",
        comment="attempts at the last refusal: of further ones nobody knows that they failed",
    ),
    UniqueConstraint("report_id", "destination"),
)
Index("delivery_by_commitment", delivery.c.destination, delivery.c.commitment_due_at)
Index("delivery_by_transaction", delivery.c.transaction_uid, sqlite_where=delivery.c.transaction_uid.is_not(None))
Index("delivery_in_turn", delivery.c.destination, delivery.c.status, delivery.c.attempts)
Index("delivery_by_deadline", delivery.c.destination, delivery.c.status, delivery.c.deliver_before)

destination = Table(
    "destination",
    metadata,
    Column("name", Text, primary_key=True),
    Column("added_at", Text, nullable=False),
    # While it cannot be reached, else null; what waits for it shares the pause.
    Column("unreachable_since", Text),
    Column("next_attempt_at", Text),
    Column("last_error", Text),
)

rejection = Table(
    "rejection",
    metadata,
    Column("sop_instance_uid", Text, primary_key=True),
    Column("study_instance_uid", Text, primary_key=True),
    Column("reason", Text, nullable=False),
    Column("note_uid", Text, nullable=False, comment="SOP Instance UID of the rejection note"),
    Column("received_at", Text, nullable=False),
)

commitment = Table(
    "commitment",
    metadata,
    Column("transaction_uid", Text, primary_key=True),
    Column("destination", Text, nullable=False),
    Column("requested_at", Text, nullable=False, index=True),
    Column("answered_at", Text),
)

pause = Table(
    "pause",
    metadata,
    Column("stage", Text, primary_key=True),
    Column("paused_at", Text, nullable=False),
)

event = Table(
    "event",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("at", Text, nullable=False),
    Column("study_instance_uid", Text, index=True),
    Column("sop_instance_uid", Text),
    Column("event", Text, nullable=False),
    Column("detail", Text),
)

# Studies whose events retention is removing, within its transaction: the triggers of `event` let no other go.
event_removal = Table("event_removal", metadata, Column("study_instance_uid", Text, primary_key=True))

# What further bundles say of a revision: beside `analysis`, so that nothing that reports or delivers can meet it.
further_analysis = Table(
    "further_analysis",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey("study.id"), nullable=False),
    Column("revision", Integer, nullable=False),
    Column("model_name", Text, nullable=False),
    Column("model_version", Text, nullable=False),
    Column("bundle_hash", Text, nullable=False),
    Column("state", Text, nullable=False, comment="waiting | analysed | failed"),
    Column("deaths", Integer, nullable=False, default=0, comment="of the analysis process of its bundle, on this"),
    Column("reason", Text),
    Column("analysed_at", Text),
    UniqueConstraint("study_id", "revision", "model_name", "model_version", "bundle_hash"),
)
Index("further_analysis_in_turn", further_analysis.c.state, further_analysis.c.deaths, further_analysis.c.id)

further_finding = Table(
    "further_finding",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("further_analysis_id", ForeignKey("further_analysis.id"), nullable=False, index=True),
    Column("body_part", Text),
    Column("laterality", Text),
    Column("finding", Text),
    Column("abnormal_probability", Float),
    Column("threshold", Float),
    Column("image_count", Integer, nullable=False),
    Column("images_analysed", Integer, nullable=False),
    Column("reason", Text),
)

site_truth = Table(
    "site_truth",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("study_id", ForeignKey("study.id"), nullable=False),
    Column("body_part", Text, nullable=False),
    Column("laterality", Text, nullable=False, comment="empty: not stated"),
    Column("label", Text, nullable=False, comment="normal | abnormal"),
    Column("file", Text, nullable=False),
    Column("imported_at", Text, nullable=False),
    UniqueConstraint("study_id", "body_part", "laterality"),
)

# A destination is to be told that what it has of a study is withdrawn; the daemon makes the note.
rejection_note = Table(
    "rejection_note",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("analysis_id", ForeignKey("analysis.id"), nullable=False, comment="the latest that is withdrawn"),
    Column("destination", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Column("report_id", ForeignKey("report.id"), comment="the note; null until it is made"),
    UniqueConstraint("analysis_id", "destination"),
)
Index("rejection_note_in_turn", rejection_note.c.destination, rejection_note.c.report_id)

installation = Table(
    "installation",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("device_uid", Text, nullable=False, comment="DeviceUID in every report"),
    Column("restored_at", Text, comment="until inbox and outbox are brought together with a restored database"),
)
