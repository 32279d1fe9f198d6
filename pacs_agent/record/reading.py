"""Read-only queries for a person: SQL that cannot write, one study's story, the depth of every queue."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pacs_agent.errors import DatabaseError, StatementError
from pacs_agent.record.damage import damaged, is_damage

# sqlite3_set_authorizer: what a read needs, and nothing else. `mode=ro` alone lets ATTACH and VACUUM INTO make files.
_ALLOWED_ACTIONS = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
_REFUSED_FUNCTIONS = frozenset({"load_extension", "writefile", "readfile", "edit", "fts3_tokenizer"})
# What is no fault of the statement: the file or the disk, or somebody who holds the lock.
_STATE_OF_THE_FILE = frozenset(
    {
        sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL, sqlite3.SQLITE_NOMEM, sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_READONLY,
    }
)  # fmt: skip
_EXTENDED_CODE = 0xFF  # the lowest byte of an extended result code is the primary one

RESULT_STATUSES = ("receiving", "queued", "analysed", "delivered", "held", "unsupported", "failed", "withdrawn")
"""Every `status` of the `results` view."""


@dataclass(frozen=True, slots=True)
class QueryResult:
    """Column names and rows."""

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]

    def records(self) -> list[dict[str, Any]]:
        """One mapping a row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]


def query(path: Path, sql: str, parameters: Sequence[Any] = ()) -> QueryResult:
    """Run one read-only statement.

    Args:
        path: the SQLite file.
        sql: a SELECT; anything that would write is refused by the database itself.
        parameters: for `?` in it.

    Raises:
        StatementError: the statement is wrong, would write, or there is none.
        DatabaseError: there is no database, or it cannot be read now.
    """
    if not path.is_file():
        raise DatabaseError(f"there is no database {path}: start `pacs-agent serve` first")
    if not path.stat().st_size:
        raise damaged(path, "it is empty")
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30)
    try:
        connection.set_authorizer(_authorise)
        cursor = connection.execute(sql, parameters)
        if cursor.description is None:
            raise StatementError("SQL: this is no statement that gives rows")
        return QueryResult(tuple(column[0] for column in cursor.description), tuple(cursor.fetchall()))
    except (sqlite3.Error, sqlite3.Warning) as error:
        if is_damage(error):
            raise damaged(path, error) from error
        if getattr(error, "sqlite_errorcode", 0) & _EXTENDED_CODE in _STATE_OF_THE_FILE:
            raise DatabaseError(f"database {path}: {error}") from error
        raise StatementError(f"SQL: {error}") from error
    finally:
        connection.close()


def _authorise(action: int, first: str | None, second: str | None, _database: str | None, _trigger: str | None) -> int:
    if action == sqlite3.SQLITE_FUNCTION and (second or first or "").lower() in _REFUSED_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK if action in _ALLOWED_ACTIONS else sqlite3.SQLITE_DENY


def results(
    path: Path, *, since: str | None = None, body_part: str | None = None, status: str | None = None
) -> QueryResult:
    """The `results` view, newest last."""
    conditions = [
        (clause, value)
        for clause, value in (("received_at >= ?", since), ("body_part = ?", body_part), ("status = ?", status))
        if value is not None
    ]
    where = " WHERE " + " AND ".join(clause for clause, _ in conditions) if conditions else ""
    sql = f"SELECT * FROM results{where} ORDER BY received_at, study_instance_uid, body_part, laterality"  # noqa: S608
    return query(path, sql, [value for _, value in conditions])


def studies_of(path: Path, key: str) -> list[str]:
    """Study Instance UIDs that an accession number, Study Instance UID or patient ID names, oldest first."""
    found = query(
        path,
        "SELECT study_instance_uid FROM study WHERE study_instance_uid = ?1 OR accession_number = ?1 OR patient_id = ?1"
        # What instances of a held study say besides; few studies ever disagree.
        " OR (disagreement IS NOT NULL AND EXISTS (SELECT 1 FROM instance i WHERE i.study_id = study.id AND"
        " ?1 IN (json_extract(i.facts, '$.patient_id'), json_extract(i.facts, '$.accession_number'))))"
        " ORDER BY received_at",
        [key],
    )
    return [row[0] for row in found.rows]


