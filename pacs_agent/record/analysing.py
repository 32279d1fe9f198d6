"""What the analysis writes: a revision of a study with its findings and reports, in one transaction."""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Literal

from sqlalchemy import ColumnElement, Connection, and_, case, func, insert, or_, select, update

from pacs_agent.record.claiming import UNTRIED, Claim
from pacs_agent.record.delivering import cancel_superseded, may_be_there
from pacs_agent.record.receiving import WITHDRAWN
from pacs_agent.record.store import Store, add_event
from pacs_agent.record.tables import (
    analysis,
    delivery,
    finding,
    further_analysis,
    instance,
    rejection_note,
    report,
    study,
)
from pacs_agent.record.times import deadline

# By a rejection note; the images of a study that a person withdrew are out as long as it is.
_IS_REJECTED = and_(instance.c.status == "rejected", func.coalesce(instance.c.reason, "") != WITHDRAWN)
InstanceStatus = Literal["analysed", "unsupported", "ignored", "failed"]


@dataclass(frozen=True, slots=True)
class InstanceResult:
    """What an analysis says of one instance."""

    instance_id: int
    status: InstanceStatus
    reason: str | None = None
    body_part: str | None = None
    body_part_source: str | None = None
    laterality: str | None = None
    laterality_source: str | None = None
    abnormal_probability: float | None = None
    member_probabilities: tuple[float, ...] = ()


@dataclass(frozen=True, slots=True)
class FindingRow:
    """One row of `results`."""

    body_part: str | None
    laterality: str | None
    status: Literal["analysed", "unsupported"]
    finding: str | None
    abnormal_probability: float | None
    threshold: float | None
    image_count: int
    images_analysed: int
    reason: str | None


@dataclass(frozen=True, slots=True)
class ReportRow:
    """An object that was made, its bytes already safe at `path`."""

    object: str
    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    path: str
    # destination → (status, hours): where it goes, whether it waits or is held, and within what time of the receipt
    deliveries: dict[str, tuple[Literal["waiting", "held"], float | None]]
    # destination → why it would go there and does not
    not_wanted: dict[str, str] = field(default_factory=dict)
    # SOP Instance UIDs of the earlier reports that it names as its predecessors
    replaces: tuple[str, ...] = ()
    # perhaps sent already, its row lost since: 0111 (duplicate instance) then is "has it"
    is_resend: bool = False


