"""What completeness and the analysis write: the queue of studies, claims with leases, analyses and findings."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Literal

from sqlalchemy import ColumnElement, Connection, and_, case, func, insert, or_, select, update

from pacs_agent.record.delivering import cancel_superseded
from pacs_agent.record.store import Store, add_event
from pacs_agent.record.tables import analysis, delivery, destination, finding, instance, report, study
from pacs_agent.record.times import to_text
from pacs_agent.study.instance import Instance

InstanceStatus = Literal["analysed", "unsupported", "ignored", "failed"]

DEATHS_ALLOWED = 2  # while alone; then the study is `failed`


@dataclass(frozen=True, slots=True)
class ReceivingStudy:
    """A study that is not complete yet."""

    study_id: int
    study_instance_uid: str
    calling_ae_title: str
    last_received_at: str
    waiting_since: str


@dataclass(frozen=True, slots=True)
class ClaimedInstance:
    """The current revision of an instance of a claimed study; `path` is relative to the data directory."""

    instance_id: int
    path: str | None
    facts: Instance
    received_at: str


@dataclass(frozen=True, slots=True)
class Claim:
    """A complete study in hand, until its lease ends."""

    study_id: int
    study_instance_uid: str
    calling_ae_title: str
    received_at: str
    revision: int
    alone: bool
    instances: tuple[ClaimedInstance, ...]


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
    # destination → (status, deliver_before): where it goes, and whether it waits or is held
    deliveries: dict[str, tuple[Literal["waiting", "held"], str | None]]


@dataclass(frozen=True, slots=True)
class PredecessorRow:
    """An earlier report of a study."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


def receiving_studies(store: Store) -> list[ReceivingStudy]:
    """Every study that waits for its completeness."""
    rows = store.rows(
        select(
            study.c.id, study.c.study_instance_uid, study.c.calling_ae_title, study.c.last_received_at,
            func.coalesce(study.c.waiting_since, study.c.last_received_at),
        ).where(study.c.state == "receiving")
    )  # fmt: skip
    return [ReceivingStudy(*row) for row in rows]


def queue_study(store: Store, receiving: ReceivingStudy, reason: str) -> bool:
    """Declare a study complete, unless an instance came in meanwhile."""
    with store.write() as connection:
        changed = connection.execute(
            update(study)
            .where(
                study.c.id == receiving.study_id,
                study.c.state == "receiving",
                study.c.last_received_at == receiving.last_received_at,
            )
            .values(state="queued")
        ).rowcount
        if changed:
            add_event(
                connection, store.now(), "complete", study_instance_uid=receiving.study_instance_uid, detail=reason
            )
        return bool(changed)


def has_queued(store: Store) -> bool:
    """Whether any complete study is free to be claimed."""
    free = or_(study.c.claimed_until.is_(None), study.c.claimed_until < store.now())
    return bool(store.rows(select(study.c.id).where(study.c.state == "queued", free).limit(1)))


def claim_studies(store: Store, limit: int, lease_s: float) -> list[Claim]:
    """Take complete studies, oldest first; a study that must be alone is taken alone."""
    now = store.clock()
    with store.write() as connection:
        rows = connection.execute(
            select(study)
            .where(
                study.c.state == "queued",
                or_(study.c.claimed_until.is_(None), study.c.claimed_until < to_text(now)),
            )
            .order_by(study.c.alone, study.c.last_received_at)
            .limit(limit)
        ).all()
        # Ordered so that a lonely one is first only where all are.
        rows = rows[:1] if rows and rows[0].alone else [row for row in rows if not row.alone]
        connection.execute(
            update(study)
            .where(study.c.id.in_([row.id for row in rows]))
            .values(claimed_until=to_text(now + timedelta(seconds=lease_s)))
        )
        return [
            Claim(
                row.id, row.study_instance_uid, row.calling_ae_title, row.received_at,
                _last_revision(connection, row.id) + 1, row.alone,
                tuple(
                    ClaimedInstance(image.id, image.path, Instance.from_json(image.facts), image.received_at)
                    for image in connection.execute(
                        select(instance.c.id, instance.c.path, instance.c.facts, instance.c.received_at)
                        .where(instance.c.study_id == row.id, instance.c.is_current)
                        .order_by(instance.c.id)
                    )
                ),
            )
            for row in rows
        ]  # fmt: skip


