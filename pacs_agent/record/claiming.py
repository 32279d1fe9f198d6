"""The queue of studies: complete or not, claimed with a lease, given back after a death."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from sqlalchemy import ColumnElement, Connection, and_, func, or_, select, update

from pacs_agent.record.store import Store, add_event
from pacs_agent.record.tables import analysis, instance, study
from pacs_agent.record.times import to_text
from pacs_agent.study.instance import Instance

DEATHS_ALLOWED = 2  # while alone; then the study is `failed`
READS_ALLOWED = 4
UNTRIED: dict[str, Any] = {"claimed_until": None, "alone": False, "deaths": 0, "reads": 0}
"""What a study is that nobody has in hand, and that no try of an analysis counts against."""


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
    revision: int
    alone: bool
    instances: tuple[ClaimedInstance, ...]


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
            tell_receipts(connection, store.now(), receiving.study_id, receiving.study_instance_uid)
            add_event(
                connection, store.now(), "complete", study_instance_uid=receiving.study_instance_uid, detail=reason
            )
        return bool(changed)


def tell_receipts(connection: Connection, at: str, study_id: int, study_instance_uid: str) -> None:
    """Who sent a study so far, whence, when and how many instances: an event for each, of all that was ever received.

    Here and not with each instance, which it would cost a row; and of all, for no count could then be missed.
    """
    of = instance.c
    rows = connection.execute(
        select(
            of.calling_ae_title, of.calling_address, func.count(), func.min(of.received_at), func.max(of.received_at)
        )
        .where(of.study_id == study_id)
        .group_by(of.calling_ae_title, of.calling_address)
        .order_by(func.min(of.id))
    )
    for calling_ae_title, address, count, first, last in rows:
        whence = f"{calling_ae_title} at {address}" if address else calling_ae_title
        add_event(
            connection, at, "received", study_instance_uid=study_instance_uid,
            detail=f"from {whence}: {count} so far, {first} to {last}",
        )  # fmt: skip


def has_queued(store: Store) -> bool:
    """Whether any complete study is free to be claimed."""
    free = or_(study.c.claimed_until.is_(None), study.c.claimed_until < store.now())
    return bool(store.rows(select(study.c.id).where(study.c.state == "queued", free).limit(1)))


def claim_studies(store: Store, limit: int, lease_s: float) -> list[Claim]:
    """Take complete studies, oldest first; a study that must be alone is taken alone."""
    with store.write() as connection:
        now = store.clock()
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
            .values(
                claimed_until=to_text(now + timedelta(seconds=lease_s)),
                claimed_through=select(func.max(instance.c.id))
                .where(instance.c.study_id == study.c.id)
                .scalar_subquery(),
            )
        )
        return [
            Claim(
                row.id, row.study_instance_uid, row.calling_ae_title,
                last_revision(connection, row.id) + 1, row.alone,
                tuple(
                    ClaimedInstance(image.id, image.path, Instance.from_json(image.facts), image.received_at)
                    for image in connection.execute(
                        select(instance.c.id, instance.c.path, instance.c.facts, instance.c.received_at)
                        .where(instance.c.study_id == row.id, instance.c.is_current, instance.c.status != "rejected")
                        .order_by(instance.c.id)
                    )
                ),
            )
            for row in rows
        ]  # fmt: skip


def last_revision(connection: Connection, study_id: int) -> int:
    """The latest that is recorded; 0 where none is."""
    found = connection.execute(select(func.max(analysis.c.revision)).where(analysis.c.study_id == study_id)).scalar()
    return int(found or 0)


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


def put_off(store: Store, claim: Claim, reason: str, pause_s: float) -> bool:
    """A study whose files the disk does not give back waits, and goes after the others, alone.

    Each time it waits for twice as long. Returns whether it has had all the tries that it is allowed.
    """
    with store.write() as connection:
        tries = connection.execute(select(study.c.reads).where(study.c.id == claim.study_id)).scalar_one() + 1
        until = to_text(store.clock() + timedelta(seconds=pause_s * 2 ** (tries - 1)))
        connection.execute(
            update(study)
            .where(study.c.id == claim.study_id)
            .values(alone=True, reads=tries, claimed_until=until if tries < READS_ALLOWED else None)
        )
        add_event(
            connection, store.now(), "instances cannot be read", study_instance_uid=claim.study_instance_uid,
            detail=reason,
        )  # fmt: skip
        return bool(tries >= READS_ALLOWED)


def release_claims(store: Store, claims: Iterable[Claim] | None = None) -> None:
    """Give claims back untouched; all of them at start, when nobody else can hold one."""
    condition: ColumnElement[bool] = study.c.claimed_until.is_not(None)
    if claims is not None:
        condition = and_(condition, study.c.id.in_([claim.study_id for claim in claims]))
    with store.write() as connection:
        connection.execute(update(study).where(condition).values(claimed_until=None))
