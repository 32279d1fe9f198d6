"""A database of an earlier version: brought up whole, or left as it was."""

from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy.exc import OperationalError

import pacs_agent.record
from pacs_agent.errors import DatabaseError
from pacs_agent.record import delivering, migrate
from pacs_agent.record.reading import query
from pacs_agent.record.store import Store

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


@pytest.fixture
def first(tmp_path: Path) -> Path:
    """A database as the first schema left it, with a study whose report waits, and a view of that time."""
    store = Store(tmp_path / "pacs-agent.db")
    config = Config()
    config.set_main_option("script_location", str(Path(pacs_agent.record.__file__).parent / "migrations"))
    with store.write() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0001")
        for row in ROWS:
            connection.exec_driver_sql(row)
    store.close()
    return store.path


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
