"""SQL for a person: reads everything, writes nothing, anywhere."""

from pathlib import Path

import pytest

from pacs_agent.errors import DatabaseError, StatementError
from pacs_agent.record.reading import query, results
from pacs_agent.record.store import Store


@pytest.mark.parametrize(
    "statement",
    [
        "INSERT INTO pause VALUES ('analysis', 'now')",
        "UPDATE study SET state = 'failed'",
        "DELETE FROM event",
        "REPLACE INTO pause VALUES ('analysis', 'now')",
        "WITH x AS (SELECT 1) DELETE FROM event",
        "CREATE TABLE x (y)",
        "CREATE TEMP TABLE x (y)",
        "DROP VIEW results",
        "ALTER TABLE study ADD COLUMN x",
        "ATTACH '{other}' AS other",
        "VACUUM INTO '{other}'",
        "VACUUM",
        "REINDEX",
        "ANALYZE",
        "BEGIN IMMEDIATE",
        "PRAGMA writable_schema = 1",
        "PRAGMA journal_mode = DELETE",
        "PRAGMA user_version = 7",
        "SELECT load_extension('x')",
        "SELECT 1; DELETE FROM event",
        "DETACH main",
        "",
        ";",
        "-- nothing",
        "SELECT 1; SELECT 2",
        "SELEKT 1",
    ],
)
def test_anything_but_a_read_is_refused(store: Store, tmp_path: Path, statement: str) -> None:
    """A clear error from the database itself; the record is as before and no file was made."""
    with store.write() as connection:
        connection.exec_driver_sql("INSERT INTO event (at, event) VALUES ('2026', 'x')")
    other = tmp_path / "other.db"
    before = query(store.path, "SELECT * FROM sqlite_schema").rows
    with pytest.raises(StatementError, match=r"^SQL: "):
        query(store.path, statement.format(other=other))
    assert not other.exists()
    assert query(store.path, "SELECT * FROM sqlite_schema").rows == before
    assert query(store.path, "SELECT event FROM events").rows == (("x",),)
    assert query(store.path, "SELECT * FROM pause").rows == ()


@pytest.mark.parametrize(
    "statement",
    [
        "SELECT COUNT(*) FROM results",
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 3) SELECT MAX(i) FROM n",
        "SELECT json_extract('{\"a\": 1}', '$.a'), strftime('%Y', '2026-01-01'), max(1, 2)",
        "SELECT * FROM image_results NATURAL JOIN deliveries",
        "SELECT a.revision, rank() OVER (ORDER BY revision) FROM analyses a",
        "SELECT * FROM events WHERE event LIKE '%x%' ORDER BY at LIMIT 3",
    ],
)
def test_reads_work(store: Store, statement: str) -> None:
    """Views, functions, recursion, windows."""
    assert query(store.path, statement).columns


def test_no_database_is_said(tmp_path: Path) -> None:
    """And none is made by looking."""
    with pytest.raises(DatabaseError, match="there is no database"):
        query(tmp_path / "absent.db", "SELECT 1")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_is_no_database_is_no_fault_of_the_statement(tmp_path: Path) -> None:
    """Told apart from a wrong statement: a program tries again, a person need not read the SQL."""
    path = tmp_path / "pacs-agent.db"
    path.write_bytes(b"garbage" * 100)
    with pytest.raises(DatabaseError, match="not a database") as caught:
        query(path, "SELECT 1 FROM results")
    assert not isinstance(caught.value, StatementError)


def test_filters_are_values_not_sql(store: Store) -> None:
    """A quotation mark in a filter finds nothing and breaks nothing."""
    assert results(store.path, since="'; DROP", body_part="'", status='"').rows == ()
    assert "finding" in results(store.path).columns
