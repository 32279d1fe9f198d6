"""The machine's clock was set: waits that stand in the record last as long as they would have lasted.

Enters: by how much. Leaves: rows. What happened keeps the time that it was given; moved is what is waited for, and what
a time limit is counted from: the receipt of a study that is not analysed yet.
"""

from collections.abc import Callable
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, func, or_, update

from pacs_agent.record.store import Store, add_event
from pacs_agent.record.tables import delivery, destination, study
from pacs_agent.record.times import to_text

# Of what is to be asked again nothing is put off for longer.
LONGEST_PAUSE = timedelta(days=1)
OPEN = ("receiving", "queued")
"""States of a study whose receipt something is counted from."""


def shift_waits(store: Store, by: timedelta, follow: Callable[[], Callable[[], None]]) -> None:
    """Move every wait, and have the record's clock *follow*, in one transaction; it returns what takes that back."""
    take_back: Callable[[], None] | None = None
    try:
        with store.write() as connection:
            # Between the two nobody may compare a time of the one kind with one of the other; who writes waits for us.
            _shift(connection, by, to_text(store.clock() + by))
            take_back = follow()
            add_event(connection, store.now(), "clock set", detail=f"by {by.total_seconds():+.0f} s")
    except Exception:
        if take_back:  # the rows are as they were
            take_back()
        raise


def _shift(connection: Connection, by: timedelta, now: str) -> None:
    is_open = study.c.state.in_(OPEN)
    is_waited_for = or_(is_open, study.c.last_received_at > now)
    for column, which in ((study.c.last_received_at, is_waited_for), (study.c.received_at, is_open)):
        connection.execute(update(study).where(which).values({column: _moved(column, by)}))
    for column in (study.c.waiting_since, study.c.claimed_until):
        _move(connection, column, by)
    waiting = delivery.c.status == "waiting"
    for column in (delivery.c.next_attempt_at, delivery.c.deliver_before):
        connection.execute(update(delivery).where(waiting, column.is_not(None)).values({column: _moved(column, by)}))
    _move(connection, delivery.c.commitment_due_at, by)
    _move(connection, destination.c.next_attempt_at, by)
    if by < timedelta():  # else what comes from now on would count as come before the destination
        _move(connection, destination.c.added_at, by)


def _move(connection: Connection, column: Any, by: timedelta) -> None:
    connection.execute(update(column.table).where(column.is_not(None)).values({column: _moved(column, by)}))


def _moved(column: Any, by: timedelta) -> ColumnElement[str]:
    return func.strftime("%Y-%m-%dT%H:%M:%fZ", column, f"{by.total_seconds():+.3f} seconds")


def forget_future(store: Store) -> None:
    """At start: what a clock that was ahead wrote of the future is of now, or nobody would look at it for as long.

    Not of what is finished: a machine that starts with a clock of long ago would have retention take it all.
    """
    with store.write() as connection:
        now = store.now()
        for column in (study.c.received_at, study.c.last_received_at, study.c.waiting_since):
            connection.execute(update(study).where(study.c.state.in_(OPEN), column > now).values({column: now}))
        added_at = destination.c.added_at
        connection.execute(update(destination).where(added_at > now).values({added_at: now}))
        latest = to_text(store.clock() + LONGEST_PAUSE)
        # What was asked is asked anew at each start (`renew_requests`); this is what was put off.
        late = (delivery.c.commitment_due_at > latest) & delivery.c.transaction_uid.is_(None)
        connection.execute(update(delivery).where(late).values(commitment_due_at=now))
