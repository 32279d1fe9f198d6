"""The database copied while the daemon works, and a copy put back in its place.

Enters: paths. Leaves: one whole file, or nothing. Never touches inbox or outbox, never deletes the database that a
restored one replaces.

A restore is two steps. All that can fail happens to a file beside the database; then that file gets the name
`….restoring-TIME`, and from there on it only goes forward: `finish` sets the present database aside and gives the file
its name, at once, or at the next start where a kill came between.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from glob import escape
from pathlib import Path

from sqlalchemy import func, select, update

from pacs_agent.durable import rename_durably, sync
from pacs_agent.errors import DatabaseError, PacsAgentError
from pacs_agent.record.store import Store, add_event
from pacs_agent.record.tables import delivery, installation
from pacs_agent.record.times import Clock, utc_now

_RESTORING = ".restoring-"
_PARTS = ("", "-wal", "-shm")
_STAMP = "%Y%m%dT%H%M%SZ"


def back_up(path: Path, target: Path, *, replace: bool = False) -> int:
    """Copy the database as it is at one moment; on return the copy survives a power cut. Returns its bytes.

    Args:
        path: the database, in use or not.
        target: where the copy shall stand.
        replace: whether it may stand there already.

    Raises:
        PacsAgentError: the target exists.
        DatabaseError: there is no database, or it is damaged.
        OSError: the copy cannot be written; what stood there stands.
    """
    if target.is_dir() or (target.exists() and not replace):
        raise PacsAgentError(f"{target} exists; it is left as it is")
    temporary = target.with_name(f".{target.name}.tmp")
    with _alone(temporary):
        _copy(path, temporary)
        sync(temporary)
        rename_durably(temporary, target)
    return target.stat().st_size


def restore(path: Path, backup: Path, clock: Clock = utc_now) -> Path | None:
    """Put a backup in the database's place; returns the name that the present one was set aside under, if there is one.

    The caller holds the data directory. The next start brings inbox and outbox together with it.

    Args:
        path: the database.
        backup: as `back_up` made it, of this schema or an earlier one; it is left as it is.
        clock: gives the present.

    Raises:
        DatabaseError: it is no database of ours, damaged, or of a newer version; the present one is untouched.
    """
    finish(path)

    def make(prepared: Path) -> None:
        _copy(backup, prepared)
        _mark(prepared, clock)

    return replace(path, make, clock)


def replace(path: Path, make: Callable[[Path], None], clock: Clock = utc_now) -> Path | None:
    """Put a database that *make* makes beside it in the database's place; returns as `restore` does.

    What *make* raises leaves all as it was.
    """
    moment = clock()
    prepared = path.with_name(f".{path.name}.restore.tmp")
    with _alone(prepared):
        make(prepared)
        with closing(sqlite3.connect(prepared)) as connection:
            connection.execute("PRAGMA journal_mode = DELETE")  # one file, without a journal beside it
        sync(prepared)
        rename_durably(prepared, path.with_name(f"{path.name}{_RESTORING}{moment.strftime(_STAMP)}"))
    return finish(path)


def finish(path: Path) -> Path | None:
    """Bring a restore to its end, where one was begun; returns the name of the database that it set aside."""
    if (prepared := next(path.parent.glob(f"{escape(path.name)}{_RESTORING}*"), None)) is None:
        return None
    stamp = prepared.name.rpartition("-")[2]
    aside = path.with_name(f"{path.name}.before-restore-{stamp}")
    for part in _PARTS:
        if (present := path.with_name(path.name + part)).exists():
            present.rename(aside.with_name(aside.name + part))
    sync(path.parent)  # never the new database beside the old one's journal
    rename_durably(prepared, path)
    return aside if aside.exists() else None


def restored_at(store: Store) -> str | None:
    """When a restore put this database here, while inbox and outbox have not been brought together with it."""
    found = store.rows(select(installation.c.restored_at))
    return found[0].restored_at if found else None


def settle_restored(store: Store) -> None:
    """Inbox and outbox are together with it again."""
    with store.write() as connection:
        connection.execute(update(installation).values(restored_at=None))


def _mark(path: Path, clock: Clock) -> None:
    """Bring the copy to this version's schema, and say in it what it is.

    Whatever waits may have been sent after the backup: it counts as offered once, so that 0111 (duplicate SOP instance)
    means "has it", and a later report names it as its predecessor.
    """
    store = Store.open(path, clock)
    try:
        with store.write() as connection:
            if connection.execute(select(func.count()).select_from(installation)).scalar_one() == 0:
                raise DatabaseError("the backup is of a database that no daemon has used")
            connection.execute(update(installation).values(restored_at=store.now()))
            connection.execute(
                update(delivery)
                .where(delivery.c.attempts == 0, delivery.c.status.in_(("waiting", "held", "parked")))
                .values(attempts=1)
            )
            add_event(connection, store.now(), "restored", detail="the database is a backup that was put back")
    finally:
        store.close()


def _copy(path: Path, target: Path) -> None:
    """SQLite's own copy, in one step: a writer in WAL mode does not wait for it, and it sees one moment."""
    if not path.is_file():
        raise DatabaseError(f"there is no database {path}")
    # A backup on a medium that cannot be written to; one with a journal beside it needs that too.
    alone = not path.with_name(f"{path.name}-wal").exists() and not os.access(path.parent, os.W_OK)
    os.close(os.open(target, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600))
    target.chmod(0o600)
    try:
        with (
            closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro{'&immutable=1' * alone}", uri=True)) as source,
            closing(sqlite3.connect(target)) as copy,
        ):
            source.backup(copy)
            copy.execute("PRAGMA journal_mode = DELETE")
            [found] = copy.execute("PRAGMA integrity_check(1)").fetchone()
            tables = {name for (name,) in copy.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    except sqlite3.Error as error:
        raise DatabaseError(f"database {path}: {error}") from error
    if found != "ok":
        raise DatabaseError(f"database {path} is damaged: {found}")
    if not {"alembic_version", "installation", "study", "event"} <= tables:
        raise DatabaseError(f"{path} is no database of pacs-agent")


@contextmanager
def _alone(path: Path) -> Iterator[None]:
    """No file of that name before, nor a killed run's journal, which SQLite would take for its own; and none after."""
    _remove(path)
    try:
        yield
    finally:
        _remove(path)


def _remove(path: Path) -> None:
    for part in (*_PARTS, "-journal"):
        path.with_name(path.name + part).unlink(missing_ok=True)
