"""A page of a database that goes bad."""

import sqlite3
from contextlib import closing
from pathlib import Path


def spoil_page(path: Path, name: str, start: bytes = b"") -> None:
    """Overwrite the first page of a table or index with 0xff, or its *start* alone with those bytes."""
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        [number] = connection.execute("SELECT rootpage FROM sqlite_schema WHERE name = ?", [name]).fetchone()
        [size] = connection.execute("PRAGMA page_size").fetchone()
    with path.open("r+b") as file:
        file.seek((number - 1) * size)
        file.write(start or b"\xff" * size)
