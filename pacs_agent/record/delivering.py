"""What delivery writes: which object goes where, each try, and how it ended."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, Select, case, delete, func, insert, literal, select, update

from pacs_agent.record.store import Store, add_event
from pacs_agent.record.tables import analysis, delivery, destination, event, rejection_note, report, study
from pacs_agent.record.times import to_text

NOTE = "rejection"
"""The kind of object that takes others back: no hold, no withdrawal and no later revision keeps it from going."""
LATE = "the time for delivery has passed"
SUPERSEDED = "superseded by a later revision"
OBJECTS = (
    delivery.join(report, report.c.id == delivery.c.report_id)
    .join(analysis, analysis.c.id == report.c.analysis_id)
    .join(study, study.c.id == analysis.c.study_id)
)
_REACHABLE: dict[str, Any] = {"unreachable_since": None, "next_attempt_at": None, "last_error": None}


@dataclass(frozen=True, slots=True)
class Due:
    """An object to be sent now; `path` is relative to the data directory."""

    delivery_id: int
    study_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    path: str
    attempts: int
    commitment_failures: int = 0


def claim_due(store: Store, name: str, limit: int, lease_s: float) -> list[Due]:
    """Take what is due at a destination: what was offered least often first, so that nothing holds the others up.

    Nothing of a held study goes, and of one study one revision at a time, so that a PACS receives the current one last.

    The attempt is counted before it is made, so that after a kill a resend is known to be one (status 0111);
    `give_back` takes it off again.
    """
    with store.write() as connection:
        now = store.clock()
        connection.execute(
            update(delivery)
            .where(delivery.c.destination == name, delivery.c.status == "waiting", _is_late(to_text(now)))
            .values(status="held", next_attempt_at=None, last_error=LATE)
        )
        rows = connection.execute(
            select(
                delivery.c.id, study.c.study_instance_uid, report.c.sop_class_uid, report.c.sop_instance_uid,
                report.c.path, (delivery.c.attempts + 1).label("attempts"), delivery.c.commitment_failures,
            )
            .select_from(OBJECTS)
            .where(_is_due(name, to_text(now)), report.c.path.is_not(None))
            .order_by(delivery.c.attempts, delivery.c.id)
            .limit(limit)
        ).all()  # fmt: skip
        connection.execute(
            update(delivery)
            .where(delivery.c.id.in_([row.id for row in rows]))
            .values(attempts=delivery.c.attempts + 1, next_attempt_at=to_text(now + timedelta(seconds=lease_s)))
        )
        return [Due(*row) for row in rows]


def _is_late(now: str) -> ColumnElement[bool]:
    """Past its time; not what was there in time and goes again because it was not committed."""
    return (delivery.c.deliver_before < now) & delivery.c.delivered_at.is_(None)


def has_due(store: Store, name: str) -> bool:
    """Whether anything waits whose time has come, at a destination whose time has come."""
    return bool(store.rows(select(delivery.c.id).select_from(OBJECTS).where(_is_due(name, store.now())).limit(1)))


def _is_due(name: str, now: str) -> ColumnElement[bool]:
    """What may go, of `OBJECTS`."""
    return (
        (delivery.c.destination == name)
        & (delivery.c.status == "waiting")
        & (delivery.c.next_attempt_at <= now)
        & ((study.c.state != "held") | (report.c.object == NOTE))
        # While its study is in the analysis, what was never offered is about to be superseded: `predecessors`.
        & ((delivery.c.attempts > 0) | study.c.claimed_until.is_(None) | (report.c.object == NOTE))
        & ~is_out_of_reach(name, now)
        & ~_earlier_waiting().exists()
    )


def is_out_of_reach(name: str, now: str) -> ColumnElement[bool]:
    """Whether a destination is not to be tried now."""
    return select(destination.c.name).where(destination.c.name == name, destination.c.next_attempt_at > now).exists()


def _earlier_waiting() -> Select[tuple[int]]:
    """What still waits for the same destination of an earlier revision of the same study: offered, maybe stored."""
    other, of, by = delivery.alias(), report.alias(), analysis.alias()
    earlier = (
        select(of.c.id)
        .join(by, by.c.id == of.c.analysis_id)
        .where(by.c.study_id == analysis.c.study_id, by.c.revision < analysis.c.revision)
        .correlate(analysis)
    )
    return (
        select(other.c.id)
        .where(
            other.c.report_id.in_(earlier),
            other.c.destination == delivery.c.destination,
            other.c.status.concat("") == "waiting",  # not by an index: it would read all that waits, for each that does
        )
        .correlate(delivery, analysis)
    )


def is_waiting(store: Store, due: Due) -> bool:
    """Whether a claimed object is still to be sent: its study may have been withdrawn or held, its time be over."""
    found = store.rows(
        select(delivery.c.id)
        .select_from(OBJECTS)
        .where(
            delivery.c.id == due.delivery_id,
            delivery.c.status == "waiting",
            (study.c.state != "held") | (report.c.object == NOTE),
            func.coalesce(~_is_late(store.now()), True),
        )
    )
    return bool(found)


def may_be_there() -> ColumnElement[bool]:
    """Whether a destination has an object of a delivery, for all that is known: it took it, or did not answer."""
    return delivery.c.delivered_at.is_not(None) | (delivery.c.attempts > delivery.c.refused_attempts)


def mark_delivered(store: Store, due: Due, name: str, status: str | None, ask_at: datetime | None = None) -> None:
    """The destination has it; also where a withdrawal came while it was on its way, for that is the truth.

    Args:
        store: the record.
        due: what was sent.
        name: the destination.
        status: of C-STORE; None where there was none.
        ask_at: when the destination is to be asked whether it keeps it.
    """
    with store.write() as connection:
        now = store.now()
        before = connection.execute(select(delivery.c.status).where(delivery.c.id == due.delivery_id)).scalar()
        connection.execute(
            update(delivery)
            # Committed meanwhile, by a late word on an earlier try: that says more.
            .where(delivery.c.id == due.delivery_id, delivery.c.status != "committed")
            .values(
                status="delivered", last_status=status, last_error=None, next_attempt_at=None,
                delivered_at=func.coalesce(delivery.c.delivered_at, now), transaction_uid=None,
                commitment_due_at=to_text(ask_at) if ask_at else None,
            )
        )  # fmt: skip
        object_event(connection, now, "delivered", due, f"{name}: {status or 'written'}")
        if before == "cancelled":
            object_event(connection, now, "cancelled too late", due, f"{name} has it: it must be removed there")


def park(store: Store, due: Due, name: str, status: str | None, error: str) -> None:
    """The destination refused it; a person must look, then `retry`."""
    with store.write() as connection:
        connection.execute(
            update(delivery).where(delivery.c.id == due.delivery_id).values(refused_attempts=delivery.c.attempts)
        )
        parked = connection.execute(
            update(delivery)
            .where(delivery.c.id == due.delivery_id, delivery.c.status == "waiting")
            .values(status="parked", last_status=status, last_error=error, next_attempt_at=None)
        ).rowcount
        object_event(
            connection, store.now(), "parked" if parked else "refused after it was cancelled", due, f"{name}: {error}"
        )


def postpone(store: Store, due: Due, error: str, until: datetime) -> None:
    """The association ended with this object; it alone waits."""
    with store.write() as connection:
        connection.execute(
            update(delivery)
            .where(delivery.c.id == due.delivery_id, delivery.c.status == "waiting")
            .values(last_error=error, next_attempt_at=to_text(until))
        )


def give_back(store: Store, dues: Sequence[Due]) -> None:
    """These were claimed and never offered: no attempt was made, and they are due as before."""
    with store.write() as connection:
        _give_back(connection, store.now(), dues)


def mark_unreachable(store: Store, name: str, dues: Sequence[Due], error: str, until: datetime) -> None:
    """No association came about: the destination waits, and with it all that waits for it; *dues* are given back."""
    with store.write() as connection:
        now = store.now()
        _give_back(connection, now, dues)
        connection.execute(
            update(destination)
            .where(destination.c.name == name)
            .values(
                unreachable_since=func.coalesce(destination.c.unreachable_since, now),
                next_attempt_at=to_text(until),
                last_error=error,
            )
        )


def mark_reachable(store: Store, name: str) -> None:
    """The outage is over: what waited for nothing else is due."""
    with store.write() as connection:
        connection.execute(update(destination).where(destination.c.name == name).values(**_REACHABLE))


def _give_back(connection: Connection, now: str, dues: Sequence[Due]) -> None:
    connection.execute(
        update(delivery)
        .where(delivery.c.id.in_([due.delivery_id for due in dues]))
        .values(
            attempts=delivery.c.attempts - 1,
            next_attempt_at=case((delivery.c.status == "waiting", now), else_=delivery.c.next_attempt_at),
        )
    )


def make_due(store: Store, statuses: Sequence[str], since: str | None = None) -> int:
    """Let deliveries go now: the parked on `retry`, the held on `release`. Returns how many.

    A person who says so does not wait for the pause of an outage either. What a later revision replaced does not go.
    """
    condition: ColumnElement[bool] = delivery.c.status.in_(statuses)
    if since is not None:
        condition = condition & delivery.c.report_id.in_(select(report.c.id).where(report.c.created_at >= since))
    with store.write() as connection:
        cancel_superseded(connection, condition)
        values: dict[str, Any] = {"status": "waiting", "next_attempt_at": store.now(), "commitment_failures": 0}
        if "held" in statuses:  # a person lets it go after its time; a retry does not
            values |= {"deliver_before": None, "last_error": None}
        count = connection.execute(update(delivery).where(condition).values(**values)).rowcount
        connection.execute(update(destination).values(**_REACHABLE))
        if count:
            add_event(connection, store.now(), "deliveries made due", detail=f"{count} {'/'.join(statuses)}")
        return int(count)


def cancel_superseded(connection: Connection, condition: ColumnElement[bool]) -> None:
    """Of the deliveries that *condition* names, those of a report that a later revision replaced never go."""
    connection.execute(
        update(delivery)
        .where(condition, has_later_revision())
        .values(status="cancelled", next_attempt_at=None, last_error=SUPERSEDED)
    )


def has_later_revision() -> ColumnElement[bool]:
    """Whether a later revision replaced the object of a delivery. Nothing replaces a rejection note."""
    made, of, later = report.alias(), analysis.alias(), analysis.alias()
    return (
        select(made.c.id)
        .join(of, of.c.id == made.c.analysis_id)
        .join(later, (later.c.study_id == of.c.study_id) & (later.c.revision > of.c.revision))
        .where(made.c.id == delivery.c.report_id, made.c.object != NOTE)
        .correlate(delivery)
        .exists()
    )


def wake_waiting(store: Store) -> None:
    """At start: leases of a dead run and pauses of a past outage end."""
    with store.write() as connection:
        connection.execute(update(delivery).where(delivery.c.status == "waiting").values(next_attempt_at=store.now()))
        connection.execute(update(destination).values(**_REACHABLE))


def end_leases(store: Store, name: str) -> None:
    """A sender begins anew: whatever it had in hand is due, and what waits for a reason of its own is tried early."""
    with store.write() as connection:
        connection.execute(
            update(delivery)
            .where(delivery.c.destination == name, delivery.c.status == "waiting")
            .values(next_attempt_at=store.now())
        )


def forget_destinations(store: Store, configured: Collection[str]) -> int:
    """At start: what has not gone to a destination that is no longer configured is cancelled; returns how many.

    Its `added_at` goes too, so that a destination added again gets what is received from then on. A rejection note that
    never went there is forgotten: it has told nobody, and may be wanted again.
    """
    with store.write() as connection:
        now = store.now()
        gone = delivery.c.destination.not_in(configured) & delivery.c.status.in_(("waiting", "held", "parked"))
        why = literal("destination ") + delivery.c.destination + literal(" is no longer configured")
        connection.execute(
            insert(event).from_select(
                ["at", "study_instance_uid", "sop_instance_uid", "event", "detail"],
                select(
                    literal(now), study.c.study_instance_uid, report.c.sop_instance_uid, literal("cancelled"), why
                )
                .select_from(OBJECTS)
                .where(gone)
                .order_by(delivery.c.id),
            )
        )  # fmt: skip
        never_went = select(delivery.c.report_id).where(gone, ~may_be_there())
        connection.execute(
            delete(rejection_note).where(
                rejection_note.c.destination.not_in(configured),
                rejection_note.c.report_id.is_(None) | rejection_note.c.report_id.in_(never_went),
            )
        )
        count = connection.execute(
            update(delivery).where(gone).values(status="cancelled", next_attempt_at=None, last_error=why)
        ).rowcount
        connection.execute(delete(destination).where(destination.c.name.not_in(configured)))
        return int(count)


def tell_destinations(store: Store, addresses: Sequence[str]) -> None:
    """At start: where each destination is, an event when it changed; other events have its name alone."""
    told = "; ".join(addresses) or "none"
    with store.write() as connection:
        last = select(event.c.detail).where(event.c.event == "destinations").order_by(event.c.id.desc()).limit(1)
        if connection.execute(last).scalar() != told:
            add_event(connection, store.now(), "destinations", detail=told)


def outbox_paths(store: Store) -> set[str]:
    """Every object file that a row names."""
    return {row.path for row in store.rows(select(report.c.path).where(report.c.path.is_not(None)))}


def destinations_since(store: Store, names: Sequence[str]) -> dict[str, str]:
    """When each destination was first configured, noting the new ones now: it gets what is received from then on."""
    with store.write() as connection:
        known = {row.name: row.added_at for row in connection.execute(select(destination))}
        for name in names:
            if name not in known:
                known[name] = store.now()
                connection.execute(insert(destination).values(name=name, added_at=known[name]))
        return known


def destinations_at_receipt(store: Store, study_instance_uid: str) -> set[str]:
    """Names of the destinations that were known when a study came.

    In one statement: the clock may be set between two.
    """
    rows = store.rows(
        select(destination.c.name)
        .join(study, destination.c.added_at <= study.c.received_at)
        .where(study.c.study_instance_uid == study_instance_uid)
    )
    return {row.name for row in rows}


def object_event(connection: Connection, at: str, name: str, about: Any, detail: str) -> None:
    """What happened to an object; *about* it: a `Due`, or a row with its and its study's UID."""
    add_event(
        connection, at, name, study_instance_uid=about.study_instance_uid, sop_instance_uid=about.sop_instance_uid,
        detail=detail,
    )  # fmt: skip
