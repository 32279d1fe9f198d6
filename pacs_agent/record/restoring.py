"""After a restore: what retention removed since the backup, and objects whose rows the backup does not have.

Enters: paths, and what the objects say of themselves. Leaves: rows. Files are the caller's.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import func, insert, select, update

from pacs_agent.record import deciding
from pacs_agent.record.store import Store, add_event
from pacs_agent.record.tables import analysis, delivery, instance, report, study

LOST_ROW = "made after the backup that was put back; it may have been delivered"


@dataclass(frozen=True, slots=True)
class FoundObject:
    """An object that lies in the outbox and that no row names, as it says of itself."""

    study_instance_uid: str
    object: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    revision: int
    path: str


def forget_removed(store: Store, data_dir: Path) -> int:
    """Of finished studies, what retention has removed since the backup is not missing; returns how many files."""
    finished = select(study.c.id).where(study.c.state.in_(("analysed", "withdrawn")))
    count = 0
    with store.write() as connection:
        rows = connection.execute(
            select(instance.c.id, instance.c.path).where(
                instance.c.path.is_not(None), instance.c.study_id.in_(finished)
            )
        ).all()
        for row in rows:
            if not (data_dir / row.path).exists():
                connection.execute(update(instance).where(instance.c.id == row.id).values(path=None))
                count += 1
    return count


def adopt_objects(store: Store, found: Collection[FoundObject], destinations: Collection[str]) -> list[FoundObject]:
    """Give objects of a study that is known a revision again; returns those of which that cannot be done.

    Its finding went with its row, so the study is analysed again, and the new report names this one as its
    predecessor: PS3.3 C.17.2. It is not sent again itself.

    Args:
        store: the record.
        found: of any studies.
        destinations: names of those that may have been offered them.
    """
    left: list[FoundObject] = []
    for uid in sorted({each.study_instance_uid for each in found}):
        mine = [each for each in found if each.study_instance_uid == uid]
        if not _adopt(store, uid, mine, destinations):
            left += mine
    return left


def _adopt(store: Store, study_instance_uid: str, found: list[FoundObject], destinations: Collection[str]) -> bool:
    rows = store.rows(select(study).where(study.c.study_instance_uid == study_instance_uid))
    if not rows or rows[0].state == "withdrawn":
        return False
    [row] = rows
    if row.state in ("analysed", "failed") and deciding.reanalyse(store, study_instance_uid) is not None:
        return False
    with store.write() as connection:
        now = store.now()
        last = connection.execute(select(func.max(analysis.c.revision)).where(analysis.c.study_id == row.id)).scalar()
        for number, revision in enumerate(sorted({each.revision for each in found}), start=int(last or 0) + 1):
            analysis_id = connection.execute(
                insert(analysis).values(study_id=row.id, revision=number, analysed_at=now).returning(analysis.c.id)
            ).scalar_one()
            for each in (each for each in found if each.revision == revision):
                report_id = connection.execute(
                    insert(report).values(
                        analysis_id=analysis_id, object=each.object, sop_class_uid=each.sop_class_uid,
                        sop_instance_uid=each.sop_instance_uid, series_instance_uid=each.series_instance_uid,
                        path=each.path, created_at=now,
                    ).returning(report.c.id)
                ).scalar_one()  # fmt: skip
                for name in destinations:
                    connection.execute(
                        insert(delivery).values(
                            report_id=report_id, destination=name, status="cancelled", attempts=1, last_error=LOST_ROW
                        )
                    )
                add_event(
                    connection, now, "object found after a restore", study_instance_uid=study_instance_uid,
                    sop_instance_uid=each.sop_instance_uid, detail=LOST_ROW,
                )  # fmt: skip
    return True
