"""A database of an earlier version: brought up whole, or left as it was."""

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy.exc import OperationalError

import pacs_agent.record
from pacs_agent.errors import DatabaseError
from pacs_agent.record import backup, delivering, migrate
from pacs_agent.record.reading import query
from pacs_agent.record.store import Store

TIME = "2026-01-05T10:00:00.000Z"
STATES = ("receiving", "queued", "analysed", "held", "failed", "withdrawn")
INSTANCE_STATUSES = ("received", "analysed", "unsupported", "ignored", "rejected", "failed")
DELIVERY_STATUSES = ("waiting", "held", "delivered", "committed", "parked", "cancelled")
ROWS = (
    "INSERT INTO study VALUES (1, '1.4', 'analysed', NULL, 0, 'XR1', 'P', '', '', 'A1', '', '', '', '', "
    "'2026-01-05T10:00:00.000Z', '2026-01-05T10:00:00.000Z', NULL, NULL, 0, 0)",
    "INSERT INTO analysis VALUES (1, 1, 1, 'net', '1', 'abc', '2026-01-05T10:01:00.000Z')",
    "INSERT INTO finding VALUES (1, 1, 'hand', 'R', 'analysed', 'normal', 0.1, 0.5, 1, 1, NULL)",
    "INSERT INTO report VALUES (1, 1, 'sr', '1.6', '9.1', '9.2', 'outbox/x', '2026-01-05T10:01:00.000Z')",
    "INSERT INTO destination VALUES ('pacs', '2026-01-01T00:00:00.000Z')",
    "INSERT INTO delivery VALUES (1, 1, 'pacs', 'waiting', 3, NULL, 'cannot be reached', "
    "'2026-01-05T10:02:00.000Z', NULL, NULL, NULL)",
    "CREATE VIEW results AS SELECT id FROM study",
)
# A study in each state; in each an instance in each status, and an object whose delivery is in each status.
EVERY_STATE = (
    *(
        f"INSERT INTO study VALUES ({number}, '1.4.{number}', '{state}', 'why', {number % 2}, 'XR1', 'P{number}', 'I', "
        f"'19700101', 'A{number}', '20260105', 'ROOM', 'M', 'MM', '{TIME}', '{TIME}', '{TIME}', '{TIME}', 1, 1)"
        for number, state in enumerate(STATES, 2)
    ),
    *(
        f"INSERT INTO instance VALUES ({study * 10 + number}, {study}, '1.2.{study}.{number}', 1, 1, '1.3', '1.1', "
        f"'1.2.840.10008.1.2.1', 'inbox/{study}{number}', '{study}-{number}', 9, '{{\"view_position\": \"PA\"}}', "
        f"'XR1', '{TIME}', '{status}', 'why', 'hand', 'rule', 'R', 'Laterality', 0.5, '[0.5, 0.5, 0.5]')"
        for study in range(2, 2 + len(STATES))
        for number, status in enumerate(INSTANCE_STATUSES)
    ),
    *(
        f"INSERT INTO analysis VALUES ({study}, {study}, 1, 'net', '1', 'abc', '{TIME}')"
        for study in range(2, 2 + len(STATES))
    ),
    *(
        f"INSERT INTO report VALUES ({study * 10 + number}, {study}, 'sr', '1.6', '9.{study}.{number}', '9.2', "
        f"'outbox/{study}{number}', '{TIME}')"
        for study in range(2, 2 + len(STATES))
        for number in range(len(DELIVERY_STATUSES))
    ),
    *(
        f"INSERT INTO delivery VALUES ({study * 10 + number}, {study * 10 + number}, 'pacs', '{status}', 1, 'A700', "
        f"'why', '{TIME}', '{TIME}', '{TIME}', '{TIME}')"
        for study in range(2, 2 + len(STATES))
        for number, status in enumerate(DELIVERY_STATUSES)
    ),
    f"INSERT INTO pause VALUES ('analysis', '{TIME}')",
    f"INSERT INTO event VALUES (1, '{TIME}', '1.4', '1.2', 'delivered', 'pacs: 0000')",
    "INSERT INTO installation VALUES (1, '2.25.1')",
)


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A database as the first schema left it, with a study whose report waits, and a view of that time."""
    path = tmp_path / "pacs-agent.db"
    bring(path, "0001", ROWS)
    return path


def bring(path: Path, revision: str, rows: Sequence[str] = ()) -> None:
    """The schema of a version of this program, and rows in it."""
    store = Store(path)
    config = Config()
    config.set_main_option("script_location", str(Path(pacs_agent.record.__file__).parent / "migrations"))
    with store.write() as connection:
        config.attributes["connection"] = connection
        for name in migrate.VIEWS:
            connection.exec_driver_sql(f"DROP VIEW IF EXISTS {name}")
        command.upgrade(config, revision)
        for row in rows:
            connection.exec_driver_sql(row)
    store.close()


def test_upgrade_from_the_first_schema_keeps_every_row(first: Path) -> None:
    """The report that waited still waits and can be claimed, its destination is known since then."""
    store = Store.open(first)
    assert query(first, "SELECT status, finding FROM results").rows == (("analysed", "normal"),)
    assert query(first, "SELECT status, attempts, last_error FROM deliveries").rows == (
        ("waiting", 3, "cannot be reached"),
    )
    assert delivering.destinations_since(store, ["pacs"]) == {"pacs": "2026-01-01T00:00:00.000Z"}
    assert [due.attempts for due in delivering.claim_due(store, "pacs", 10, 60)] == [4]
    delivering.mark_unreachable(store, "pacs", [], "cannot be reached", store.clock())
    store.close()


def test_upgrade_knows_what_was_refused(full: Path) -> None:
    """A parked object was refused at every try: no rejection note is to name it, unlike one that got no answer."""
    Store.open(full).close()
    found = query(full, "SELECT DISTINCT status, refused_attempts = attempts FROM delivery WHERE attempts > 0").rows
    assert {status for status, is_refused in found if is_refused} == {"parked"}
    assert ("waiting", 0) in found


def test_upgrade_that_fails_leaves_the_old_schema_whole(first: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables, views and version are one transaction."""
    before = query(first, "SELECT * FROM sqlite_schema").rows
    monkeypatch.setitem(migrate.VIEWS, "results", "SELECT broken")
    monkeypatch.setitem(migrate.VIEWS, "zz", "SELEKT 1")
    with pytest.raises((DatabaseError, OperationalError)):
        Store.open(first)
    monkeypatch.undo()
    assert query(first, "SELECT * FROM sqlite_schema").rows == before
    assert query(first, "SELECT version_num FROM alembic_version").rows == (("0001",),)
    Store.open(first).close()


