"""What retention takes away: files first named, then removed; never of what is not finished."""

from sqlalchemy import CompoundSelect, Select, delete, insert, select, update

from pacs_agent.record.store import Store, add_event
from pacs_agent.record.tables import (
    analysis,
    commitment,
    delivery,
    event,
    event_removal,
    finding,
    further_analysis,
    further_finding,
    instance,
    rejection,
    rejection_note,
    report,
    site_truth,
    study,
)

_FINISHED = ("analysed", "withdrawn")
STUDIES_AT_A_TIME = 100


def _unfinished_reports() -> Select[tuple[int]]:
    """Reports that still have somewhere to go, or may have to go again: the destination has not committed yet."""
    return select(delivery.c.report_id).where(
        delivery.c.status.in_(("waiting", "parked", "held")) | delivery.c.commitment_due_at.is_not(None)
    )


def _unfinished_studies() -> CompoundSelect[int]:
    """Studies whose objects are on their way or wait for a person, or that a further bundle or a note waits for.

    Not those whose objects a silent destination holds: nobody wants them until `release`, and nobody may ever say it.
    """
    on_its_way = delivery.c.status.in_(("waiting", "parked")) | delivery.c.commitment_due_at.is_not(None)
    return (
        select(analysis.c.study_id)
        .join(report, report.c.analysis_id == analysis.c.id)
        .join(delivery, delivery.c.report_id == report.c.id)
        .where(on_its_way)
        .union(
            select(further_analysis.c.study_id).where(further_analysis.c.state == "waiting"),
            select(analysis.c.study_id).join(rejection_note).where(rejection_note.c.report_id.is_(None)),
        )
    )


def forget_instances(store: Store, before: str) -> list[str]:
    """Paths of instances of studies finished before a time, their rows now without them."""
    finished = select(study.c.id).where(
        study.c.state.in_(_FINISHED), study.c.last_received_at < before, study.c.id.not_in(_unfinished_studies())
    )
    with store.write() as connection:
        condition = instance.c.path.is_not(None) & instance.c.study_id.in_(finished)
        paths = list(connection.execute(select(instance.c.path).where(condition)).scalars())
        connection.execute(update(instance).where(condition).values(path=None))
        if paths:
            add_event(connection, store.now(), "instances removed by retention", detail=str(len(paths)))
        return paths


def forget_objects(store: Store, before: str) -> list[str]:
    """Paths of objects made before a time that every destination has, their rows now without them."""
    with store.write() as connection:
        condition = (
            report.c.path.is_not(None)
            & (report.c.created_at < before)
            & report.c.analysis_id.in_(select(report.c.analysis_id).join(delivery))
            & report.c.id.not_in(_unfinished_reports())
        )
        paths = list(connection.execute(select(report.c.path).where(condition)).scalars())
        connection.execute(update(report).where(condition).values(path=None))
        if paths:
            add_event(connection, store.now(), "objects removed by retention", detail=str(len(paths)))
        return paths


def forget_transactions(store: Store, before: str) -> None:
    """Remove what was asked of destinations before a time; a later word on it is of an unknown transaction."""
    with store.write() as connection:
        connection.execute(delete(commitment).where(commitment.c.requested_at < before))


def forget_rows(store: Store, before: str) -> int:
    """Remove studies finished before a time whose files are all gone; returns how many."""
    forgotten = 0
    while count := _forget_some(store, before):
        forgotten += count
    return forgotten


def _forget_some(store: Store, before: str) -> int:
    """A few at a time, for every receipt waits for the write lock."""
    with_files = select(instance.c.study_id).where(instance.c.path.is_not(None))
    with_objects = select(analysis.c.study_id).join(report).where(report.c.path.is_not(None))
    with store.write() as connection:
        rows = connection.execute(
            select(study.c.id, study.c.study_instance_uid)
            .where(
                study.c.state.in_(_FINISHED),
                study.c.last_received_at < before,
                study.c.id.not_in(_unfinished_studies()),
                study.c.id.not_in(with_files),
                study.c.id.not_in(with_objects),
            )
            .limit(STUDIES_AT_A_TIME)
        ).all()
        for row in rows:
            analyses = select(analysis.c.id).where(analysis.c.study_id == row.id)
            reports = select(report.c.id).where(report.c.analysis_id.in_(analyses))
            connection.execute(delete(rejection_note).where(rejection_note.c.analysis_id.in_(analyses)))
            connection.execute(delete(delivery).where(delivery.c.report_id.in_(reports)))
            connection.execute(delete(report).where(report.c.analysis_id.in_(analyses)))
            connection.execute(delete(finding).where(finding.c.analysis_id.in_(analyses)))
            connection.execute(delete(analysis).where(analysis.c.study_id == row.id))
            further = select(further_analysis.c.id).where(further_analysis.c.study_id == row.id)
            connection.execute(delete(further_finding).where(further_finding.c.further_analysis_id.in_(further)))
            connection.execute(delete(further_analysis).where(further_analysis.c.study_id == row.id))
            connection.execute(delete(site_truth).where(site_truth.c.study_id == row.id))
            connection.execute(delete(instance).where(instance.c.study_id == row.id))
            connection.execute(delete(rejection).where(rejection.c.study_instance_uid == row.study_instance_uid))
            connection.execute(insert(event_removal).values(study_instance_uid=row.study_instance_uid))
            connection.execute(delete(event).where(event.c.study_instance_uid == row.study_instance_uid))
            connection.execute(delete(event_removal))
            connection.execute(delete(study).where(study.c.id == row.id))
        if rows:
            add_event(connection, store.now(), "rows removed by retention", detail=f"studies: {len(rows)}")
        return len(rows)
