"""What the inbox writes: instances and the studies they belong to.

Every instance on its way in passes here, so `Reception` speaks constant SQL on the driver's own connection: SQLAlchemy
would cost several times what SQLite does.
"""

import json
import sqlite3
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import select, update
from sqlalchemy.exc import OperationalError, SQLAlchemyError

from pacs_agent.errors import DatabaseError
from pacs_agent.record.store import Store, add_event
from pacs_agent.record.tables import instance, study
from pacs_agent.study.eligibility import Eligibility
from pacs_agent.study.instance import REJECTIONS, Instance

Outcome = Literal["new", "revision", "duplicate"]
LOST = "its file is missing from the inbox"
WITHDRAWN = "the study was withdrawn"
IDENTITY = ("patient_id", "issuer_of_patient_id", "patient_birth_date", "accession_number")
_FACTS = (
    *IDENTITY, "sop_instance_uid", "sop_class_uid", "series_instance_uid", "study_instance_uid",
    "transfer_syntax_uid", "study_date", "station_name", "manufacturer", "manufacturer_model_name",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Receipt:
    """An instance that lies safely in the inbox and wants its row; `is_adopted`: it was found there at start."""

    facts: Instance
    eligibility: Eligibility
    path: str
    sha256: str
    size_bytes: int
    calling_ae_title: str
    received_at: str
    is_adopted: bool = False
    calling_address: str | None = None


@dataclass(slots=True)
class _Waiting:
    """A receipt on its way into the record."""

    receipt: Receipt
    outcome: Outcome | None = None
    error: Exception | None = None
    is_done: bool = False


@dataclass(frozen=True, slots=True)
class StoredInstance:
    """The current revision of a SOP Instance UID; `is_only`: it never had another."""

    facts: Instance
    path: str | None
    sha256: str
    is_only: bool


_CURRENT = """
SELECT facts, path, sha256, (SELECT count(*) FROM instance WHERE sop_instance_uid = i.sop_instance_uid) AS revisions
FROM instance i WHERE sop_instance_uid = ? AND is_current
"""
_REVISIONS = """
SELECT i.id, i.study_id, s.study_instance_uid, i.sha256, i.revision, i.path, i.status, i.reason, i.is_current
FROM instance i JOIN study s ON s.id = i.study_id WHERE i.sop_instance_uid = ?
"""
_SUPERSEDE = "UPDATE instance SET is_current = 0 WHERE sop_instance_uid = ?"
_ADD_INSTANCE = """
INSERT INTO instance (study_id, sop_instance_uid, revision, is_current, series_instance_uid, sop_class_uid,
  transfer_syntax_uid, path, sha256, size_bytes, facts, calling_ae_title, received_at, status, reason, calling_address)
VALUES (:study_id, :sop_instance_uid, :revision, 1, :series_instance_uid, :sop_class_uid,
  :transfer_syntax_uid, :path, :sha256, :size_bytes, :json, :calling_ae_title, :received_at, :status, :reason,
  :calling_address)
"""
# What an analysis said of it is said no longer: it waits anew.
_REVIVE = """
UPDATE instance SET is_current = 1, path = :path, calling_ae_title = :calling_ae_title, received_at = :received_at,
  calling_address = :calling_address,
  status = :status, reason = :reason, body_part = NULL, body_part_source = NULL, laterality = NULL,
  laterality_source = NULL, abnormal_probability = NULL, member_probabilities = NULL
WHERE id = :id
"""
_GIVE_BACK = "UPDATE instance SET path = :path WHERE id = :id"
_GIVE_BACK_LOST = "UPDATE instance SET path = :path, status = :status, reason = :reason WHERE id = :id"
# What is not analysed (our own report coming back from the PACS above all) must not open a finished study again.
_MOVE_STUDY = """
UPDATE study SET last_received_at = iif(
    :is_eligible AND (state IN ('analysed', 'failed') OR emptied), :received_at, max(last_received_at, :received_at)
  ),
  waiting_since = iif(:is_eligible, coalesce(waiting_since, :received_at), waiting_since),
  state = iif(:is_eligible AND (state IN ('queued', 'analysed', 'failed') OR emptied), 'receiving', state),
  reason = iif(:is_eligible AND (state IN ('queued', 'analysed', 'failed') OR emptied), NULL, reason),
  emptied = iif(:is_eligible, 0, emptied)
WHERE study_instance_uid = :study_instance_uid
"""
# An analysis spoke of what is taken away: it is said no longer, whatever comes instead.
_REOPEN_STUDY = """
UPDATE study SET last_received_at = max(last_received_at, :received_at),
  waiting_since = coalesce(waiting_since, :received_at),
  state = iif(state IN ('queued', 'analysed', 'failed'), 'receiving', state),
  reason = iif(state IN ('queued', 'analysed', 'failed'), NULL, reason)
WHERE id = :id AND state <> 'withdrawn'
"""
_ADD_STUDY = """
INSERT INTO study (study_instance_uid, state, accepted, alone, deaths, calling_ae_title, patient_id,
  issuer_of_patient_id, patient_birth_date, accession_number, study_date, station_name, manufacturer,
  manufacturer_model_name, received_at, last_received_at, waiting_since)
VALUES (:study_instance_uid, 'receiving', 0, 0, 0, :calling_ae_title, :patient_id,
  :issuer_of_patient_id, :patient_birth_date, :accession_number, :study_date, :station_name, :manufacturer,
  :manufacturer_model_name, :received_at, :received_at, :received_at)
"""
_STUDY = "SELECT * FROM study WHERE study_instance_uid = ?"
_ADD_EVENT = "INSERT INTO event (at, event, study_instance_uid, sop_instance_uid, detail) VALUES (?, ?, ?, ?, ?)"
_ADD_REJECTION = "INSERT OR IGNORE INTO rejection VALUES (?, ?, ?, ?, ?)"
_REJECTED = "SELECT reason, note_uid FROM rejection WHERE sop_instance_uid = ? AND study_instance_uid = ?"
_TAKE_OUT = """
UPDATE instance SET status = 'rejected', reason = :reason, body_part = NULL, body_part_source = NULL,
  laterality = NULL, laterality_source = NULL, abnormal_probability = NULL, member_probabilities = NULL
WHERE study_id = :id AND is_current AND status IN ('received', 'analysed', 'unsupported', 'failed')
  AND sop_instance_uid IN (SELECT sop_instance_uid FROM rejection WHERE study_instance_uid = :study_instance_uid)
"""
_IS_OURS = "SELECT 1 FROM report WHERE sop_instance_uid = ?"
_LEFT = """
SELECT count(*) FROM instance WHERE study_id = ? AND is_current AND status IN ('received', 'analysed', 'failed')
"""
# Not by a person: `emptied` lets a further image, the retake above all, open it again.
_EMPTY_STUDY = """
UPDATE study SET state = 'withdrawn', emptied = 1, reason = ?, claimed_until = NULL, waiting_since = NULL WHERE id = ?
"""
_CANCEL = """
UPDATE delivery SET status = 'cancelled', next_attempt_at = NULL, last_error = ?
WHERE status IN ('waiting', 'held', 'parked') AND report_id IN (
  SELECT r.id FROM report r JOIN analysis a ON a.id = r.analysis_id WHERE a.study_id = ? AND r.object <> 'rejection'
)
"""
# What we made says whose it was then; it comes back from a PACS that forwards it.
_SAID = """
SELECT DISTINCT json_extract(facts, '$.patient_id') AS patient_id,
  json_extract(facts, '$.issuer_of_patient_id') AS issuer_of_patient_id,
  json_extract(facts, '$.patient_birth_date') AS patient_birth_date,
  json_extract(facts, '$.accession_number') AS accession_number
FROM instance WHERE study_id = ? AND is_current AND status <> 'rejected'
  AND NOT EXISTS (SELECT 1 FROM report r WHERE r.sop_instance_uid = instance.sop_instance_uid)
"""


def current_instance(store: Store, sop_instance_uid: str) -> StoredInstance | None:
    """The revision that counts, if the instance was ever received."""
    row = store.first(_CURRENT, (sop_instance_uid,))
    if row is None:
        return None
    return StoredInstance(Instance.from_json(row["facts"]), row["path"], row["sha256"], row["revisions"] == 1)


class Reception:
    """Receipts become rows. Those that come while another is being committed are committed together: one sync for all.

    Args:
        store: the record.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._changed = threading.Condition()
        self._waiting: list[_Waiting] = []
        self._is_writing = False

    def accept(self, receipt: Receipt) -> Outcome:
        """Write an instance's row and move its study, from any thread; durable on return.

        An earlier revision that is sent again counts again: the sender's latest word stands. One whose file was found
        at start does not, it gets its file back.

        Raises:
            SQLAlchemyError: the row, or the transaction that it shared, was not written.
        """
        mine = _Waiting(receipt)
        with self._changed:
            self._waiting.append(mine)
            while self._is_writing and not mine.is_done:
                self._changed.wait()
            batch: list[_Waiting] = []
            if not mine.is_done:
                self._is_writing = True
                batch, self._waiting = self._waiting, []
        if batch:
            try:
                self._write(batch)
            finally:
                with self._changed:
                    self._is_writing = False
                    for each in batch:
                        each.is_done = True
                    self._changed.notify_all()
        if mine.outcome is None:
            raise mine.error or DatabaseError("the transaction failed")
        return mine.outcome

    def _write(self, batch: list[_Waiting]) -> None:
        try:
            with self._store.write_plain() as connection:
                outcomes = [_accept(connection, each.receipt) for each in batch]
        except (SQLAlchemyError, ValueError) as error:
            # Locked or full is everybody's; anything else is one receipt's, and the others must not suffer.
            if len(batch) == 1 or isinstance(error, OperationalError):
                for each in batch:
                    each.error = error
            else:
                for each in batch:
                    self._write([each])
        else:
            for each, outcome in zip(batch, outcomes, strict=True):
                each.outcome = outcome


def _accept(connection: sqlite3.Connection, receipt: Receipt) -> Outcome:
    uid = receipt.facts.sop_instance_uid
    values = _values(receipt)
    earlier = connection.execute(_REVISIONS, (uid,)).fetchall()
    same = next((row for row in earlier if row["sha256"] == receipt.sha256), None)
    if same is not None and (same["is_current"] or receipt.is_adopted):
        if same["path"] is None:
            _give_back(connection, same["id"], receipt, values, was_lost=same["is_current"] and same["reason"] == LOST)
        return "duplicate"
    replaced = next((row for row in earlier if row["is_current"]), None)
    has_moved = replaced is not None and replaced["study_instance_uid"] != receipt.facts.study_instance_uid
    if replaced is not None and (has_moved or replaced["status"] != "ignored"):
        connection.execute(_REOPEN_STUDY, values | {"id": replaced["study_id"]})
    rejection = _rejection_of(connection, values)
    study_row = _study_of(connection, values)
    values |= _taken_out(study_row, receipt)
    if earlier:
        connection.execute(_SUPERSEDE, (uid,))
    if same is None:
        row = {"study_id": study_row["id"], "revision": len(earlier) + 1}
        connection.execute(_ADD_INSTANCE, values | row)
        detail = f"revision {len(earlier) + 1}: other pixels, identity or decision-relevant elements"
    else:
        connection.execute(_REVIVE, values | {"id": same["id"]})
        detail = f"revision {same['revision']} was sent again and counts again"
    if earlier:
        _tell(
            connection, receipt.received_at, "instance revised",
            study_instance_uid=receipt.facts.study_instance_uid, sop_instance_uid=uid, detail=detail,
        )  # fmt: skip
    if not _agrees(study_row, receipt.facts):
        _settle_identity(connection, study_row, receipt.received_at)
    if replaced is not None and has_moved:
        left = connection.execute(_STUDY, (replaced["study_instance_uid"],)).fetchone()
        _settle_identity(connection, left, receipt.received_at)
    if rejection is not None and study_row["state"] != "withdrawn":
        _tell_rejected(connection, study_row, receipt.received_at, 1, rejection["reason"], rejection["note_uid"])
        _withdraw_if_empty(connection, study_row, receipt.received_at, rejection["reason"])
    # Our own note comes back from a PACS that forwards it: it speaks of our objects, and has done its work.
    if receipt.facts.rejects and not connection.execute(_IS_OURS, (uid,)).fetchone():
        _reject(connection, receipt)
    return "revision" if earlier else "new"


def _rejection_of(connection: sqlite3.Connection, values: dict[str, Any]) -> sqlite3.Row | None:
    """What a note that came first says of an instance that is not ignored anyway; *values* then say it too."""
    known: sqlite3.Row | None = connection.execute(
        _REJECTED, (values["sop_instance_uid"], values["study_instance_uid"])
    ).fetchone()
    if known is None:
        return None
    values["is_eligible"] = False
    if values["status"] == "ignored":
        return None
    values |= {"status": "rejected", "reason": known["reason"]}
    return known


def _reject(connection: sqlite3.Connection, receipt: Receipt) -> None:
    """What a rejection note names is out, here or whenever it comes: its study is analysed without it, or withdrawn."""
    facts, at = receipt.facts, receipt.received_at
    reason = f"{REJECTIONS[facts.rejection]} (rejection note)"
    for study_instance_uid in dict.fromkeys(each.study_instance_uid for each in facts.rejects):
        connection.executemany(
            _ADD_REJECTION,
            [
                (each.sop_instance_uid, study_instance_uid, reason, facts.sop_instance_uid, at)
                for each in facts.rejects
                if each.study_instance_uid == study_instance_uid
            ],
        )
        row = connection.execute(_STUDY, (study_instance_uid,)).fetchone()
        if row is None:
            continue
        values = {"id": row["id"], "study_instance_uid": study_instance_uid, "reason": reason, "received_at": at}
        count = connection.execute(_TAKE_OUT, values).rowcount
        if not count:
            continue
        _tell_rejected(connection, row, at, count, reason, facts.sop_instance_uid)
        if row["state"] != "withdrawn" and not _withdraw_if_empty(connection, row, at, reason):
            connection.execute(_REOPEN_STUDY, values)
            _settle_identity(connection, connection.execute(_STUDY, (study_instance_uid,)).fetchone(), at)


def _tell_rejected(
    connection: sqlite3.Connection, row: sqlite3.Row, at: str, count: int, reason: str, note_uid: str
) -> None:
    _tell(
        connection, at, "images rejected", study_instance_uid=row["study_instance_uid"], sop_instance_uid=note_uid,
        detail=f"{count}: {reason}",
    )  # fmt: skip


def _withdraw_if_empty(connection: sqlite3.Connection, row: sqlite3.Row, at: str, reason: str) -> bool:
    """A study without an image that can be analysed is taken back; whether it was one."""
    if connection.execute(_LEFT, (row["id"],)).fetchone()[0]:
        return False
    why = f"every image that can be analysed was rejected: {reason}"
    connection.execute(_EMPTY_STUDY, (why, row["id"]))
    connection.execute(_CANCEL, (f"withdrawn: {why}", row["id"]))
    _tell(connection, at, "withdrawn", study_instance_uid=row["study_instance_uid"], detail=why)
    return True


def _values(receipt: Receipt) -> dict[str, Any]:
    """The parameters of every statement here: facts, and what the receipt adds."""
    facts = receipt.facts
    return {name: getattr(facts, name) for name in _FACTS} | {
        "json": facts.to_json(),
        "path": receipt.path,
        "sha256": receipt.sha256,
        "size_bytes": receipt.size_bytes,
        "calling_ae_title": receipt.calling_ae_title,
        "calling_address": receipt.calling_address,
        "received_at": receipt.received_at,
        "status": receipt.eligibility.status,
        "reason": receipt.eligibility.reason,
        "is_eligible": receipt.eligibility.is_eligible,
    }


def _taken_out(row: sqlite3.Row, receipt: Receipt) -> dict[str, str]:
    """What its row says instead where its study was withdrawn: it waits for no analysis."""
    is_out = row["state"] == "withdrawn" and receipt.eligibility.is_eligible
    return {"status": "rejected", "reason": WITHDRAWN} if is_out else {}


def _give_back(
    connection: sqlite3.Connection, instance_id: int, receipt: Receipt, values: dict[str, Any], *, was_lost: bool
) -> None:
    """The current revision's file was gone and came again: its row names it, and where it was lost it waits anew."""
    if was_lost:
        values |= _taken_out(_study_of(connection, values), receipt)
    connection.execute(_GIVE_BACK_LOST if was_lost else _GIVE_BACK, values | {"id": instance_id})


def _study_of(connection: sqlite3.Connection, values: dict[str, Any]) -> sqlite3.Row:
    """The study's row, made or moved on: an eligible instance opens it again."""
    uid = values["study_instance_uid"]
    if not connection.execute(_MOVE_STUDY, values).rowcount:
        connection.execute(_ADD_STUDY, values)
        _tell(
            connection, values["received_at"], "first instance received", study_instance_uid=uid,
            detail=_whence(values),
        )  # fmt: skip
    row: sqlite3.Row = connection.execute(_STUDY, (uid,)).fetchone()
    if row["state"] != "receiving":  # else its completion tells of it: `claiming.tell_receipts`
        _tell(
            connection, values["received_at"], "instance received", study_instance_uid=uid,
            sop_instance_uid=values["sop_instance_uid"], detail=_whence(values),
        )  # fmt: skip
    return row


def _whence(values: dict[str, Any]) -> str:
    address = values["calling_address"]
    return f"from {values['calling_ae_title']}" + (f" at {address}" if address else "")


def _agrees(row: sqlite3.Row, facts: Instance) -> bool:
    """Whether an instance says of its identity what its study says, as nearly always; what agreed before still does."""
    return row["state"] == "receiving" and all(row[name] == getattr(facts, name) for name in IDENTITY)


def _settle_identity(connection: sqlite3.Connection, row: sqlite3.Row, at: str) -> None:
    """Hold a study whose instances disagree on whose it is; an absent value says nothing.

    What a person accepted are the values that the study was held for: another one holds it again.
    """
    rows = connection.execute(_SAID, (row["id"],)).fetchall()
    said = {name: sorted({value for each in rows if (value := each[name])}) for name in IDENTITY}
    differing = {name: values for name, values in said.items() if len(values) > 1}
    known = json.loads(row["disagreement"] or "{}")
    is_settled = row["state"] == "withdrawn" or (
        differing == known if row["state"] == "held" else row["accepted"] and _is_within(differing, known)
    )
    changes: dict[str, Any] = {}
    if not differing:
        if rows:  # else its last instance was moved away, and whose it was is still so
            changes = {name: next(iter(values), "") for name, values in said.items()}
        if row["state"] == "held":
            changes |= {"state": "receiving", "reason": None}
    elif not is_settled:
        reason = "instances disagree on " + ", ".join(name.replace("_", " ") for name in differing)
        changes = {"state": "held", "reason": reason, "accepted": False, "disagreement": json.dumps(differing)}
        if row["state"] != "held":
            _tell(connection, at, "held", study_instance_uid=row["study_instance_uid"], detail=reason)
    if changes:
        assignments = ", ".join(f"{name} = :{name}" for name in changes)  # columns that are named above
        connection.execute(f"UPDATE study SET {assignments} WHERE id = :id", changes | {"id": row["id"]})  # noqa: S608


def _tell(
    connection: sqlite3.Connection,
    at: str,
    name: str,
    *,
    study_instance_uid: str,
    sop_instance_uid: str | None = None,
    detail: str,
) -> None:
    """`store.add_event`, here."""
    connection.execute(_ADD_EVENT, (at, name, study_instance_uid, sop_instance_uid, detail))


def _is_within(values: dict[str, list[str]], known: dict[str, list[str]]) -> bool:
    return all(set(each) <= set(known.get(name, ())) for name, each in values.items())


def is_named(store: Store, path: str) -> bool:
    """Whether a row names the file."""
    return bool(store.rows(select(instance.c.id).where(instance.c.path == path).limit(1)))


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
