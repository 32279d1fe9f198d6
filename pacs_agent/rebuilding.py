"""A new database from inbox and outbox, in the place of one that is damaged or gone.

Enters: the settings. Leaves: a whole database, or the old one untouched. The files say what was received and what was
made; what the old database still says is taken where the files are silent. Never removes a file.
"""

import sqlite3
from dataclasses import dataclass, field
from pathlib import Path

from sqlalchemy import insert

from pacs_agent.deliver.outbox import Outbox
from pacs_agent.errors import DatabaseDamagedError, DatabaseError
from pacs_agent.record import backup, damage, deciding, delivering, salvaging
from pacs_agent.record.reading import query
from pacs_agent.record.salvaging import Salvage
from pacs_agent.record.store import Store, add_event
from pacs_agent.record.tables import destination, pause
from pacs_agent.record.times import Clock, utc_now
from pacs_agent.recovering import Recovering
from pacs_agent.report.uids import new_uid
from pacs_agent.rules import eligibility, inbox_of, mapping
from pacs_agent.settings import Settings


@dataclass(slots=True)
class Rebuilt:
    """What became of it.

    Attributes:
        instances, studies: taken in from the inbox.
        waiting: of the studies, those that are to be analysed.
        unread: files of the inbox that are no instances, and lie where they lay.
        objects: of the outbox, with their rows again.
        set_aside: objects that have no place, in the folder `set-aside`.
        aside: where the old database is, if there was one.
    """

    instances: int = 0
    studies: int = 0
    waiting: int = 0
    unread: int = 0
    objects: int = 0
    set_aside: int = 0
    aside: Path | None = field(default=None)


def rebuild(settings: Settings, clock: Clock = utc_now) -> Rebuilt:
    """Make the database anew; the caller holds the data directory.

    Raises:
        DatabaseError: the database that is there is whole.
        OSError: the disk refuses; what was there is there.
    """
    path, outcome = settings.database_path, Rebuilt()
    if backup.finish(path) or _is_whole(settings):
        raise DatabaseError(f"database {path} is whole: there is nothing to rebuild")
    known = salvaging.salvage(path)

    def make(prepared: Path) -> None:
        store = Store.open(prepared, clock)
        try:
            _fill(settings, store, known, outcome)
        finally:
            store.close()

    outcome.aside = backup.replace(path, make, clock)
    return outcome


def _is_whole(settings: Settings) -> bool:
    try:
        damage.check_whole(settings.database_path, thoroughly=True)
        damage.check_not_lost(settings.database_path, settings.data_dir)
    except DatabaseDamagedError:
        return False
    except sqlite3.Error as error:
        raise DatabaseError(f"database {settings.database_path} cannot be looked at: {error}") from error
    return True


def _fill(settings: Settings, store: Store, known: Salvage, outcome: Rebuilt) -> None:
    inbox = inbox_of(settings, store, eligibility(settings))
    outcome.unread = inbox.reconcile()
    for uid, reason in known.withdrawn.items():
        deciding.settle(store, uid, "withdraw", reason or "withdrawn before the database was rebuilt")
    names = [part.name for target in settings.destination for part in target.apart()]
    with store.write() as connection:
        for name, at in _since(store, known, names).items():
            connection.execute(insert(destination).values(name=name, added_at=at))
        for stage, at in known.paused.items():
            connection.execute(insert(pause).values(stage=stage, paused_at=at))
    delivering.destinations_since(store, names)
    outbox = Outbox(settings.data_dir, store, settings.destination)
    recovering = Recovering(
        settings.data_dir, store, outbox, settings.destination, mapping(settings), known.deliveries
    )  # fmt: skip
    store.device_uid(known.device_uid or recovering.device_uid() or new_uid())
    outcome.objects, outcome.set_aside = recovering.adopt_all()
    with store.write() as connection:
        add_event(connection, store.now(), "rebuilt", detail="the database was made anew from inbox and outbox")
    counted = """
SELECT COUNT(*), COUNT(DISTINCT study_id), (SELECT COUNT(*) FROM study WHERE state = 'receiving') FROM instance
"""
    [(outcome.instances, outcome.studies, outcome.waiting)] = query(store.path, counted).rows


def _since(store: Store, known: Salvage, names: list[str]) -> dict[str, str]:
    """Since when each destination is known: where nobody can tell, since before all that is there."""
    if known.destinations:
        return known.destinations
    [(first,)] = query(store.path, "SELECT MIN(received_at) FROM study").rows
    return dict.fromkeys(names, first or store.now())
