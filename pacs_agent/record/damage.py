"""Whether a database is whole, and what to do where it is not.

Enters: a file, or an error that it gave. Leaves: one line that names the way out. Changes nothing.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

from pacs_agent.errors import DatabaseDamagedError

# What SQLite says of a file that is no database, or no whole one.
_DAMAGE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_UNREADABLE = _DAMAGE | {sqlite3.SQLITE_IOERR}  # of a file that nobody else has open: a sector gone bad
_PRIMARY = 0xFF  # of an extended code
WAY_OUT = "put a backup back (`pacs-agent restore`), or make it anew from inbox and outbox (`pacs-agent rebuild`)"


def is_damage(error: BaseException | None) -> bool:
    """Whether an error, SQLite's own or as SQLAlchemy wraps it, says that the file is spoilt, not that it is away."""
    return _code(error) in _DAMAGE


def _code(error: BaseException | None) -> int:
    origin = getattr(error, "orig", error)  # of SQLAlchemy's; a command that only reads does without it
    return (getattr(origin, "sqlite_errorcode", None) or 0) & _PRIMARY


def damaged(path: Path, what: object) -> DatabaseDamagedError:
    """The error that says so."""
    return DatabaseDamagedError(f"database {path} is damaged ({what}): {WAY_OUT}")


def check_whole(path: Path, *, thoroughly: bool = False) -> None:
    """Look through the whole file; one that is not there, or that nothing was ever written to, is whole.

    Args:
        path: the database.
        thoroughly: whether indexes have what tables have, too, which takes several times as long; and a file that the
            disk does not give back is damaged.

    Raises:
        DatabaseDamagedError: a page is not what it must be.
        sqlite3.Error: it cannot be looked at now.
    """
    if not path.is_file():
        return
    try:
        # For writing: a journal that a kill left is to be replayed first.
        with closing(sqlite3.connect(path)) as connection:
            look = "integrity_check" if thoroughly else "quick_check"
            [found] = connection.execute(f"PRAGMA {look}(1)").fetchone()
    except sqlite3.DatabaseError as error:
        if _code(error) in (_UNREADABLE if thoroughly else _DAMAGE):
            raise damaged(path, error) from error
        raise
    if found != "ok":
        raise damaged(path, " ".join(str(found).split()))


def check_not_lost(path: Path, data_dir: Path) -> None:
    """A data directory with instances or objects has a database: an empty one would have all of it analysed again.

    Raises:
        DatabaseDamagedError: it is not there, or empty.
    """
    if path.is_file() and path.stat().st_size:
        return
    kept = next((each for pattern in ("inbox/??/*.dcm", "outbox/*.dcm") for each in data_dir.glob(pattern)), None)
    if kept:
        what = "empty" if path.exists() else "not there"
        there = data_dir / kept.relative_to(data_dir).parts[0]
        raise DatabaseDamagedError(f"database {path} is {what}, though {there} has files: {WAY_OUT}")
