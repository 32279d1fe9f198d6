"""Rows of the views as tables for a person. Enters: records. Leaves: headings, rows of text, a title. Prints nothing.

A probability stands in a table only where a claim is made; programs read the views' columns as they are.
"""

import json
from collections.abc import Sequence
from typing import Any

from pacs_agent.cli.printing import cell

Record = dict[str, Any]
TextTable = tuple[Sequence[str], Sequence[Sequence[str]], str | None]
CLAIMS = ("normal", "abnormal")


def results_table(records: Sequence[Record], title: str | None = None) -> TextTable:
    """Rows of `results`; a study without an accession number is named by its UID."""
    headings = (
        "study", "received (UTC)", "body part", "laterality", "status", "finding", "probability", "images", "reason",
    )  # fmt: skip
    rows = [
        (
            record["accession_number"] or record["study_instance_uid"],
            minute(record["received_at"]),
            *_cells(record, "body_part", "laterality", "status", "finding"),
            probability(record["abnormal_probability"], record["finding"]),
            _images(record),
            cell(record["reason"]),
        )
        for record in records
    ]
    return headings, rows, title


def revisions_table(records: Sequence[Record]) -> TextTable:
    """Rows of `analyses`: every revision of one study."""
    headings = (
        "revision", "analysed (UTC)", "body part", "laterality", "finding", "probability", "images", "model", "role",
        "reason",
    )  # fmt: skip
    rows = [
        (
            cell(record["revision"]),
            minute(record["analysed_at"]),
            *_cells(record, "body_part", "laterality", "finding"),
            probability(record["abnormal_probability"], record["finding"]),
            _images(record),
            " ".join(_cells(record, "model_name", "model_version")).strip(),
            record["role"],
            cell(record["reason"]),
        )
        for record in records
    ]
    return headings, rows, "Revisions"


def instances_table(records: Sequence[Record], results: Sequence[Record]) -> TextTable:
    """Rows of `image_results`; *results* of the study say where a claim is made, a reason that it rests on others."""
    findings = {(result["body_part"], result["laterality"]): result["finding"] for result in results}
    headings = ("SOP Instance UID", "status", "body part", "decided by", "laterality", "view", "probability", "reason")
    rows = [
        (
            *_cells(record, "sop_instance_uid", "status", "body_part", "body_part_source"),
            *_cells(record, "laterality", "view_position"),
            ""
            if record["reason"]
            else probability(record["abnormal_probability"], findings.get((record["body_part"], record["laterality"]))),
            cell(record["reason"]),
        )
        for record in records
    ]
    return headings, rows, "Instances"


def identities_table(records: Sequence[Record]) -> TextTable:
    """Which instance says that it is whose."""
    headings = ("SOP Instance UID", "patient ID", "issuer", "birth date", "accession number")
    names = ("sop_instance_uid", "patient_id", "issuer_of_patient_id", "patient_birth_date", "accession_number")
    return headings, [tuple(_cells(record, *names)) for record in records], "Whose its instances say they are"


def deliveries_table(records: Sequence[Record]) -> TextTable:
    """Rows of `deliveries`, each with the revision that its object is of."""
    headings = (
        "object", "revision", "destination", "status", "attempts", "next attempt (UTC)", "delivered (UTC)",
        "last answer",
    )  # fmt: skip
    rows = [
        (
            *_cells(record, "object", "revision", "destination", "status", "attempts"),
            second(record["next_attempt_at"]),
            second(record["delivered_at"]),
            " ".join(part for part in _cells(record, "last_status", "last_error") if part),
        )
        for record in records
    ]
    return headings, rows, "Deliveries"


def history_table(records: Sequence[Record]) -> TextTable:
    """Rows of `events`."""
    rows = [(second(record["at"]), *_cells(record, "event", "detail")) for record in records]
    return ("at (UTC)", "event", "detail"), rows, "History"


def predictions_table(records: Sequence[Record]) -> TextTable:
    """Answers of `predict`; the members' probabilities only beside a claim."""
    headings = ("file", "body part", "decided by", "finding", "probability", "of each member", "reason")
    rows = [
        (
            *_cells(record, "file", "body_part", "body_part_source", "finding"),
            probability(record["abnormal_probability"], record["finding"]),
            members(record["member_probabilities"]) if record["finding"] in CLAIMS else "",
            cell(record["reason"]),
        )
        for record in records
    ]
    return headings, rows, None


def queues_table(records: Sequence[Record]) -> TextTable:
    """Queues of `status`; those that wait for a person only where there is something in them."""
    rows = [
        (
            record["queue"] + (f" to {record['destination']}" if record["destination"] else ""),
            *_cells(record, "status", "depth"),
            second(record["oldest"]),
        )
        for record in records
        if record["depth"] or record["status"] in ("receiving", "queued", "waiting")
    ]
    return ("queue", "status", "depth", "oldest (UTC)"), rows, None


def callers_table(records: Sequence[Record]) -> TextTable:
    """Callers of `status`."""
    rows = [(*_cells(record, "calling_ae_title", "instances"), second(record["last_receipt"])) for record in records]
    return ("calling AE title", "instances", "last receipt (UTC)"), rows, None


def manifest_lines(manifest: Record) -> list[str]:
    """What a bundle is, a line an entry; nested entries by their path."""
    lines: list[str] = []
    for key, value in manifest.items():
        if isinstance(value, dict) and value:
            lines += [f"{key}.{each}" for each in manifest_lines(value)]
        elif isinstance(value, list) and not any(isinstance(each, dict) for each in value):
            lines.append(f"{key}: {', '.join(map(str, value)) or 'none'}")
        elif value is None or value in ({}, []):
            lines.append(f"{key}: none")
        else:
            lines.append(f"{key}: {value if isinstance(value, str) else json.dumps(value)}")
    return lines


def probability(value: float | None, finding: str | None) -> str:
    """Two digits, and nothing where the finding is no claim."""
    return "" if value is None or finding not in CLAIMS else f"{value:.2f}"


def members(values: Sequence[float]) -> str:
    """The members' probabilities: `0.51 0.49 0.50`."""
    return " ".join(f"{value:.2f}" for value in values)


def minute(time: str | None) -> str:
    """`2026-01-31 08:15` of a time of the database."""
    return time[:16].replace("T", " ") if time else ""


def second(time: str | None) -> str:
    """`2026-01-31 08:15:00` of a time of the database."""
    return time[:19].replace("T", " ") if time else ""


def _images(record: Record) -> str:
    return f"{record['images_analysed']} of {record['image_count']}" if record["image_count"] else ""


def _cells(record: Record, *columns: str) -> list[str]:
    return [cell(record[column]) for column in columns]
