"""What delivery writes: which object goes where, each try, and how it ended."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, select, update

from pacs_agent.record.store import Store, add_event
from pacs_agent.record.tables import analysis, delivery, report, study
from pacs_agent.record.times import to_text


@dataclass(frozen=True, slots=True)
class Due:
    """An object to be sent now; `path` is relative to the data directory."""

    delivery_id: int
    study_instance_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    path: str
    attempts: int


def claim_due(store: Store, destination: str, limit: int, lease_s: float) -> list[Due]:
    """Take what is due at a destination, oldest first.

    The attempt is counted before it is made, so that after a kill a resend is known to be one (status 0111).
    """
    now = store.clock()
    with store.write() as connection:
        late = select(delivery.c.id).where(
            delivery.c.destination == destination,
            delivery.c.status == "waiting",
            delivery.c.deliver_before < to_text(now),
        )
        connection.execute(
            update(delivery)
            .where(delivery.c.id.in_(late))
            .values(status="held", next_attempt_at=None, last_error="the time for delivery has passed")
        )
        rows = connection.execute(
            select(
                delivery.c.id, study.c.study_instance_uid, report.c.sop_class_uid, report.c.sop_instance_uid,
                report.c.path, (delivery.c.attempts + 1).label("attempts"),
            )
            .join(report, report.c.id == delivery.c.report_id)
            .join(analysis, analysis.c.id == report.c.analysis_id)
            .join(study, study.c.id == analysis.c.study_id)
            .where(
                delivery.c.destination == destination,
                delivery.c.status == "waiting",
                delivery.c.next_attempt_at <= to_text(now),
                report.c.path.is_not(None),
            )
            .order_by(delivery.c.id)
            .limit(limit)
        ).all()  # fmt: skip
        connection.execute(
            update(delivery)
            .where(delivery.c.id.in_([row.id for row in rows]))
            .values(attempts=delivery.c.attempts + 1, next_attempt_at=to_text(now + timedelta(seconds=lease_s)))
        )
        return [Due(*row) for row in rows]


def has_due(store: Store, destination: str) -> bool:
    """Whether anything waits whose time has come."""
    return bool(
        store.rows(
            select(delivery.c.id)
            .where(
                delivery.c.destination == destination,
                delivery.c.status == "waiting",
                delivery.c.next_attempt_at <= store.now(),
            )
            .limit(1)
        )
    )


def mark_delivered(store: Store, due: Due, destination: str, status: str) -> None:
    """The destination has it."""
    with store.write() as connection:
        now = store.now()
        connection.execute(
            update(delivery)
            .where(delivery.c.id == due.delivery_id, delivery.c.status == "waiting")
            .values(status="delivered", last_status=status, last_error=None, next_attempt_at=None, delivered_at=now)
        )
        _event(connection, now, "delivered", due, f"{destination}: {status}")


def park(store: Store, due: Due, destination: str, status: str | None, error: str) -> None:
    """The destination refused it; a person must look, then `retry`."""
    with store.write() as connection:
        connection.execute(
            update(delivery)
            .where(delivery.c.id == due.delivery_id, delivery.c.status == "waiting")
            .values(status="parked", last_status=status, last_error=error, next_attempt_at=None)
        )
        _event(connection, store.now(), "parked", due, f"{destination}: {error}")


def postpone(store: Store, dues: Sequence[Due], error: str, until: datetime) -> None:
    """The destination could not be reached; nothing is said about the objects."""
    with store.write() as connection:
        connection.execute(
            update(delivery)
            .where(delivery.c.id.in_([due.delivery_id for due in dues]), delivery.c.status == "waiting")
            .values(last_error=error, next_attempt_at=to_text(until))
        )


def postpone_destination(store: Store, destination: str, until: datetime) -> None:
    """Keep what waits for an unreachable destination from knocking one by one."""
    with store.write() as connection:
        connection.execute(
            update(delivery)
            .where(
                delivery.c.destination == destination,
                delivery.c.status == "waiting",
                delivery.c.next_attempt_at < to_text(until),
            )
            .values(next_attempt_at=to_text(until))
        )


def make_due(store: Store, statuses: Sequence[str], since: str | None = None) -> int:
    """Let deliveries go now: the parked on `retry`, the held on `release`. Returns how many."""
    condition: ColumnElement[bool] = delivery.c.status.in_(statuses)
    if since is not None:
        condition = condition & delivery.c.report_id.in_(select(report.c.id).where(report.c.created_at >= since))
    with store.write() as connection:
        values: dict[str, Any] = {"status": "waiting", "next_attempt_at": store.now()}
        if "held" in statuses:  # a person lets it go after its time; a retry does not
            values["deliver_before"] = None
        count = connection.execute(update(delivery).where(condition).values(**values)).rowcount
        if count:
            add_event(connection, store.now(), "deliveries made due", detail=f"{count} {'/'.join(statuses)}")
        return int(count)


def wake_waiting(store: Store) -> None:
    """At start: leases of a dead run and pauses of a past outage end."""
    with store.write() as connection:
        connection.execute(update(delivery).where(delivery.c.status == "waiting").values(next_attempt_at=store.now()))


def outbox_paths(store: Store) -> set[str]:
    """Every object file that a row names."""
    return {row.path for row in store.rows(select(report.c.path).where(report.c.path.is_not(None)))}


def _event(connection: Connection, at: str, name: str, due: Due, detail: str) -> None:
    add_event(
        connection, at, name, study_instance_uid=due.study_instance_uid, sop_instance_uid=due.sop_instance_uid,
        detail=detail,
    )  # fmt: skip
