"""What further bundles have to do and what they found. Nothing here touches a study, its report or a delivery.

A row waits for each further bundle from the moment that the live analysis is recorded, in the same transaction. One
thread works for each bundle, so nothing is claimed: a restart finds the row waiting as it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import ColumnElement, and_, delete, func, insert, or_, select, tuple_, update

from pacs_agent.record.claiming import ClaimedInstance
from pacs_agent.record.store import Store, add_event
from pacs_agent.record.tables import analysis, finding, further_analysis, further_finding, instance, study
from pacs_agent.study.instance import Instance

DEATHS_ALLOWED = 2  # of its analysis process on one study; then that is `failed`

Model = tuple[str, str, str]
"""Name, version and bundle hash."""


@dataclass(frozen=True, slots=True)
class FurtherGroup:
    """A part and side that the live analysis made a finding of, with the same images."""

    body_part: str
    laterality: str | None
    image_count: int
    instances: tuple[ClaimedInstance, ...]


@dataclass(frozen=True, slots=True)
class FurtherWork:
    """The latest revision of a study, to be seen by a further bundle."""

    further_id: int
    study_instance_uid: str
    revision: int
    groups: tuple[FurtherGroup, ...]


@dataclass(frozen=True, slots=True)
class FurtherFinding:
    """One row of `analyses`."""

    body_part: str
    laterality: str | None
    finding: str
    abnormal_probability: float | None
    threshold: float
    image_count: int
    images_analysed: int
    reason: str | None


def forget_further(store: Store, models: Sequence[Model]) -> int:
    """Take away what waits for bundles that are configured no more; returns how much that was."""
    columns = (further_analysis.c.model_name, further_analysis.c.model_version, further_analysis.c.bundle_hash)
    with store.write() as connection:
        return connection.execute(
            delete(further_analysis).where(further_analysis.c.state == "waiting", tuple_(*columns).not_in(models))
        ).rowcount


def next_further(store: Store, model: Model) -> FurtherWork | None:
    """What a further bundle is to see next, what it died on last; None where nothing waits."""
    latest = select(func.max(analysis.c.revision)).where(analysis.c.study_id == study.c.id).scalar_subquery()
    # A newer revision has a row of its own; a withdrawn result is to be compared with nothing.
    is_stale = or_(study.c.state == "withdrawn", further_analysis.c.revision < latest)
    while rows := store.rows(
        select(further_analysis, study.c.study_instance_uid, is_stale.label("is_stale"))
        .join(study, study.c.id == further_analysis.c.study_id)
        .where(further_analysis.c.state == "waiting", _is_of(model))
        .order_by(further_analysis.c.deaths, further_analysis.c.id)
        .limit(1)
    ):
        [row] = rows
        if not row.is_stale:
            return FurtherWork(row.id, row.study_instance_uid, row.revision, _groups(store, row.study_id, row.revision))
        with store.write() as connection:
            connection.execute(delete(further_analysis).where(further_analysis.c.id == row.id))
    return None


def _is_of(model: Model) -> ColumnElement[bool]:
    name, version, bundle_hash = model
    return and_(
        further_analysis.c.model_name == name,
        further_analysis.c.model_version == version,
        further_analysis.c.bundle_hash == bundle_hash,
    )


def _groups(store: Store, study_id: int, revision: int) -> tuple[FurtherGroup, ...]:
    found = store.rows(
        select(finding.c.body_part, finding.c.laterality, finding.c.image_count)
        .join(analysis, analysis.c.id == finding.c.analysis_id)
        .where(
            analysis.c.study_id == study_id, analysis.c.revision == revision, finding.c.status == "analysed",
            finding.c.body_part.is_not(None),
        )
        .order_by(finding.c.id)
    )  # fmt: skip
    images = store.rows(
        select(instance)
        .where(
            instance.c.study_id == study_id, instance.c.is_current, instance.c.status.in_(("analysed", "failed")),
        )
        .order_by(instance.c.id)
    )  # fmt: skip
    return tuple(
        FurtherGroup(
            row.body_part,
            row.laterality,
            row.image_count,
            tuple(
                ClaimedInstance(image.id, image.path, Instance.from_json(image.facts), image.received_at)
                for image in images
                if (image.body_part, image.laterality) == (row.body_part, row.laterality)
            ),
        )
        for row in found
    )


def record_further(store: Store, work: FurtherWork, findings: Sequence[FurtherFinding]) -> None:
    """Write what a further bundle found, in one transaction."""
    with store.write() as connection:
        for row in findings:
            connection.execute(
                insert(further_finding).values(
                    further_analysis_id=work.further_id, body_part=row.body_part, laterality=row.laterality,
                    finding=row.finding, abnormal_probability=row.abnormal_probability, threshold=row.threshold,
                    image_count=row.image_count, images_analysed=row.images_analysed, reason=row.reason,
                )
            )  # fmt: skip
        connection.execute(
            update(further_analysis)
            .where(further_analysis.c.id == work.further_id)
            .values(state="analysed", analysed_at=store.now())
        )


def further_failed(store: Store, work: FurtherWork, reason: str) -> None:
    """A further bundle gives a study up; it is tried again with the study's next revision."""
    with store.write() as connection:
        connection.execute(
            update(further_analysis)
            .where(further_analysis.c.id == work.further_id)
            .values(state="failed", reason=reason, analysed_at=store.now())
        )
        row = connection.execute(select(further_analysis).where(further_analysis.c.id == work.further_id)).one()
        add_event(
            connection, store.now(), "further bundle failed", study_instance_uid=work.study_instance_uid,
            detail=f"revision {work.revision}, {row.model_name} {row.model_version}: {reason}",
        )  # fmt: skip


def further_died(store: Store, work: FurtherWork, reason: str) -> None:
    """The analysis process of a further bundle died on a study: it is tried once more, after the others."""
    with store.write() as connection:
        connection.execute(
            update(further_analysis)
            .where(further_analysis.c.id == work.further_id)
            .values(deaths=further_analysis.c.deaths + 1)
        )
        deaths = connection.execute(
            select(further_analysis.c.deaths).where(further_analysis.c.id == work.further_id)
        ).scalar_one()
    if deaths >= DEATHS_ALLOWED:
        further_failed(store, work, f"its analysis process died {deaths} times on this study: {reason}")