STORY = {
    "results": "SELECT * FROM results WHERE study_instance_uid = ?",
    "instances": "SELECT * FROM image_results WHERE study_instance_uid = ?",
    "deliveries": """
SELECT d.*, a.revision FROM deliveries d
JOIN report r ON r.sop_instance_uid = d.sop_instance_uid JOIN analysis a ON a.id = r.analysis_id
WHERE d.study_instance_uid = ?
""",
    "analyses": "SELECT * FROM analyses WHERE study_instance_uid = ? ORDER BY revision",
    "history": "SELECT * FROM events WHERE study_instance_uid = ?",
    "identities": """
SELECT i.sop_instance_uid, json_extract(i.facts, '$.patient_id') AS patient_id,
  json_extract(i.facts, '$.issuer_of_patient_id') AS issuer_of_patient_id,
  json_extract(i.facts, '$.patient_birth_date') AS patient_birth_date,
  json_extract(i.facts, '$.accession_number') AS accession_number
FROM instance i JOIN study s ON s.id = i.study_id
WHERE s.study_instance_uid = ? AND i.is_current AND s.disagreement IS NOT NULL ORDER BY i.id
""",
}
"""What `pacs-agent show` tells of a study; `identities` only of one that is or was held for them."""

REPORT_IDENTITIES = """
SELECT json_extract(i.facts, '$.patient_id') AS patient_id,
  json_extract(i.facts, '$.accession_number') AS accession_number
FROM instance i JOIN study s ON s.id = i.study_id
WHERE s.study_instance_uid = ? AND i.is_current AND i.status IN ('received', 'analysed', 'failed') ORDER BY i.id
"""
"""Whose the images of a study are, in the order of its report, which takes each value from the first that has it."""

REPORT_PATH = """
SELECT r.path, a.revision, (SELECT MAX(revision) FROM analysis WHERE study_id = s.id)
FROM report r JOIN analysis a ON a.id = r.analysis_id JOIN study s ON s.id = a.study_id
WHERE s.study_instance_uid = ? AND r.object = 'sr' ORDER BY a.revision DESC, r.id LIMIT 1
"""
"""The latest report of a study, its revision, the study's latest; no path where retention removed the file."""

COPIES = """
SELECT d.destination, MAX(d.delivered_at IS NOT NULL) AS is_certain
FROM delivery d JOIN report r ON r.id = d.report_id JOIN analysis a ON a.id = r.analysis_id
JOIN study s ON s.id = a.study_id
WHERE s.study_instance_uid = ? AND r.object <> 'rejection'
  AND (d.delivered_at IS NOT NULL OR d.attempts > d.refused_attempts)
  AND NOT EXISTS (
    SELECT 1 FROM rejection_note n JOIN analysis w ON w.id = n.analysis_id
    WHERE w.study_id = s.id AND w.revision >= a.revision AND n.destination = d.destination
  )
GROUP BY d.destination ORDER BY d.destination
"""
"""The destinations that have an object of a study, or were offered it and did not answer, and no note takes it back."""

NOTES = """
SELECT n.destination FROM rejection_note n JOIN analysis a ON a.id = n.analysis_id JOIN study s ON s.id = a.study_id
WHERE s.study_instance_uid = ? AND a.revision = (SELECT MAX(revision) FROM analysis WHERE study_id = s.id)
ORDER BY n.destination
"""
"""The destinations that get, or got, a rejection note of the latest revision of a study."""

QUEUES = """
SELECT queue, destination, status, COUNT(*) AS depth, MIN(since) AS oldest FROM (
  SELECT 'studies' AS queue, NULL AS destination, state AS status, COALESCE(waiting_since, last_received_at) AS since
  FROM study WHERE state IN ('receiving', 'queued', 'held', 'failed')
  UNION ALL
  SELECT 'deliveries', destination, status, r.created_at FROM delivery JOIN report r ON r.id = report_id
  WHERE status IN ('waiting', 'held', 'parked')
  UNION ALL
  SELECT 'objects', NULL, 'held', created_at FROM report
  WHERE analysis_id NOT IN (SELECT analysis_id FROM report JOIN delivery ON report_id = report.id)
) GROUP BY queue, destination, status
"""
"""What waits, a study since its first instance that has not been analysed. What is finished is no queue."""

CALLERS = """
SELECT calling_ae_title, COUNT(*) AS instances, MAX(received_at) AS last_receipt FROM instance
GROUP BY calling_ae_title ORDER BY calling_ae_title
"""

PAUSED = "SELECT stage, paused_at FROM pause ORDER BY stage"

DESTINATIONS = "SELECT * FROM destination"
"""All columns: `status` is asked too while the database waits for the migration of the next start."""
