"""What the inbox writes: instances and the studies they belong to."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Connection, func, insert, select, update

from pacs_agent.record.store import Store, add_event
from pacs_agent.record.tables import instance, study
from pacs_agent.study.eligibility import Eligibility
from pacs_agent.study.instance import Instance

LOST = "its file is missing from the inbox"
IDENTITY = ("patient_id", "issuer_of_patient_id", "patient_birth_date", "accession_number")


@dataclass(frozen=True, slots=True)
class Receipt:
    """An instance that lies safely in the inbox and wants its row."""

    facts: Instance
    eligibility: Eligibility
    path: str
    sha256: str
    size_bytes: int
    calling_ae_title: str
    received_at: str


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """The current revision of a SOP Instance UID."""

    facts: Instance
    path: str | None
    sha256: str


def current_instance(store: Store, sop_instance_uid: str) -> StoredInstance | None:
    """The revision that counts, if the instance was ever received."""
    rows = store.rows(
        select(instance.c.facts, instance.c.path, instance.c.sha256).where(
            instance.c.sop_instance_uid == sop_instance_uid, instance.c.is_current
        )
    )
    return StoredInstance(Instance.from_json(rows[0].facts), rows[0].path, rows[0].sha256) if rows else None


def accept(store: Store, receipt: Receipt) -> Literal["new", "revision", "duplicate"]:
    """Write an instance's row and move its study; durable on return."""
    facts = receipt.facts
    with store.write() as connection:
        earlier = connection.execute(
            select(instance.c.id, instance.c.sha256, instance.c.revision, instance.c.path, instance.c.reason)
            .where(instance.c.sop_instance_uid == facts.sop_instance_uid)
            .order_by(instance.c.revision)
        ).all()
        same = next((row for row in earlier if row.sha256 == receipt.sha256), None)
        if same is not None:
            if same.path is None:
                _give_back(connection, same.id, receipt, was_lost=same.reason == LOST)
            return "duplicate"
        study_id = _study_of(connection, receipt)
        if earlier:
            connection.execute(
                update(instance).where(instance.c.sop_instance_uid == facts.sop_instance_uid).values(is_current=False)
            )
        connection.execute(
            insert(instance).values(
                study_id=study_id,
                sop_instance_uid=facts.sop_instance_uid,
                revision=len(earlier) + 1,
                is_current=True,
                series_instance_uid=facts.series_instance_uid,
                sop_class_uid=facts.sop_class_uid,
                transfer_syntax_uid=facts.transfer_syntax_uid,
                path=receipt.path,
                sha256=receipt.sha256,
                size_bytes=receipt.size_bytes,
                facts=facts.to_json(),
                calling_ae_title=receipt.calling_ae_title,
                received_at=receipt.received_at,
                status=receipt.eligibility.status,
                reason=receipt.eligibility.reason,
            )
        )
        if earlier:
            add_event(
                connection,
                receipt.received_at,
                "instance revised",
                study_instance_uid=facts.study_instance_uid,
                sop_instance_uid=facts.sop_instance_uid,
                detail=f"revision {len(earlier) + 1}: other pixels, identity or decision-relevant elements",
            )
        _settle_identity(connection, study_id, receipt)
        return "revision" if earlier else "new"


def _give_back(connection: Connection, instance_id: int, receipt: Receipt, *, was_lost: bool) -> None:
    """An instance whose file was gone came again: its row names the file, and where it was lost it waits anew."""
    values: dict[str, Any] = {"path": receipt.path}
    if was_lost:
        values |= {"status": receipt.eligibility.status, "reason": receipt.eligibility.reason}
        _study_of(connection, receipt)
    connection.execute(update(instance).where(instance.c.id == instance_id).values(**values))