def _last_revision(connection: Connection, study_id: int) -> int:
    found = connection.execute(select(func.max(analysis.c.revision)).where(analysis.c.study_id == study_id)).scalar()
    return int(found or 0)


def predecessors(store: Store, study_id: int) -> list[PredecessorRow]:
    """The study's reports that a new one replaces, oldest first.

    At each destination the latest that it has, and what was offered since and may be there too. What was never offered
    will not be: the new report supersedes it, and while the study is claimed no sender takes it.
    """
    newer, of, by = delivery.alias(), report.alias(), analysis.alias()
    later = (
        select(of.c.id)
        .join(by, by.c.id == of.c.analysis_id)
        .where(by.c.study_id == study_id, by.c.revision > analysis.c.revision)
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
    rows = store.rows(
        select(report.c.sop_class_uid, report.c.sop_instance_uid, report.c.series_instance_uid)
        .join(analysis, analysis.c.id == report.c.analysis_id)
        .join(delivery, delivery.c.report_id == report.c.id)
        .where(analysis.c.study_id == study_id, delivery.c.attempts > 0, ~is_replaced)
        .group_by(report.c.id)
        .order_by(report.c.id)
    )
    return [PredecessorRow(*row) for row in rows]


def record_analysis(
    store: Store,
    claim: Claim,
    *,
    model: tuple[str, str, str] | None,
    images: Sequence[InstanceResult],
    findings: Sequence[FindingRow],
    reports: Sequence[ReportRow],
) -> None:
    """Write a whole revision in one transaction and let the study go.

    Args:
        claim: the study as claimed.
        model: name, version and bundle hash, where a model ran.
        images: one result for each claimed instance.
        findings: at least one.
        reports: the objects made, with their destinations.
    """
    name, version, bundle_hash = model or (None, None, None)
    with store.write() as connection:
        now = store.now()
        state = connection.execute(select(study.c.state).where(study.c.id == claim.study_id)).scalar_one()
        # Withdrawn, or held for its identity, while the analysis ran: recorded all the same, but never sent.
        is_wanted = state in ("queued", "receiving")
        analysis_id = connection.execute(
            insert(analysis).values(
                study_id=claim.study_id, revision=claim.revision, model_name=name, model_version=version,
                bundle_hash=bundle_hash, analysed_at=now,
            )
        ).inserted_primary_key[0]  # type: ignore[index]  # fmt: skip
        for result in images:
            connection.execute(
                update(instance)
                .where(instance.c.id == result.instance_id, _was_there(claim))
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
        _cancel_superseded(connection, claim.study_id)
        for made in reports:
            report_id = connection.execute(
                insert(report).values(
                    analysis_id=analysis_id, object=made.object, sop_class_uid=made.sop_class_uid,
                    sop_instance_uid=made.sop_instance_uid, series_instance_uid=made.series_instance_uid,
                    path=made.path, created_at=now,
                )
            ).inserted_primary_key[0]  # type: ignore[index]  # fmt: skip
            for target, (wanted, deliver_before) in made.deliveries.items():
                status = wanted if is_wanted else "cancelled"
                connection.execute(
                    insert(delivery).values(
                        report_id=report_id, destination=target, status=status, attempts=0,
                        next_attempt_at=now if status == "waiting" else None, deliver_before=deliver_before,
                    )
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
    # Revised or moved to another study: the finding rests on what is there no more.
    went = and_(instance.c.id.in_(seen), ~instance.c.is_current, instance.c.status != "ignored")
    missed = connection.execute(
        select(func.min(case((came, instance.c.received_at), else_=study.c.last_received_at)))
        .select_from(instance)
        .join(study, study.c.id == claim.study_id)
        .where(or_(came, went))
    ).scalar()
    connection.execute(
        update(study)
        .where(study.c.id == claim.study_id)
        .values(claimed_until=None, alone=False, deaths=0, waiting_since=missed)
    )
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


def worker_died(store: Store, claims: Iterable[Claim], reason: str) -> list[Claim]:
    """After a death of the analysis process: its studies go back, each to be tried alone.

    Only a death while alone counts. Returns the claims that have had all the deaths they are allowed.
    """
    spent = []
    with store.write() as connection:
        for claim in claims:
            deaths = (study.c.deaths + 1) if claim.alone else study.c.deaths
            connection.execute(
                update(study).where(study.c.id == claim.study_id).values(alone=True, deaths=deaths, claimed_until=None)
            )
            counted = connection.execute(select(study.c.deaths).where(study.c.id == claim.study_id)).scalar_one()
            add_event(
                connection, store.now(), "analysis process died", study_instance_uid=claim.study_instance_uid,
                detail=reason,
            )  # fmt: skip
            if counted >= DEATHS_ALLOWED:
                spent.append(claim)
    return spent


def release_claims(store: Store, claims: Iterable[Claim] | None = None) -> None:
    """Give claims back untouched; all of them at start, when nobody else can hold one."""
    condition: ColumnElement[bool] = study.c.claimed_until.is_not(None)
    if claims is not None:
        condition = and_(condition, study.c.id.in_([claim.study_id for claim in claims]))
    with store.write() as connection:
        connection.execute(update(study).where(condition).values(claimed_until=None))


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
        if row.state in ("receiving", "queued"):
            return f"is {row.state}: it will be analysed without this"
        removed = connection.execute(
            select(func.count()).where(
                instance.c.study_id == row.id, instance.c.is_current, instance.c.path.is_(None),
                instance.c.status != "ignored",
            )
        ).scalar_one()  # fmt: skip
        if removed:
            return f"lacks {removed} of its instances, removed by retention or lost: send it again"
        _queue_again(connection, store.now(), row.id, study_instance_uid)
        return None


def _queue_again(connection: Connection, at: str, study_id: int, study_instance_uid: str) -> None:
    connection.execute(
        update(study)
        .where(study.c.id == study_id)
        .values(state="queued", reason=None, claimed_until=None, alone=False, deaths=0)
    )
    add_event(connection, at, "analyse again", study_instance_uid=study_instance_uid)


def _cancel_superseded(connection: Connection, study_id: int) -> None:
    """Of earlier revisions nothing goes any more, but for what was offered and may be there: it keeps its turn."""
    reports = select(report.c.id).join(analysis).where(analysis.c.study_id == study_id)
    is_left = delivery.c.status.in_(("held", "parked")) | (
        (delivery.c.status == "waiting") & (delivery.c.attempts == 0)
    )
    cancel_superseded(connection, delivery.c.report_id.in_(reports) & is_left)


def settle(store: Store, study_instance_uid: str, decision: Literal["accept", "withdraw"], reason: str | None) -> bool:
    """A person's word on a study: let a held one through, or take a result back (waiting deliveries cancelled)."""
    with store.write() as connection:
        row = connection.execute(select(study).where(study.c.study_instance_uid == study_instance_uid)).first()
        if row is None or (decision == "accept" and row.state != "held"):
            return False
        if decision == "accept":
            values = {"state": "receiving", "reason": None, "accepted": True}
        else:
            values = {"state": "withdrawn", "reason": reason, "claimed_until": None}
            reports = select(report.c.id).join(analysis).where(analysis.c.study_id == row.id)
            connection.execute(
                update(delivery)
                .where(delivery.c.report_id.in_(reports), delivery.c.status.in_(("waiting", "held", "parked")))
                .values(status="cancelled", next_attempt_at=None)
            )
        connection.execute(update(study).where(study.c.id == row.id).values(**values))
        add_event(
            connection, store.now(), f"{decision}ed" if decision == "accept" else "withdrawn",
            study_instance_uid=study_instance_uid, detail=reason,
        )  # fmt: skip
        return True


def destinations_since(store: Store, names: Sequence[str]) -> dict[str, str]:
    """When each destination was first configured, noting the new ones now: it gets what is received from then on."""
    with store.write() as connection:
        known = {row.name: row.added_at for row in connection.execute(select(destination))}
        for name in names:
            if name not in known:
                known[name] = store.now()
                connection.execute(insert(destination).values(name=name, added_at=known[name]))
        return known
