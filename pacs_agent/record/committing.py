"""What storage commitment writes: what is asked of a destination, what it said, and what that leads to.

An object that a destination took waits for its revision's others; then all are asked for in one transaction, whose UID
is in the database before the request is sent. A failure, and no answer in time, are counted: the object goes again,
until so many have failed that a person must look.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, delete, insert, select, update

from pacs_agent.record.delivering import NOTE, OBJECTS, SUPERSEDED, has_later_revision, is_out_of_reach, object_event
from pacs_agent.record.rejecting import is_rejected
from pacs_agent.record.store import Store
from pacs_agent.record.tables import analysis, commitment, delivery, report, study
from pacs_agent.record.times import to_text

TRIES = 5
"""Failed commitments of one object after which it is parked."""


@dataclass(frozen=True, slots=True)
class CommitmentRequest:
    """One transaction: SOP class and SOP Instance UID of each object; on the record, and not sent yet."""

    transaction_uid: str
    objects: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class CommitmentResult:
    """What a destination says of a transaction; `failed`: SOP Instance UID to the reason."""

    transaction_uid: str
    committed: frozenset[str]
    failed: Mapping[str, str]


def next_request(
    store: Store, name: str, new_uid: Callable[[], str], timeout_s: float, limit: int
) -> CommitmentRequest | None:
    """Put one request on the record for what is to be asked of a destination now; None where that is nothing."""
    now = store.clock()
    with store.write() as connection:
        rows = connection.execute(
            select(delivery.c.id, report.c.sop_class_uid, report.c.sop_instance_uid)
            .select_from(OBJECTS)
            .where(_is_to_be_asked(name, to_text(now)))
            .order_by(delivery.c.id)
            .limit(limit)
        ).all()
        if not rows:
            return None
        request = CommitmentRequest(new_uid(), tuple((row.sop_class_uid, row.sop_instance_uid) for row in rows))
        connection.execute(
            insert(commitment).values(
                transaction_uid=request.transaction_uid, destination=name, requested_at=to_text(now)
            )
        )
        connection.execute(
            update(delivery)
            .where(delivery.c.id.in_([row.id for row in rows]))
            .values(
                transaction_uid=request.transaction_uid,
                commitment_due_at=to_text(now + timedelta(seconds=timeout_s)),
            )
        )
        return request


def has_commitment_due(store: Store, name: str) -> bool:
    """Whether something is to be asked, or was not answered in time."""
    now = store.now()
    due = _is_to_be_asked(name, now) | _is_overdue(name, now)
    return bool(store.rows(select(delivery.c.id).select_from(OBJECTS).where(_in_time(name, now), due).limit(1)))


def give_back_request(store: Store, request: CommitmentRequest) -> None:
    """It was not sent: nobody knows its UID, and its objects are to be asked for as before."""
    with store.write() as connection:
        connection.execute(
            update(delivery)
            .where(delivery.c.transaction_uid == request.transaction_uid)
            .values(transaction_uid=None, commitment_due_at=store.now())
        )
        connection.execute(delete(commitment).where(commitment.c.transaction_uid == request.transaction_uid))


def refuse_request(store: Store, request: CommitmentRequest, why: str, pause_s: Callable[[int], float]) -> None:
    """The destination does not want to be asked; its objects are there all the same: asked for later, and counted."""
    with store.write() as connection:
        _fail(connection, store.clock(), delivery.c.transaction_uid == request.transaction_uid, lambda _: why, pause_s)


def expire_requests(store: Store, name: str) -> int:
    """What was not answered in time has failed; returns how many objects."""
    now = store.clock()
    with store.write() as connection:
        return _fail(connection, now, _is_overdue(name, to_text(now)), lambda _: "no answer in time")


def settle_commitment(store: Store, result: CommitmentResult) -> bool:
    """What a destination says of a transaction; whether that is known.

    A late success counts too, when the object has meanwhile been sent or asked for again.
    """
    with store.write() as connection:
        now = store.clock()
        name = connection.execute(
            select(commitment.c.destination).where(commitment.c.transaction_uid == result.transaction_uid)
        ).scalar()
        if name is None:
            return False
        connection.execute(
            update(commitment)
            .where(commitment.c.transaction_uid == result.transaction_uid)
            .values(answered_at=to_text(now))
        )
        is_ours = delivery.c.transaction_uid == result.transaction_uid
        was_asked = (
            (delivery.c.destination == name)
            & delivery.c.status.concat("").in_(("delivered", "waiting", "parked"))
            & (is_ours | (delivery.c.commitment_failures > 0) | delivery.c.commitment_due_at.is_not(None))
        )
        for row in _objects(connection, was_asked, result.committed):
            connection.execute(
                update(delivery)
                .where(delivery.c.id == row.id)
                .values(
                    status="committed", committed_at=to_text(now), transaction_uid=None, commitment_due_at=None,
                    next_attempt_at=None, last_error=None,
                )
            )  # fmt: skip
            object_event(connection, to_text(now), "committed", row, name)
        _fail(connection, now, is_ours, lambda uid: result.failed[uid], uids=result.failed)
        return True


def renew_requests(store: Store, asking: Collection[str]) -> None:
    """At start: what was asked and not answered is asked again, for the answer may have come while nobody listened.

    It is no failure. Of destinations that are not to commit any more nothing is asked.
    """
    with store.write() as connection:
        connection.execute(
            update(delivery)
            .where(delivery.c.commitment_due_at.is_not(None), delivery.c.destination.not_in(asking))
            .values(transaction_uid=None, commitment_due_at=None)
        )
        connection.execute(
            update(delivery)
            .where(delivery.c.transaction_uid.is_not(None), delivery.c.commitment_due_at.is_not(None))
            .values(transaction_uid=None, commitment_due_at=store.now())
        )


def _fail(
    connection: Connection,
    now: datetime,
    condition: ColumnElement[bool],
    why: Callable[[str], str],
    ask_again: Callable[[int], float] | None = None,
    uids: Collection[str] | None = None,
) -> int:
    """Count a failure of each object that *condition* names and was asked for, and say what follows.

    Args:
        connection: of the transaction that it belongs to.
        now: the present.
        condition: of `OBJECTS`.
        why: of a SOP Instance UID.
        ask_again: the object is there and does not go again: seconds until it is asked for, by failures.
        uids: of these only.
    """
    rows = _objects(connection, condition & (delivery.c.status == "delivered"), uids)
    for row in rows:
        failures = row.commitment_failures + 1
        error = f"not committed: {why(row.sop_instance_uid)}"
        values: dict[str, Any] = {"status": "waiting", "next_attempt_at": to_text(now), "commitment_due_at": None}
        is_withdrawn = row.object != NOTE and (row.state == "withdrawn" or row.is_rejected)
        if is_withdrawn and (failures >= TRIES or not ask_again):
            values |= {"status": "cancelled", "next_attempt_at": None}
            error = f"withdrawn; {error}"
        elif failures >= TRIES:
            values |= {"status": "parked", "next_attempt_at": None}
        elif ask_again:
            due_at = to_text(now + timedelta(seconds=ask_again(failures)))
            values = {"commitment_due_at": due_at}
        elif row.is_replaced:  # never after the report that replaced it
            values |= {"status": "cancelled", "next_attempt_at": None}
            error = f"{SUPERSEDED}; {error}"
        connection.execute(
            update(delivery)
            .where(delivery.c.id == row.id)
            .values(transaction_uid=None, commitment_failures=failures, last_error=error, **values)
        )
        follows = {"waiting": "it goes again", "parked": "parked", "cancelled": "it does not go again"}
        detail = f"{row.destination}: {error}; {follows.get(values.get('status', ''), 'it is asked for again')}"
        object_event(connection, to_text(now), "commitment failed", row, detail)
    return len(rows)


def _objects(connection: Connection, condition: ColumnElement[bool], uids: Collection[str] | None) -> list[Any]:
    """Deliveries that *condition* names, of these SOP Instance UIDs only where they are given."""
    if uids is not None and not uids:  # SQLite would look through all of the destination's for none
        return []
    rows = connection.execute(
        select(
            delivery.c.id, delivery.c.destination, delivery.c.commitment_failures, report.c.object,
            report.c.sop_instance_uid, study.c.study_instance_uid, study.c.state,
            has_later_revision().label("is_replaced"), is_rejected().label("is_rejected"),
        )
        .select_from(OBJECTS)
        .where(condition if uids is None else condition & report.c.sop_instance_uid.in_(uids))
        .order_by(delivery.c.id)
    )  # fmt: skip
    return list(rows)


def _in_time(name: str, now: str) -> ColumnElement[bool]:
    """By the index, which has few rows at any moment."""
    return (delivery.c.destination == name) & (delivery.c.commitment_due_at <= now)


def _is_overdue(name: str, now: str) -> ColumnElement[bool]:
    return _in_time(name, now) & delivery.c.transaction_uid.is_not(None)


def _is_to_be_asked(name: str, now: str) -> ColumnElement[bool]:
    return (
        _in_time(name, now)
        & (delivery.c.status.concat("") == "delivered")  # not by its index
        & delivery.c.transaction_uid.is_(None)
        & ~is_out_of_reach(name, now)
        & ~_still_going().exists()
    )


def _still_going() -> Select[tuple[int]]:
    """What the same destination has yet to get of the same revision."""
    other, of = delivery.alias(), report.alias()
    return (
        select(other.c.id)
        .join(of, of.c.id == other.c.report_id)
        .where(
            of.c.analysis_id == analysis.c.id,
            # By the report and no other index: that would read all that ever went to the destination.
            other.c.destination.concat("") == delivery.c.destination,
            other.c.status.concat("") == "waiting",
        )
        .correlate(delivery, analysis)
    )