def test_commands_refuse_a_schema_that_serve_has_not_upgraded(first: Path) -> None:
    """They never migrate: one line says that `serve` does, and after it they work."""
    with pytest.raises(DatabaseError, match="start `pacs-agent serve`"):
        Store.attach(first)
    Store.open(first).close()
    Store.attach(first).close()


def contents(path: Path, columns: dict[str, list[str]]) -> dict[str, tuple[object, ...]]:
    """Every row of every table, in the columns that are named."""
    return {
        table: query(path, f"SELECT {', '.join(names)} FROM {table} ORDER BY 1").rows
        for table, names in columns.items()
    }


@pytest.fixture
def full(first: Path) -> Path:
    """The first schema's database with rows in every state."""
    bring(first, "0001", EVERY_STATE)
    return first


def columns_of(path: Path) -> dict[str, list[str]]:
    """Tables and their columns."""
    tables = query(path, "SELECT name FROM sqlite_schema WHERE type = 'table' AND name <> 'alembic_version'").rows
    with closing(sqlite3.connect(path)) as connection:
        return {
            str(table): [str(row[1]) for row in connection.execute(f"PRAGMA table_info({table})")]
            for (table,) in tables
        }


@pytest.mark.parametrize("revision", ["0001", "0002"])
@pytest.mark.parametrize("by", ["start", "restore"])
def test_upgrade_from_every_schema_in_every_state(full: Path, tmp_path: Path, by: str, revision: str) -> None:
    """Not a value of any row changes, each view reads them all, and new columns say what was so before."""
    columns = columns_of(full)
    before = contents(full, columns)
    assert all(before.values())  # every table has a row
    path = full
    bring(path, revision)
    if by == "restore":
        path = tmp_path / "other" / "pacs-agent.db"
        path.parent.mkdir()
        assert backup.restore(path, full) is None
        before["event"] = (*before["event"], query(path, f"SELECT {', '.join(columns['event'])} FROM event").rows[-1])
    Store.open(path).close()
    assert contents(path, columns) == before
    statuses = query(path, "SELECT DISTINCT study_instance_uid, status FROM results").rows
    assert {status for _, status in statuses} >= {"receiving", "queued", "held", "failed", "withdrawn"}
    assert len(query(path, "SELECT * FROM image_results").rows) == len(STATES) * len(INSTANCE_STATUSES)
    assert len(query(path, "SELECT * FROM deliveries").rows) == len(STATES) * len(DELIVERY_STATUSES) + 1
    assert query(path, "SELECT DISTINCT emptied, disagreement, reads FROM study").rows == ((0, None, 0),)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert connection.execute("PRAGMA foreign_key_check").fetchall() == []