@dataclass(frozen=True, slots=True)
class PredecessorRow:
    """An earlier report of a study; `destinations`: those at which a new one replaces it."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    destinations: frozenset[str]


def predecessors(store: Store, study_id: int) -> list[PredecessorRow]:
    """The study's reports that a new one replaces, oldest first.

    At each destination the latest that it has, and what was offered since and may be there too. What was never offered
    will not be: the new report supersedes it, and while the study is claimed no sender takes it. None that a rejection
    note of ours names: who follows the note shows it no more, and nothing of it is taken over, which is what the
    sequence says of a predecessor (PS3.3 C.17.2).
    """
    newer, of, by = delivery.alias(), report.alias(), analysis.alias()
    later = (
        select(of.c.id)
        .join(by, by.c.id == of.c.analysis_id)
        .where(by.c.study_id == study_id, by.c.revision > analysis.c.revision, of.c.object == "sr")
        .correlate(analysis)
    )
    is_replaced = (
        select(newer.c.id)
        .where(
            newer.c.report_id.in_(later),
            newer.c.destination == delivery.c.destination,
            newer.c.status.concat("").in_(("delivered", "committed")),  # not by an index: it reads every study's
        )
        .correlate(delivery, analysis)
        .exists()
    )
    rejected = select(func.max(analysis.c.revision)).join(rejection_note).where(analysis.c.study_id == study_id)
    rows = store.rows(
        select(
            report.c.sop_class_uid, report.c.sop_instance_uid, report.c.series_instance_uid, delivery.c.destination
        )
        .join(analysis, analysis.c.id == report.c.analysis_id)
        .join(delivery, delivery.c.report_id == report.c.id)
        .where(
            analysis.c.study_id == study_id,
            analysis.c.revision > func.coalesce(rejected.scalar_subquery(), 0),
            report.c.object == "sr",
            may_be_there(),
            ~is_replaced,
        )
        .order_by(report.c.id)
    )  # fmt: skip
    return [
        PredecessorRow(uids[0], uids[1], uids[2], frozenset(row.destination for row in there))
        for uids, there in groupby(rows, key=lambda row: row[:3])
    ]


def offered_destinations(store: Store, study_id: int) -> set[str]:
    """Destinations that were offered an object of the study, and may have it."""
    rows = store.rows(
        select(delivery.c.destination)
        .join(report, report.c.id == delivery.c.report_id)
        .join(analysis, analysis.c.id == report.c.analysis_id)
        .where(analysis.c.study_id == study_id, may_be_there())
        .distinct()
    )
    return {row.destination for row in rows}


def record_analysis(
    store: Store,
    claim: Claim,
    *,
    model: tuple[str, str, str] | None,
    images: Sequence[InstanceResult],
    findings: Sequence[FindingRow],
    reports: Sequence[ReportRow],
    further: Sequence[tuple[str, str, str]] = (),
) -> None:
    """Write a whole revision in one transaction and let the study go.

    Args:
        claim: the study as claimed.
        model: name, version and bundle hash, where a model ran.
        images: one result for each claimed instance.
        findings: at least one.
        reports: the objects made, with their destinations.
        further: name, version and bundle hash of further bundles, which are to see the same images.
    """
    name, version, bundle_hash = model or (None, None, None)
    with store.write() as connection:
        now = store.now()
        state, received_at = connection.execute(
            select(study.c.state, study.c.received_at).where(study.c.id == claim.study_id)
        ).one()
        # Withdrawn, or held for its identity, while the analysis ran: recorded all the same, but never sent.
        is_wanted = state in ("queued", "receiving")
        why_not = f"the study was {state} while it was analysed"
        seen = [image.instance_id for image in claim.instances]
        if (
            is_wanted
            and connection.execute(select(instance.c.id).where(instance.c.id.in_(seen), _IS_REJECTED).limit(1)).first()
        ):
            is_wanted, why_not = False, "an image was rejected while it was analysed"
        analysis_id = connection.execute(
            insert(analysis).values(
                study_id=claim.study_id, revision=claim.revision, model_name=name, model_version=version,
                bundle_hash=bundle_hash, analysed_at=now,
            )
        ).inserted_primary_key[0]  # type: ignore[index]  # fmt: skip
        for result in images:
            connection.execute(
                update(instance)
                .where(instance.c.id == result.instance_id, _was_there(claim), ~_IS_REJECTED)
                .values(
                    status=result.status,
                    reason=result.reason,
                    body_part=result.body_part,
                    body_part_source=result.body_part_source,
                    laterality=result.laterality,
                    laterality_source=result.laterality_source,
                    abnormal_probability=result.abnormal_probability,
                    member_probabilities=json.dumps(result.member_probabilities)
                    if result.member_probabilities
                    else None,
                )
            )
        for row in findings:
            connection.execute(
                insert(finding).values(
                    analysis_id=analysis_id, body_part=row.body_part, laterality=row.laterality, status=row.status,
                    finding=row.finding, abnormal_probability=row.abnormal_probability, threshold=row.threshold,
                    image_count=row.image_count, images_analysed=row.images_analysed, reason=row.reason,
                )
            )  # fmt: skip
        _cancel_superseded(connection, claim.study_id, {uid for made in reports for uid in made.replaces})
        for made in reports:
            report_id = connection.execute(
                insert(report).values(
                    analysis_id=analysis_id, object=made.object, sop_class_uid=made.sop_class_uid,
                    sop_instance_uid=made.sop_instance_uid, series_instance_uid=made.series_instance_uid,
                    path=made.path, created_at=now,
                )
            ).inserted_primary_key[0]  # type: ignore[index]  # fmt: skip
            for target, (wanted, hours) in made.deliveries.items():
                status = wanted if is_wanted else "cancelled"
                connection.execute(
                    insert(delivery).values(
                        report_id=report_id, destination=target, status=status,
                        attempts=int(made.is_resend and status == "waiting"),
                        next_attempt_at=now if status == "waiting" else None,
                        deliver_before=deadline(received_at, hours),
                        last_error=None if is_wanted else why_not,
                    )
                )  # fmt: skip
            for target, why in made.not_wanted.items():
                connection.execute(
                    insert(delivery).values(
                        report_id=report_id, destination=target, status="cancelled", attempts=0, last_error=why
                    )
                )
            if made.is_resend:
                add_event(
                    connection, now, "object found without a row", study_instance_uid=claim.study_instance_uid,
                    sop_instance_uid=made.sop_instance_uid,
                    detail=f"revision {claim.revision}: its analysis was in hand",
                )  # fmt: skip
        if is_wanted and any(row.status == "analysed" and row.body_part for row in findings):
            for each in further:
                connection.execute(
                    insert(further_analysis).values(
                        study_id=claim.study_id, revision=claim.revision, model_name=each[0], model_version=each[1],
                        bundle_hash=each[2], state="waiting", deaths=0,
                    )
                )  # fmt: skip
        not_wanted = {target: why for made in reports for target, why in made.not_wanted.items()}
        for target, why in not_wanted.items():
            add_event(
                connection, now, "not delivered", study_instance_uid=claim.study_instance_uid,
                detail=f"revision {claim.revision}: {target}: {why}",
            )  # fmt: skip
        _finish(connection, claim)
        detail = "; ".join(
            f"{row.body_part or 'no body part'}{' ' + row.laterality if row.laterality else ''}: "
            f"{row.finding or row.status}"
            for row in findings
        )
        add_event(
            connection, now, "analysed", study_instance_uid=claim.study_instance_uid,
            detail=f"revision {claim.revision}: {detail}",
        )  # fmt: skip


def _finish(
    connection: Connection, claim: Claim, state: Literal["analysed", "failed"] = "analysed", reason: str | None = None
) -> None:
    """Close the claim; what came in meanwhile keeps the study open, and a person's word stands."""
    seen = [image.instance_id for image in claim.instances if image.path]
    came = and_(
        instance.c.study_id == claim.study_id,
        instance.c.is_current,
        instance.c.status == "received",
        instance.c.id.not_in(seen),
    )
    # Revised, rejected or moved to another study: the finding rests on what is there no more.
    went = and_(
        instance.c.id.in_(seen), or_(and_(~instance.c.is_current, instance.c.status != "ignored"), _IS_REJECTED)
    )
    missed = connection.execute(
        select(func.min(case((came, instance.c.received_at), else_=study.c.last_received_at)))
        .select_from(instance)
        .join(study, study.c.id == claim.study_id)
        .where(or_(came, went))
    ).scalar()
    connection.execute(update(study).where(study.c.id == claim.study_id).values(waiting_since=missed, **UNTRIED))
    if missed is None:
        connection.execute(
            update(study)
            .where(study.c.id == claim.study_id, study.c.state.in_(("queued", "receiving")))
            .values(state=state, reason=reason)
        )


