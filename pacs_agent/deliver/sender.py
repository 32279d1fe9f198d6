"""The storage SCU: stored objects out, one destination a sender, each in a thread of its own.

A destination that cannot be reached never parks an object; one that refuses it does. PS3.4 B.2.3
"""

import ssl
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from random import Random
from typing import Literal

import structlog
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification

from pacs_agent.deliver.outbox import Backoff
from pacs_agent.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacs_agent.record import delivering
from pacs_agent.record.delivering import Due
from pacs_agent.record.store import Store
from pacs_agent.settings import Destination, Tls

log = structlog.get_logger()

# PS3.4 Table B.2-1: success, and the warnings under which the instance was stored all the same.
STORED = (0x0000, 0xB000, 0xB006, 0xB007)
DUPLICATE_SOP_INSTANCE = 0x0111  # PS3.7 C.5.7
BATCH = 20
NOT_ACCEPTED = "the destination does not accept this SOP class"


@dataclass(frozen=True, slots=True)
class SendOutcome:
    """How one C-STORE ended; `unreachable` says nothing about the object."""

    kind: Literal["stored", "refused", "unreachable"]
    status: str | None = None
    error: str = ""


def association(destination: Destination, ae_title: str, sop_class_uids: Sequence[str]) -> Association:
    """Request an association that offers *sop_class_uids*; look at `is_established` and `is_rejected`."""
    ae = AE(ae_title=ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = 0
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = destination.timeout_seconds
    for uid in sop_class_uids:
        # One context each: the stored bytes are explicit, and go as they are wherever that is accepted.
        ae.add_requested_context(uid, ExplicitVRLittleEndian)
        ae.add_requested_context(uid, ImplicitVRLittleEndian)
    return ae.associate(
        destination.host,
        destination.port,
        ae_title=destination.ae_title,
        tls_args=(client_tls(destination.tls), destination.host) if destination.tls else None,
    )


def why_not_established(assoc: Association) -> str:
    """One line on an association that did not come about."""
    if assoc.is_rejected:
        answer = assoc.acceptor.primitive
        return f"association rejected: {answer.reason_str}" if answer else "association rejected"
    if _accepts_nothing(assoc):
        return NOT_ACCEPTED
    return "association aborted" if assoc.acceptor.primitive else "cannot be reached"


def _accepts_nothing(assoc: Association) -> bool:
    """Whether the peer accepted the association and none of its contexts; pynetdicom then aborts. PS3.8 9.3.3.2"""
    answer = assoc.acceptor.primitive
    return answer is not None and answer.result == 0 and not assoc.accepted_contexts


def echo(destination: Destination, ae_title: str) -> str | None:
    """C-ECHO; None where it was answered, else why not."""
    assoc = association(destination, ae_title, [Verification])
    if not assoc.is_established:
        return why_not_established(assoc)
    try:
        status = assoc.send_c_echo().get("Status")
        return None if status == 0 else f"C-ECHO answered {_hex(status)}"
    finally:
        assoc.release()


class Sender:
    """Brings the objects of one destination there, until told to stop.

    Args:
        destination: where to.
        ae_title: ours.
        store: the record.
        data_dir: what the objects' paths are relative to.
        random: for the jitter.
    """

    def __init__(
        self, destination: Destination, *, ae_title: str, store: Store, data_dir: Path, random: Random
    ) -> None:
        self._destination = destination
        self._ae_title = ae_title
        self._store = store
        self._data_dir = data_dir
        self._backoff = Backoff(destination.retry_seconds, destination.max_retry_seconds, random)

    def run(self, stop: threading.Event, idle_s: float = 0.5) -> None:
        """Deliver what is due until *stop*."""
        name = self._destination.name
        while not stop.is_set():
            if name in self._store.paused() or not delivering.has_due(self._store, name) or not self.deliver_once(stop):
                stop.wait(idle_s)

    def deliver_once(self, stop: threading.Event) -> int:
        """One association with what is due; returns how many objects were tried."""
        name = self._destination.name
        lease_s = self._destination.timeout_seconds * (BATCH + 2)
        dues = delivering.claim_due(self._store, name, BATCH, lease_s)
        if not dues:
            return 0
        for due, outcome in self._send(dues, stop):
            with structlog.contextvars.bound_contextvars(
                study_instance_uid=due.study_instance_uid, sop_instance_uid=due.sop_instance_uid, destination=name
            ):
                self._settle(due, outcome)
        return len(dues)

    def _settle(self, due: Due, outcome: SendOutcome) -> None:
        name = self._destination.name
        if outcome.kind == "stored":
            delivering.mark_delivered(self._store, due, name, outcome.status or "")
            log.info("object delivered", status=outcome.status)
        elif outcome.kind == "refused":
            delivering.park(self._store, due, name, outcome.status, outcome.error)
            log.error("object refused and parked", status=outcome.status, reason=outcome.error)
        else:
            pause_s = self._backoff.pause_s(due.attempts)
            until = self._store.clock() + timedelta(seconds=pause_s)
            delivering.postpone(self._store, [due], outcome.error, until)
            delivering.postpone_destination(self._store, name, until)
            log.warning("object not delivered yet", reason=outcome.error, next_try_in_s=round(pause_s, 1))

    def _send(self, dues: Sequence[Due], stop: threading.Event) -> Iterator[tuple[Due, SendOutcome]]:
        """Send over one association; what is not reached any more is `unreachable`."""
        assoc = association(self._destination, self._ae_title, sorted({due.sop_class_uid for due in dues}))
        if not assoc.is_established:
            kind: Literal["refused", "unreachable"] = "refused" if _accepts_nothing(assoc) else "unreachable"
            reason = why_not_established(assoc)
            yield from ((due, SendOutcome(kind, error=reason)) for due in dues)
            return
        try:
            for due in dues:
                if stop.is_set() or not assoc.is_established:
                    yield due, SendOutcome("unreachable", error="association ended before this object")
                else:
                    yield due, self._store_one(assoc, due)
        finally:
            if assoc.is_established:
                assoc.release()

    def _store_one(self, assoc: Association, due: Due) -> SendOutcome:
        if not any(context.abstract_syntax == due.sop_class_uid for context in assoc.accepted_contexts):
            return SendOutcome("refused", error=NOT_ACCEPTED)
        try:
            ds = dcmread(self._data_dir / due.path)
            answer = assoc.send_c_store(ds)
        except (OSError, ValueError, RuntimeError, InvalidDicomError) as error:
            # RuntimeError: pynetdicom's for an association that ended under our hands.
            kind: Literal["refused", "unreachable"] = "unreachable" if isinstance(error, RuntimeError) else "refused"
            return SendOutcome(kind, error=f"{type(error).__name__}: {error}"[:200])
        status = answer.get("Status")
        if status is None:
            return SendOutcome("unreachable", error="the association ended without an answer")
        if status in STORED or (status == DUPLICATE_SOP_INSTANCE and due.attempts > 1):
            return SendOutcome("stored", _hex(status))
        comment = str(answer.get("ErrorComment", "")).strip()
        return SendOutcome(
            "refused", _hex(status), f"C-STORE answered {_hex(status)}" + (f": {comment}" if comment else "")
        )


def _hex(status: int | None) -> str:
    return f"{status:04X}" if status is not None else "nothing"


def client_tls(tls: Tls) -> ssl.SSLContext:
    """Mutual TLS to a destination, 1.2 at least. BCP 195"""
    context = ssl.create_default_context(cafile=str(tls.ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tls.certificate, tls.key)
    return context
