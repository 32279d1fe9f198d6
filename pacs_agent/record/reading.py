"""Read-only queries for a person: SQL that cannot write, one study's story, the depth of every queue."""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pacs_agent.errors import DatabaseError

# sqlite3_set_authorizer: what a read needs, and nothing else. `mode=ro` alone lets ATTACH and VACUUM INTO make files.
_ALLOWED_ACTIONS = frozenset(
    {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
_REFUSED_FUNCTIONS = frozenset({"load_extension", "writefile", "readfile", "edit", "fts3_tokenizer"})


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
        DatabaseError: there is no database, the statement is wrong, or it would write.
    """
    if not path.is_file():
        raise DatabaseError(f"there is no database {path}: start `pacs-agent serve` first")
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30)
    try:
        connection.set_authorizer(_authorise)
        cursor = connection.execute(sql, parameters)
        columns = tuple(column[0] for column in cursor.description or ())
        return QueryResult(columns, tuple(cursor.fetchall()))
    except (sqlite3.Error, sqlite3.Warning) as error:
        raise DatabaseError(f"SQL: {error}") from error
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
        " ORDER BY received_at",
        [key],
    )
    return [row[0] for row in found.rows]


STORY = {
    "results": "SELECT * FROM results WHERE study_instance_uid = ?",
    "instances": "SELECT * FROM image_results WHERE study_instance_uid = ?",
    "deliveries": "SELECT * FROM deliveries WHERE study_instance_uid = ?",
    "analyses": "SELECT * FROM analyses WHERE study_instance_uid = ? ORDER BY revision",
    "history": "SELECT * FROM events WHERE study_instance_uid = ?",
}
"""What `pacs-agent show` tells of a study."""

REPORT_PATH = """
SELECT r.path FROM report r JOIN analysis a ON a.id = r.analysis_id JOIN study s ON s.id = a.study_id
WHERE s.study_instance_uid = ? AND r.path IS NOT NULL ORDER BY a.revision DESC, r.id LIMIT 1
"""

QUEUES = """
SELECT 'studies' AS queue, state AS status, COUNT(*) AS depth, MIN(last_received_at) AS oldest
FROM study GROUP BY state
UNION ALL
SELECT 'delivery to ' || destination, status, COUNT(*), MIN(r.created_at)
FROM delivery JOIN report r ON r.id = report_id GROUP BY destination, status
UNION ALL
SELECT 'objects', 'held', COUNT(*), MIN(created_at) FROM report
WHERE id NOT IN (SELECT report_id FROM delivery) HAVING COUNT(*) > 0
"""

CALLERS = """
SELECT calling_ae_title, COUNT(*) AS instances, MAX(received_at) AS last_receipt FROM instance
GROUP BY calling_ae_title ORDER BY calling_ae_title
"""
