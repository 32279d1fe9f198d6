"""What a damaged database still says of what the files do not: decisions of people, and what was delivered.

Enters: the damaged file. Leaves: whatever could be read, without an error; a page that is spoilt ends its table. It is
advice, no more: the files say what was received and made.
"""

import sqlite3
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

from pacs_agent.record.restoring import FoundDelivery

# What ended. What was to be done is asked of the settings again.
_ENDED = ("delivered", "committed", "parked", "held", "cancelled")


@dataclass(slots=True)
class Salvage:
    """What was read.

    Attributes:
        device_uid: of the installation; None where it could not be read.
        destinations: name → since when it is known.
        withdrawn: Study Instance UID → why.
        paused: stage → since when.
        deliveries: SOP Instance UID, and destination → how it ended.
    """

    device_uid: str | None = None
    destinations: dict[str, str] = field(default_factory=dict)
    withdrawn: dict[str, str] = field(default_factory=dict)
    paused: dict[str, str] = field(default_factory=dict)
    deliveries: dict[str, dict[str, FoundDelivery]] = field(default_factory=dict)


def salvage(path: Path) -> Salvage:
    """Read what can be read."""
    found = Salvage()
    if not path.is_file() or not path.stat().st_size:
        return found
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as connection:
        connection.text_factory = lambda raw: raw.decode(errors="replace")
        for (uid,) in _rows(connection, "SELECT device_uid FROM installation", 1):
            found.device_uid = uid
        found.destinations = dict(_pairs(connection, "SELECT name, added_at FROM destination NOT INDEXED"))
        found.paused = dict(_pairs(connection, "SELECT stage, paused_at FROM pause NOT INDEXED"))
        found.withdrawn = dict(
            _pairs(
                connection,
                "SELECT study_instance_uid, coalesce(reason, '') FROM study NOT INDEXED"
                " WHERE state = 'withdrawn' AND NOT emptied",
            )
        )
        uids = dict(_pairs(connection, "SELECT CAST(id AS TEXT), sop_instance_uid FROM report NOT INDEXED"))
        deliveries = _rows(
            connection,
            "SELECT CAST(report_id AS TEXT), destination, status, coalesce(delivered_at, ''),"
            " coalesce(committed_at, ''), coalesce(last_error, '') FROM delivery NOT INDEXED",
            6,
        )
        for report_id, name, status, delivered_at, committed_at, error in deliveries:
            if report_id in uids and status in _ENDED:
                found.deliveries.setdefault(uids[report_id], {})[name] = FoundDelivery(
                    status, None, delivered_at or None, committed_at or None, error or None
                )
    return found


def _pairs(connection: sqlite3.Connection, sql: str) -> Iterator[tuple[str, str]]:
    yield from ((key, value) for key, value in _rows(connection, sql, 2))


def _rows(connection: sqlite3.Connection, sql: str, columns: int) -> Iterator[tuple[str, ...]]:
    """Rows of texts, until the end or the first page that is spoilt."""
    with suppress(sqlite3.Error):
        for row in connection.execute(sql):
            if len(row) == columns and all(isinstance(value, str) for value in row):
                yield row