def _study_of(connection: Connection, receipt: Receipt) -> int:
    """The study's row, made or moved on: an eligible instance opens it again."""
    facts, now = receipt.facts, receipt.received_at
    row = connection.execute(select(study).where(study.c.study_instance_uid == facts.study_instance_uid)).first()
    if row is None:
        add_event(
            connection, now, "first instance received", study_instance_uid=facts.study_instance_uid,
            detail=f"from {receipt.calling_ae_title}",
        )  # fmt: skip
        return int(
            connection.execute(
                insert(study).values(
                    study_instance_uid=facts.study_instance_uid,
                    state="receiving",
                    calling_ae_title=receipt.calling_ae_title,
                    patient_id=facts.patient_id,
                    issuer_of_patient_id=facts.issuer_of_patient_id,
                    patient_birth_date=facts.patient_birth_date,
                    accession_number=facts.accession_number,
                    study_date=facts.study_date,
                    station_name=facts.station_name,
                    manufacturer=facts.manufacturer,
                    manufacturer_model_name=facts.manufacturer_model_name,
                    received_at=now,
                    last_received_at=now,
                    waiting_since=now,
                )
            ).inserted_primary_key[0]  # type: ignore[index]
        )
    values: dict[str, Any] = {"last_received_at": max(now, row.last_received_at)}
    # What is not analysed (our own report coming back from the PACS above all) must not open a finished study again.
    if receipt.eligibility.is_eligible:
        values["waiting_since"] = row.waiting_since or now
        if row.state in ("queued", "analysed", "failed"):
            values["state"] = "receiving"
            values["reason"] = None
    connection.execute(update(study).where(study.c.id == row.id).values(**values))
    return int(row.id)


def _settle_identity(connection: Connection, study_id: int, receipt: Receipt) -> None:
    """Hold a study whose instances disagree on whose it is; an absent value says nothing."""
    row = connection.execute(select(study).where(study.c.id == study_id)).one()
    if row.state == "receiving" and all(getattr(row, name) == getattr(receipt.facts, name) for name in IDENTITY):
        return  # as nearly always; what agreed before still does
    columns = [func.json_extract(instance.c.facts, f"$.{name}").label(name) for name in IDENTITY]
    rows = connection.execute(
        select(*columns).distinct().where(instance.c.study_id == study_id, instance.c.is_current)
    ).all()
    said = {name: {value for row in rows if (value := getattr(row, name))} for name in IDENTITY}
    differing = [name for name, values in said.items() if len(values) > 1]
    if not differing:
        agreed = {name: next(iter(values), "") for name, values in said.items()}
        state = {"state": "receiving", "reason": None} if row.state == "held" and not row.accepted else {}
        connection.execute(update(study).where(study.c.id == study_id).values(**agreed, **state))
    elif not row.accepted and row.state not in ("held", "withdrawn"):
        reason = "instances disagree on " + ", ".join(name.replace("_", " ") for name in differing)
        connection.execute(update(study).where(study.c.id == study_id).values(state="held", reason=reason))
        add_event(connection, receipt.received_at, "held", study_instance_uid=row.study_instance_uid, detail=reason)


def known_paths(store: Store) -> dict[str, int]:
    """Every path that a row names, with the row's id: for the reconciliation at start."""
    return {row.path: row.id for row in store.rows(select(instance.c.path, instance.c.id)) if row.path}


def mark_lost(store: Store, instance_ids: Iterable[int]) -> None:
    """Rows whose file is gone: said so, never silently."""
    with store.write() as connection:
        for instance_id in instance_ids:
            row = connection.execute(
                select(instance.c.sop_instance_uid, study.c.study_instance_uid)
                .join(study)
                .where(instance.c.id == instance_id)
            ).one()
            connection.execute(
                update(instance).where(instance.c.id == instance_id).values(path=None, status="failed", reason=LOST)
            )
            add_event(
                connection, store.now(), "instance file missing",
                study_instance_uid=row.study_instance_uid, sop_instance_uid=row.sop_instance_uid,
            )  # fmt: skip
