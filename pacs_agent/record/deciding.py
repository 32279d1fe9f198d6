"""A person's word on a study: try it again, let it through, take it back."""

from collections.abc import Collection
from typing import Literal

from sqlalchemy import Connection, func, select, update

from pacs_agent.record.claiming import UNTRIED, tell_receipts
from pacs_agent.record.delivering import NOTE
from pacs_agent.record.receiving import WITHDRAWN
from pacs_agent.record.rejecting import want_notes
from pacs_agent.record.store import Store, add_event
from pacs_agent.record.tables import analysis, delivery, instance, report, study


def retry_failed(store: Store) -> int:
    """Queue every failed study again; returns how many."""
    with store.write() as connection:
        rows = connection.execute(select(study.c.id, study.c.study_instance_uid).where(study.c.state == "failed")).all()
        for row in rows:
            _queue_again(connection, store.now(), row.id, row.study_instance_uid)
        return len(rows)


def reanalyse(store: Store, study_instance_uid: str) -> str | None:
    """Queue a finished study again; returns why not, or None."""
    with store.write() as connection:
        row = connection.execute(select(study).where(study.c.study_instance_uid == study_instance_uid)).first()
        if row is None:
            return "is not known"
        if row.state == "held":
            return f"is held: {row.reason}; `accept` or `withdraw` it first"
        if row.emptied:
            return f"has no image left: {row.reason}"
        if row.state in ("receiving", "queued"):
            return f"is {row.state}: it will be analysed without this"
        removed = connection.execute(
            select(func.count()).where(
                instance.c.study_id == row.id, instance.c.is_current, instance.c.path.is_(None),
                instance.c.status.not_in(("ignored", "rejected")),
            )
        ).scalar_one()  # fmt: skip
        if removed:
            return f"lacks {removed} of its instances, removed by retention or lost: send it again"
        _queue_again(connection, store.now(), row.id, study_instance_uid)
        return None


def _queue_again(connection: Connection, at: str, study_id: int, study_instance_uid: str) -> None:
    connection.execute(
        update(instance)
        .where(instance.c.study_id == study_id, instance.c.status == "rejected", instance.c.reason == WITHDRAWN)
        .values(status="received", reason=None)
    )
    connection.execute(update(study).where(study.c.id == study_id).values(state="queued", reason=None, **UNTRIED))
    add_event(connection, at, "analyse again", study_instance_uid=study_instance_uid)


def settle(
    store: Store,
    study_instance_uid: str,
    decision: Literal["accept", "withdraw"],
    reason: str | None,
    reject_at: Collection[str] = (),
) -> bool:
    """A person's word on a study: let a held one through, or take a result back.

    A withdrawal cancels what waits, and takes out the images that no analysis has seen. Returns whether anything was
    decided: not where the study is unknown, withdrawn already, or to be accepted and not held. The destinations
    *reject_at* are to get a rejection note of what they have; that may be decided after the withdrawal too.
    """
    with store.write() as connection:
        row = connection.execute(select(study).where(study.c.study_instance_uid == study_instance_uid)).first()
        if row is not None and row.state == "withdrawn" and not row.emptied and reject_at:
            return want_notes(connection, store.now(), row.id, reason or "", reject_at)
        if (
            row is None
            or (row.state == "withdrawn" and not row.emptied)
            or (decision == "accept" and row.state != "held")
        ):
            return False
        if decision == "accept":
            values = {"state": "receiving", "reason": None, "accepted": True}
        else:
            values = {"state": "withdrawn", "reason": reason, "claimed_until": None, "emptied": False}
            connection.execute(
                update(instance)
                .where(instance.c.study_id == row.id, instance.c.is_current, instance.c.status == "received")
                .values(status="rejected", reason=WITHDRAWN)
            )
            reports = select(report.c.id).join(analysis).where(analysis.c.study_id == row.id, report.c.object != NOTE)
            connection.execute(
                update(delivery)
                .where(delivery.c.report_id.in_(reports), delivery.c.status.in_(("waiting", "held", "parked")))
                .values(status="cancelled", next_attempt_at=None, last_error=f"withdrawn: {reason}")
            )
        connection.execute(update(study).where(study.c.id == row.id).values(**values))
        tell_receipts(connection, store.now(), row.id, study_instance_uid)
        add_event(
            connection, store.now(), f"{decision}ed" if decision == "accept" else "withdrawn",
            study_instance_uid=study_instance_uid, detail=row.reason if decision == "accept" else reason,
        )  # fmt: skip
        if decision == "withdraw":
            want_notes(connection, store.now(), row.id, reason or "", reject_at)
        return True
