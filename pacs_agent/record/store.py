"""The database: opened, migrated, and its transactions. What each station writes stands in the modules beside this one.

One process writes (the data directory's lock sees to that); others read, or write one short transaction (`pause`,
`retry`…) under SQLite's own locks.
"""

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast

from sqlalchemy import Connection, Engine, create_engine, delete, event, insert, select
from sqlalchemy.dialects.sqlite import insert as upsert
from sqlalchemy.exc import DBAPIError

from pacs_agent.durable import close_to_others
from pacs_agent.errors import DatabaseError
from pacs_agent.record import tables
from pacs_agent.record.damage import check_whole, damaged, is_damage
from pacs_agent.record.migrate import check_current, migrate
from pacs_agent.record.times import Clock, to_text, utc_now

BUSY_TIMEOUT_S = 30.0
JOURNAL_BYTES = 64 << 20  # what stays of a journal that grew while somebody read for long


def _engine(path: Path) -> Engine:
    engine = create_engine(
        f"sqlite:///{path}",
        connect_args={"timeout": BUSY_TIMEOUT_S, "check_same_thread": False},
        hide_parameters=True,  # an error's text must not hold a patient's ID
        max_overflow=-1,  # the threads are bounded; a pool's own error would look like nobody's fault
    )

    @event.listens_for(engine, "connect")
    def _configure(connection: sqlite3.Connection, _record: object) -> None:
        # The driver's own BEGIN would come too late for an IMMEDIATE claim; `_begin` says it instead.
        connection.isolation_level = None
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")  # a commit is a promise
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute(f"PRAGMA journal_size_limit = {JOURNAL_BYTES}")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get("begin", "BEGIN"))

    return engine