def _was_there(claim: Claim) -> ColumnElement[bool]:
    """Not an instance whose file was lost when it was claimed and has come again since: it waits for its turn."""
    lost = [image.instance_id for image in claim.instances if not image.path]
    return or_(instance.c.id.not_in(lost), instance.c.path.is_(None))


def fail_study(store: Store, claim: Claim, reason: str) -> None:
    """Park a study that cannot be analysed; `retry` tries it again."""
    with store.write() as connection:
        connection.execute(
            update(instance)
            .where(
                instance.c.id.in_([image.instance_id for image in claim.instances]),
                instance.c.status == "received",
                _was_there(claim),
            )
            .values(status="failed", reason=reason)
        )
        _finish(connection, claim, "failed", reason)
        add_event(connection, store.now(), "failed", study_instance_uid=claim.study_instance_uid, detail=reason)


def _cancel_superseded(connection: Connection, study_id: int, named: Collection[str]) -> None:
    """Of earlier revisions nothing goes any more, but for what was offered and may be there: it keeps its turn.

    So does a report that a new one *named* while it was being offered, which came to nothing: it goes first.
    """
    reports = select(report.c.id).join(analysis).where(analysis.c.study_id == study_id)
    never_offered = (delivery.c.status == "waiting") & (delivery.c.attempts == 0)
    if named:
        is_named = report.c.sop_instance_uid.in_(named)
        never_offered &= delivery.c.report_id.not_in(select(report.c.id).where(is_named))
    is_left = delivery.c.status.in_(("held", "parked")) | never_offered
    cancel_superseded(connection, delivery.c.report_id.in_(reports) & is_left)
