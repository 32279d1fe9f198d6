"""Rows of `results` without persons: keyed hashes, shifted dates, and no text that came from a header.

Enters: the database's path and a key. Leaves: rows. Pure but for the read; never writes, never gives the key away.

Who has the key can tell whether a row is of a patient whose ID is known, and nobody else can. Within one key the same
patient, study or device has the same pseudonym in every export.
"""

import hashlib
import hmac
from collections.abc import Mapping
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

from pacs_agent.record.reading import QueryResult, query
from pacs_agent.record.times import from_text, to_text

KEY_BYTES = 32
MAX_SHIFT_DAYS = 365
_DIGITS = 16  # hexadecimal; 64 bits: no two of a hospital's patients meet

# As they are: said by us or one of a few words, never a header's text.
_KEPT = (
    *("body_part", "laterality", "status", "finding", "abnormal_probability", "threshold", "image_count"),
    *("images_analysed", "model_name", "model_version", "bundle_hash", "revision"),
)
_HASHED = ("calling_ae_title", "station_name", "manufacturer", "manufacturer_model_name")
_SHIFTED = ("received_at", "analysed_at", "delivered_at")
COLUMNS = (
    *("patient", "study_instance_uid", "report_sop_instance_uid", "accession", "study_date"),
    *(*_SHIFTED, *_HASHED, *_KEPT),
)
"""Columns of an export, in their order. `reason` is not among them: it quotes headers."""

_ROWS = """
SELECT r.*, s.issuer_of_patient_id FROM results r JOIN study s USING (study_instance_uid)
WHERE r.received_at >= ?
"""


class Pseudonyms:
    """HMAC-SHA-256 under one key, a namespace for each kind, so that equal texts of two kinds tell nothing.

    Args:
        key: at least `KEY_BYTES`.
    """

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, kind: str, *values: str) -> str:
        """The pseudonym of what is not empty; empty where all is."""
        return self._digest(kind, *values).hex()[:_DIGITS] if any(values) else ""

    def uid(self, uid: str | None) -> str:
        """A UID for a UID, under 2.25. PS3.5 B.2"""
        return f"2.25.{UUID(bytes=self._digest('uid', uid)[:16], version=4).int}" if uid else ""

    def shift(self, patient: str) -> timedelta:
        """How far a patient's dates go back: 1 to `MAX_SHIFT_DAYS` whole days, so that intervals stay."""
        return timedelta(days=int.from_bytes(self._digest("shift", patient)) % MAX_SHIFT_DAYS + 1)

    def _digest(self, *parts: str) -> bytes:
        # Each with its length: ("ab", "c") is not ("a", "bc").
        message = b"".join(len(part.encode()).to_bytes(4) + part.encode() for part in parts)
        return hmac.new(self._key, message, hashlib.sha256).digest()


def deidentified(path: Path, pseudonyms: Pseudonyms, since: str | None = None) -> QueryResult:
    """The `results` view in `COLUMNS`.

    Args:
        path: the database.
        pseudonyms: under the key of this export.
        since: received at or after, before any shift.

    Raises:
        DatabaseError: there is none, or it cannot be read.
    """
    found = query(path, _ROWS, [since or ""]).records()
    # Sorted by what is shown: the true order of receipt would give the shifts away.
    return QueryResult(COLUMNS, tuple(sorted((_row(each, pseudonyms) for each in found), key=_order)))


def _row(row: Mapping[str, Any], pseudonyms: Pseudonyms) -> tuple[Any, ...]:
    # A study that names no patient is a patient of its own: nobody may look like one with many studies.
    patient = pseudonyms.of("patient", row["patient_id"], row["issuer_of_patient_id"]) if row["patient_id"] else ""
    patient = patient or pseudonyms.of("patient of study", row["study_instance_uid"])
    shift = pseudonyms.shift(patient)
    made = {
        "patient": patient,
        "study_instance_uid": pseudonyms.uid(row["study_instance_uid"]),
        "report_sop_instance_uid": pseudonyms.uid(row["report_sop_instance_uid"]),
        "accession": pseudonyms.of("accession", row["accession_number"]),
        "study_date": _shifted_date(row["study_date"], shift),
        **{name: row[name] and to_text(from_text(row[name]) - shift) for name in _SHIFTED},
        **{name: pseudonyms.of(name, row[name]) for name in _HASHED},
        **{name: row[name] for name in _KEPT},
    }
    return tuple(made[name] for name in COLUMNS)


def _order(row: tuple[Any, ...]) -> tuple[str, ...]:
    named = dict(zip(COLUMNS, row, strict=True))
    return tuple(
        str(named[name] or "") for name in ("patient", "received_at", "study_instance_uid", "body_part", "laterality")
    )


def _shifted_date(text: str, shift: timedelta) -> str:
    """A DICOM date; empty where it is none."""
    try:
        moved: date = datetime.strptime(text, "%Y%m%d").date() - shift  # noqa: DTZ007 - a day has no zone
    except (ValueError, OverflowError):
        return ""
    return moved.strftime("%Y%m%d")