class Store:
    """The record of one data directory.

    Args:
        path: the SQLite file; its folder exists.
        clock: gives the present, UTC.
    """

    def __init__(self, path: Path, clock: Clock = utc_now) -> None:
        self.path = path
        self.clock = clock
        self._engine = _engine(path)
        self._writer = threading.Lock()
        self._reader = threading.Lock()
        self._plain: dict[threading.Lock, sqlite3.Connection] = {}

    @classmethod
    def open(cls, path: Path, clock: Clock = utc_now) -> "Store":
        """Open and migrate, making the database where there is none.

        Raises:
            DatabaseError: it cannot be opened, is damaged (`DatabaseDamagedError`), or was written by a newer
                pacs-agent (`DatabaseNewerError`).
        """
        try:
            # SQLite would make it for everybody to read; its journal and shared memory take this file's mode.
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            close_to_others(path)
        except OSError as error:
            raise DatabaseError(f"database {path}: {error.strerror}") from error
        store = cls(path, clock)
        try:
            check_whole(path)
            with store.write() as connection:
                migrate(connection)
        except sqlite3.Error as error:
            raise DatabaseError(f"database {path}: {error}") from error
        except DBAPIError as error:
            raise _unusable(path, error) from error
        return store

    @classmethod
    def attach(cls, path: Path) -> "Store":
        """Open an existing database as it is, for the commands beside the daemon.

        Raises:
            DatabaseError: there is none, or another version's `serve` wrote it last.
        """
        if not path.is_file():
            raise DatabaseError(f"there is no database {path}: start `pacs-agent serve` first")
        store = cls(path)
        try:
            with store.read() as connection:
                check_current(connection)
        except DBAPIError as error:
            raise _unusable(path, error) from error
        return store

    def close(self) -> None:
        """Close every connection, once what is in hand on it has ended: under a running statement it would crash."""
        for lock in (self._writer, self._reader):
            with lock:
                if connection := self._plain.pop(lock, None):
                    connection.close()
        self._engine.dispose()

    def now(self) -> str:
        """The present as the database writes it."""
        return to_text(self.clock())

    @contextmanager
    def write(self) -> Iterator[Connection]:
        """One durable transaction that holds SQLite's write lock from its start; committed on leaving."""
        with (
            self._writer,
            self._engine.connect().execution_options(begin="BEGIN IMMEDIATE") as connection,
            connection.begin(),
        ):
            yield connection

    @contextmanager
    def read(self) -> Iterator[Connection]:
        """One consistent look."""
        with self._engine.connect() as connection, connection.begin():
            yield connection

    # The same without SQLAlchemy, which costs a statement several times what SQLite does: in constant SQL, for what
    # every instance on its way in passes through.

    @contextmanager
    def write_plain(self) -> Iterator[sqlite3.Connection]:
        """As `write`, on the driver's own connection.

        Raises:
            DBAPIError: as everywhere else.
        """
        with self._kept(self._writer) as connection:
            connection.execute("BEGIN IMMEDIATE")
            yield connection
            connection.execute("COMMIT")

    def first(self, sql: str, parameters: tuple[Any, ...]) -> sqlite3.Row | None:
        """The first row of one constant select.

        Raises:
            DBAPIError: as everywhere else.
        """
        with self._kept(self._reader) as connection:
            return cast(sqlite3.Row | None, connection.execute(sql, parameters).fetchone())

    @contextmanager
    def _kept(self, lock: threading.Lock) -> Iterator[sqlite3.Connection]:
        """The connection that *lock* guards, kept for the next time unless anything failed on it."""
        with lock, _as_sqlalchemy():
            if lock not in self._plain:
                self._plain[lock] = self._connect_plain()
            try:
                yield self._plain[lock]
            except BaseException:
                # In whatever state it is, a transaction that cannot be rolled back would be in the next one's way.
                with closing(self._plain.pop(lock)) as broken:
                    broken.rollback()
                raise

    def _connect_plain(self) -> sqlite3.Connection:
        pooled = self._engine.raw_connection()
        connection = cast(sqlite3.Connection, pooled.driver_connection)
        pooled.detach()
        connection.row_factory = sqlite3.Row
        return connection

    def rows(self, statement: Any) -> list[Any]:
        """All rows of one select."""
        with self.read() as connection:
            return list(connection.execute(statement))

    # Things that belong to no station.

    def device_uid(self, new_uid: str) -> str:
        """The DeviceUID of this installation: *new_uid* the first time, the same ever after."""
        with self.write() as connection:
            connection.execute(upsert(tables.installation).values(id=1, device_uid=new_uid).on_conflict_do_nothing())
            return str(connection.execute(select(tables.installation.c.device_uid)).scalar_one())

    def paused(self) -> set[str]:
        """The stages (`analysis` or a destination's name) that a person holds."""
        return {row.stage for row in self.rows(select(tables.pause.c.stage))}

    def set_paused(self, stage: str, paused: bool) -> None:
        """Hold a stage, or let it go on; kept across restarts."""
        with self.write() as connection:
            if paused:
                connection.execute(
                    upsert(tables.pause).values(stage=stage, paused_at=self.now()).on_conflict_do_nothing()
                )
            else:
                connection.execute(delete(tables.pause).where(tables.pause.c.stage == stage))
            add_event(connection, self.now(), "paused" if paused else "resumed", detail=stage)


def _unusable(path: Path, error: DBAPIError) -> DatabaseError:
    return damaged(path, error.orig) if is_damage(error) else DatabaseError(f"database {path}: {error.orig}")


@contextmanager
def _as_sqlalchemy() -> Iterator[None]:
    """The driver's errors as SQLAlchemy's, so that callers know one kind."""
    try:
        yield
    except sqlite3.Error as error:
        # Without its statement and parameters: an error's text must not hold a patient's ID.
        raise DBAPIError.instance(None, None, error, sqlite3.Error) from error


def add_event(
    connection: Connection,
    at: str,
    name: str,
    *,
    study_instance_uid: str | None = None,
    sop_instance_uid: str | None = None,
    detail: str | None = None,
) -> None:
    """One line of the history, in the transaction of what happened."""
    connection.execute(
        insert(tables.event).values(
            at=at,
            event=name,
            study_instance_uid=study_instance_uid,
            sop_instance_uid=sop_instance_uid,
            detail=detail,
        )
    )
