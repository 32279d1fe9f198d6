"""A copy of the database while it is written, and its return: whole, or not at all."""

import os
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

import pytest
from records import Record
from sqlalchemy import update

from pacs_agent.errors import DatabaseError, DatabaseNewerError, PacsAgentError
from pacs_agent.record import backup
from pacs_agent.record.reading import query
from pacs_agent.record.store import Store
from pacs_agent.record.tables import delivery


@pytest.fixture
def copied(record: Record, tmp_path: Path) -> Path:
    """A backup of a record with one study."""
    record.device_uid("1.2.3")
    record.receive(1)
    target = tmp_path / "copies" / "pacs-agent.db"
    target.parent.mkdir()
    backup.back_up(record.path, target)
    return target


def instances(path: Path) -> int:
    """How many a database has."""
    return int(query(path, "SELECT COUNT(*) FROM image_results").rows[0][0])


def test_backup_is_one_file_for_its_owner(copied: Path) -> None:
    """No journal beside it, nobody else may read it, whatever the umask, and it can be read where it lies."""
    previous = os.umask(0)
    try:
        backup.back_up(copied, copied.with_name("again.db"))
    finally:
        os.umask(previous)
    assert sorted(path.name for path in copied.parent.iterdir()) == ["again.db", "pacs-agent.db"]
    assert {path.stat().st_mode & 0o777 for path in copied.parent.iterdir()} == {0o600}
    assert instances(copied) == 1


def test_backup_while_the_record_is_written(record: Record, tmp_path: Path) -> None:
    """Each copy is whole and of one moment: it has the instances of that moment, and each has its study."""
    record.device_uid("1.2.3")
    written = threading.Event()

    def write() -> None:
        for number in range(150):
            record.receive(number, f"1.4.{number}")
        written.set()

    writer = threading.Thread(target=write)
    writer.start()
    counts = []
    while not written.is_set() or not counts:
        backup.back_up(record.path, tmp_path / "copy.db", replace=True)
        counts.append(instances(tmp_path / "copy.db"))
        found = query(tmp_path / "copy.db", "SELECT COUNT(*) FROM results WHERE study_instance_uid LIKE '1.4.%'").rows
        assert found == ((counts[-1],),)
    writer.join()
    assert counts == sorted(counts)


def test_backup_replaces_nothing_unasked(record: Record, copied: Path, tmp_path: Path) -> None:
    """What stands there stands; a folder is no file."""
    before = copied.read_bytes()
    record.receive(2)
    with pytest.raises(PacsAgentError, match="exists; it is left as it is"):
        backup.back_up(record.path, copied)
    with pytest.raises(PacsAgentError, match="exists"):
        backup.back_up(record.path, tmp_path, replace=True)
    assert copied.read_bytes() == before
    backup.back_up(record.path, copied, replace=True)
    assert instances(copied) == 2


def test_damaged_database_is_no_backup(copied: Path) -> None:
    """It is said, and no file is left that somebody would rely on."""
    content = bytearray(copied.read_bytes())
    content[3 * 4096 : 5 * 4096] = b"\xff" * 8192
    copied.write_bytes(content)
    with pytest.raises(DatabaseError, match=r"damaged|malformed"):
        backup.back_up(copied, copied.with_name("again.db"))
    assert [path.name for path in copied.parent.iterdir()] == [copied.name]


def test_restore_sets_the_present_one_aside(record: Record, copied: Path) -> None:
    """Both are whole: the one that is back, marked as such, and the one before with all that it had."""
    record.receive(2)
    record.close()
    aside = backup.restore(record.path, copied)
    assert aside is not None
    assert (instances(record.path), instances(aside), instances(copied)) == (1, 2, 1)
    store = Store.open(record.path)
    assert backup.restored_at(store)
    backup.settle_restored(store)
    assert backup.restored_at(store) is None
    store.close()
    assert query(record.path, "SELECT event FROM events").rows[-1] == ("restored",)


def test_what_waits_may_have_been_sent(record: Record, tmp_path: Path) -> None:
    """It counts as offered once, so that the destination's 0111 (it has it) parks nothing."""
    record.device_uid("1.2.3")
    record.receive(1)
    record.queue()
    record.analyse(record.claim()[0], pacs=("waiting", None), silent=("held", None))
    backup.back_up(record.path, tmp_path / "copy.db")
    with record.write() as connection:
        connection.execute(update(delivery).values(status="delivered", attempts=1))
    record.close()
    backup.restore(record.path, tmp_path / "copy.db")
    assert query(record.path, "SELECT destination, status, attempts FROM deliveries ORDER BY 1").rows == (
        ("pacs", "waiting", 1),
        ("silent", "held", 1),
    )


@pytest.mark.parametrize("moment", ["", "-wal"])
def test_restore_that_is_killed_is_finished(
    record: Record, copied: Path, monkeypatch: pytest.MonkeyPatch, moment: str
) -> None:
    """Between any two renames: the next `finish` goes on, and never puts the old journal beside the new database."""
    record.receive(2)
    rename = Path.rename

    def killed(self: Path, target: Path) -> Path:
        if self.name == record.path.name + moment:
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):  # the record is open: its journal is there
        backup.restore(record.path, copied)
    monkeypatch.undo()
    record.close()
    aside = backup.finish(record.path)
    assert aside is not None
    assert instances(record.path) == 1
    assert not record.path.with_name(f"{record.path.name}-wal").exists()
    assert backup.finish(record.path) is None


def test_what_a_killed_run_left_is_in_nobodys_way(record: Record, copied: Path) -> None:
    """Its half copy and the journal of that go first: SQLite would play the journal into the new copy."""
    record.receive(2)
    record.close()
    for part in ("", "-wal", "-journal"):
        (record.path.parent / f".{record.path.name}.restore.tmp{part}").write_bytes(b"left" * 2000)
    backup.restore(record.path, copied)
    assert instances(record.path) == 1
    assert not list(record.path.parent.glob(".*"))


def _not_ours(path: Path) -> None:
    path.unlink()
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE event (id)")


def _newer(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")


@pytest.mark.parametrize(
    ("spoil", "error"),
    [
        (lambda path: path.unlink(), "there is no database"),
        (lambda path: path.write_bytes(b"no database at all, whatever its name is"), "not a database"),
        (lambda path: path.write_bytes(path.read_bytes()[:-4096]), "malformed|damaged"),
        (_not_ours, "no database of pacs-agent"),
        (_newer, "newer"),
    ],
)
def test_restore_of_what_is_no_backup(record: Record, copied: Path, spoil: object, error: str) -> None:
    """One clear error, and the present database stays as it is."""
    assert callable(spoil)
    spoil(copied)
    record.receive(2)
    with pytest.raises((DatabaseError, DatabaseNewerError), match=error):
        backup.restore(record.path, copied)
    assert instances(record.path) == 2
    assert not list(record.path.parent.glob("*.rest*"))
    assert not list(record.path.parent.glob(".*"))
