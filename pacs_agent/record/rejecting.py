"""What rejection notes of our own objects write: which are wanted, what each names, that it is made.

The command only says that they are wanted. A note is made while nothing is on the wire to its destination, so that it
names what came through while the withdrawal was decided. Its row and the end of the wish are one transaction: killed
before that, it is made anew and the first was never known; killed after, the same bytes go.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import ColumnElement, Connection, Select, delete, func, insert, select, update

from pacs_agent.record.delivering import NOTE, OBJECTS, may_be_there
from pacs_agent.record.store import Store, add_event
from pacs_agent.record.tables import analysis, delivery, instance, rejection_note, report, study
from pacs_agent.study.instance import Instance


@dataclass(frozen=True, slots=True)
class WantedNote:
    """A note that is to be made for a destination; `revision`: the latest that is withdrawn."""

    note_id: int
    study_id: int
    analysis_id: int
    study_instance_uid: str
    revision: int
    reason: str


@dataclass(frozen=True, slots=True)
class SentObject:
    """An object of ours that a destination has, for all that is known; `path` is relative to the data directory."""

    object: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    path: str | None


@dataclass(frozen=True, slots=True)
class MadeNote:
    """A note, its bytes already safe at `path`."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    path: str
    status: Literal["waiting", "held"]


def want_notes(connection: Connection, at: str, study_id: int, reason: str, names: Collection[str]) -> bool:
    """Of these destinations, those that may have an object no note of ours names yet are to get one; whether any."""
    latest = connection.execute(
        select(analysis.c.id).where(analysis.c.study_id == study_id).order_by(analysis.c.revision.desc()).limit(1)
    ).scalar()
    wanted = connection.execute(
        select(delivery.c.destination)
        .select_from(OBJECTS)
        .where(
            study.c.id == study_id,
            delivery.c.destination.concat("").in_(names),  # not by an index: it reads every study's
            report.c.object != NOTE,
            may_be_there(),  # or on its way there: the daemon sees, once it has arrived
            ~is_rejected(),
        )
        .distinct()
        .order_by(delivery.c.destination)
    ).scalars()
    found = list(wanted)
    for name in found:
        connection.execute(insert(rejection_note).values(analysis_id=latest, destination=name, reason=reason))
    if found:
        uid = connection.execute(select(study.c.study_instance_uid).where(study.c.id == study_id)).scalar_one()
        add_event(
            connection, at, "rejection note wanted", study_instance_uid=uid, detail=f"{', '.join(found)}: {reason}"
        )
    return bool(found)


def is_rejected() -> ColumnElement[bool]:
    """Whether a note, made or wanted, takes the object of a delivery back where it went."""
    made, of, withdrawn = report.alias(), analysis.alias(), analysis.alias()
    return (
        select(rejection_note.c.id)
        .join(withdrawn, withdrawn.c.id == rejection_note.c.analysis_id)
        .join(of, (of.c.study_id == withdrawn.c.study_id) & (of.c.revision <= withdrawn.c.revision))
        .join(made, made.c.analysis_id == of.c.id)
        .where(made.c.id == delivery.c.report_id, rejection_note.c.destination == delivery.c.destination)
        .correlate(delivery)
        .exists()
    )


def next_wanted(store: Store, name: str) -> WantedNote | None:
    """The oldest note that is to be made for a destination."""
    rows = store.rows(
        select(
            rejection_note.c.id, analysis.c.study_id, analysis.c.id, study.c.study_instance_uid, analysis.c.revision,
            rejection_note.c.reason,
        )
        .join(analysis, analysis.c.id == rejection_note.c.analysis_id)
        .join(study, study.c.id == analysis.c.study_id)
        .where(rejection_note.c.destination == name, rejection_note.c.report_id.is_(None))
        .order_by(rejection_note.c.id)
        .limit(1)
    )  # fmt: skip
    return WantedNote(*rows[0]) if rows else None


def sent_objects(store: Store, wanted: WantedNote, name: str) -> list[SentObject]:
    """What the note names: everything of its revisions that the destination may have, oldest first."""
    rows = store.rows(
        select(
            report.c.object, report.c.sop_class_uid, report.c.sop_instance_uid, report.c.series_instance_uid,
            report.c.path,
        )
        .select_from(OBJECTS)
        .where(delivery.c.id.in_(_named(wanted, name)))
        .order_by(report.c.id)
    )  # fmt: skip
    return [SentObject(*row) for row in rows]


def facts_of(store: Store, study_id: int) -> tuple[Instance, str | None]:
    """Header facts and path of an image of a study, an analysed one where there is one."""
    row = store.rows(
        select(instance.c.facts, instance.c.path)
        .where(instance.c.study_id == study_id)
        .order_by(instance.c.is_current.desc(), instance.c.status != "analysed", instance.c.id)
        .limit(1)
    )[0]
    return Instance.from_json(row.facts), row.path


def record_note(store: Store, wanted: WantedNote, name: str, made: MadeNote) -> None:
    """The note is made and goes where its objects are, one delivery. What it names is not asked to be kept any more."""
    with store.write() as connection:
        now = store.now()
        report_id = connection.execute(
            insert(report).values(
                analysis_id=wanted.analysis_id, object=NOTE, sop_class_uid=made.sop_class_uid,
                sop_instance_uid=made.sop_instance_uid, series_instance_uid=made.series_instance_uid, path=made.path,
                created_at=now,
            )
        ).inserted_primary_key[0]  # type: ignore[index]  # fmt: skip
        connection.execute(
            insert(delivery).values(
                report_id=report_id, destination=name, status=made.status, attempts=0,
                next_attempt_at=now if made.status == "waiting" else None,
            )
        )  # fmt: skip
        connection.execute(
            update(rejection_note).where(rejection_note.c.id == wanted.note_id).values(report_id=report_id)
        )
        count = connection.execute(select(func.count()).select_from(_named(wanted, name).subquery())).scalar_one()
        connection.execute(
            update(delivery)
            .where(delivery.c.id.in_(_named(wanted, name)), delivery.c.transaction_uid.is_(None))
            .values(commitment_due_at=None)
        )
        add_event(
            connection, now, "rejection note made", study_instance_uid=wanted.study_instance_uid,
            sop_instance_uid=made.sop_instance_uid, detail=f"{name}: of {count} objects: {wanted.reason}",
        )  # fmt: skip


def drop_note(store: Store, wanted: WantedNote, event: str, detail: str) -> None:
    """It is not made: there is nothing to take back, or it cannot be made. It may be wanted again."""
    with store.write() as connection:
        connection.execute(delete(rejection_note).where(rejection_note.c.id == wanted.note_id))
        add_event(connection, store.now(), event, study_instance_uid=wanted.study_instance_uid, detail=detail)


def _named(wanted: WantedNote, name: str) -> Select[tuple[int]]:
    """Deliveries whose objects the note takes back."""
    return (
        select(delivery.c.id)
        .select_from(OBJECTS)
        .where(
            analysis.c.study_id == wanted.study_id,
            analysis.c.revision <= wanted.revision,
            delivery.c.destination.concat("") == name,  # as above
            report.c.object != NOTE,
            may_be_there(),
        )
    )
