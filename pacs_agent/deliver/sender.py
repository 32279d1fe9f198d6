"""The storage SCU: stored objects out, one destination a sender, each in a thread of its own.

A destination that cannot be reached never parks an object; one that refuses it does. PS3.4 B.2.3
"""

import struct
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Literal

import structlog
from pydicom import dcmread
from pydicom.errors import InvalidDicomError
from pydicom.uid import UID
from pynetdicom import evt
from pynetdicom.association import Association

from pacs_agent.deliver.association import (
    NOT_ACCEPTED,
    NOTHING_SENT,
    accepts_nothing,
    association,
    cut,
    why_not_established,
)
from pacs_agent.deliver.commitment import Commitments
from pacs_agent.deliver.outbox import Backoff
from pacs_agent.errors import SHORTAGES
from pacs_agent.faults import crash_point
from pacs_agent.record import delivering
from pacs_agent.record.delivering import Due
from pacs_agent.record.store import Store
from pacs_agent.settings import Destination

log = structlog.get_logger()

# PS3.4 Table B.2-1: success, and the warnings under which the instance was stored all the same.
STORED = (0x0000, 0xB000, 0xB006, 0xB007)
DUPLICATE_SOP_INSTANCE = 0x0111  # PS3.7 C.5.7
BATCH = 20
# What pydicom raises for a file that is gone, spoilt or cut short, and pynetdicom for what it cannot encode.
UNREADABLE = (
    *(OSError, InvalidDicomError, ValueError, AttributeError, KeyError, TypeError, EOFError, struct.error),
    *(RecursionError, NotImplementedError),  # sequences without end within each other, a VR that there is not
)
BROKEN_IN_A_ROW = 3  # associations that ended without one answer; then each further one waits `retry_seconds`


@dataclass(frozen=True, slots=True)
class SendOutcome:
    """How one C-STORE ended.

    `broken`: the association ended before the answer, `unsent`: before the request; `unread`: not offered, for our own
    machine is short of something.
    """

    kind: Literal["stored", "refused", "broken", "unsent", "unread"]
    status: str | None = None
    error: str = ""


class Sender:
    """Brings the objects of one destination there, until told to stop.

    Args:
        destination: where to.
        ae_title: ours.
        store: the record.
        data_dir: what the objects' paths are relative to.
        random: for the jitter.
        make_notes: makes rejection notes that the destination is to get, called while nothing is on its way there.
    """

    def __init__(
        self,
        destination: Destination,
        *,
        ae_title: str,
        store: Store,
        data_dir: Path,
        random: Random,
        make_notes: Callable[[Destination], None] | None = None,
    ) -> None:
        self._destination = destination
        self._ae_title = ae_title
        self._store = store
        self._data_dir = data_dir
        self._make_notes = make_notes
        self._backoff = Backoff(destination.retry_seconds, destination.max_retry_seconds, random)
        self._outages = 0  # requests in a row that made no association
        self._broken = 0  # associations in a row that ended without one answer
        self._assoc: Association | None = None
        self._aborted = False
        self._commitments: Commitments | None = None
        if destination.storage_commitment:
            self._commitments = Commitments(
                destination,
                ae_title=ae_title,
                store=store,
                watch=self._watch,
                ask_again_s=self._ask_again_s,
            )

    def run(self, stop: threading.Event, idle_s: float = 0.5) -> None:
        """Deliver what is due until *stop*."""
        name, stages = self._destination.name, {self._destination.name, self._destination.group}
        delivering.end_leases(self._store, name)  # of a run that the database ended
        while not stop.is_set():
            if self._make_notes:
                self._make_notes(self._destination)
            if stages & self._store.paused() or not self._work_once(stop):
                stop.wait(idle_s)
            elif self._broken >= BROKEN_IN_A_ROW:
                # Each object that broke one has its own pause; this keeps the rest from hammering a sick PACS.
                stop.wait(self._destination.retry_seconds)

    def _work_once(self, stop: threading.Event) -> int:
        count = self.deliver_once(stop) if delivering.has_due(self._store, self._destination.name) else 0
        return count if stop.is_set() else count + self.ask_once()

    def ask_once(self) -> int:
        """Ask the destination, where it is one that does so, to commit to what it took; for how many objects."""
        if not self._commitments or not self._commitments.is_due():
            return 0
        with structlog.contextvars.bound_contextvars(destination=self._destination.name):
            try:
                count, unreached = self._commitments.ask_once()
            finally:
                self._assoc = None
            if unreached:
                self._out_of_reach([], unreached)
            elif count:
                self._reached()
        return count

    def _ask_again_s(self, failures: int) -> float:
        """An archive may need a while before it can commit: later each time."""
        return self._backoff.pause_s(failures + 2)

    def abort(self) -> None:
        """End the association in hand for good, however deaf the peer, so that a stopped `run` returns; thread-safe.

        What was not confirmed stays waiting.
        """
        self._aborted = True
        if self._assoc:
            cut(self._assoc)

    def _watch(self, event: evt.Event) -> None:
        """Know the association from its first moment."""
        self._assoc = event.assoc
        if self._aborted:
            cut(event.assoc)

    def deliver_once(self, stop: threading.Event) -> int:
        """One association with what is due; returns how many objects were claimed for it."""
        name = self._destination.name
        lease_s = self._destination.timeout_seconds * (BATCH + 2)
        dues = delivering.claim_due(self._store, name, BATCH, lease_s)
        if not dues:
            return 0
        crash_point("deliveries claimed")
        with structlog.contextvars.bound_contextvars(destination=name):
            self._deliver(dues, stop)
        return len(dues)

    def _deliver(self, dues: Sequence[Due], stop: threading.Event) -> None:
        """Bring there what was claimed, or say of each why not."""
        try:
            classes = sorted({due.sop_class_uid for due in dues})
            assoc = association(self._destination, self._ae_title, classes, self._watch)
        except OSError as error:
            self._out_of_reach(dues, f"cannot be reached: {error}")
            return
        if assoc.is_established:
            self._send(assoc, dues, stop)
        elif accepts_nothing(assoc):
            self._reached()
            for due in dues:
                self._settle(due, _not_accepted(due))
        else:
            self._out_of_reach(dues, why_not_established(assoc))

    def _send(self, assoc: Association, dues: Sequence[Due], stop: threading.Event) -> None:
        """Offer each in turn; the first that ends the association is postponed, what is left is given back."""
        left, answers, is_broken = list(dues), 0, False
        try:
            while left and assoc.is_established and not (stop.is_set() or is_broken):
                if not delivering.is_waiting(self._store, left[0]):  # withdrawn or held since it was claimed
                    delivering.give_back(self._store, [left.pop(0)])
                    continue
                outcome = self._store_one(assoc, left[0])
                if outcome.kind == "unsent":
                    break
                self._reached()
                self._settle(left.pop(0), outcome)
                is_broken = outcome.kind == "broken"
                answers += outcome.kind in ("stored", "refused")
        finally:
            if assoc.is_established:
                assoc.abort() if is_broken else assoc.release()
            self._assoc = None
        if answers or stop.is_set():
            self._broken = 0
        elif is_broken:
            self._broken += 1
        elif left:
            self._out_of_reach(left, NOTHING_SENT)
            return
        if left:
            delivering.give_back(self._store, left)
            log.info("association ended early", objects_left=len(left))

    def _out_of_reach(self, dues: Sequence[Due], reason: str) -> None:
        """No association: all that waits for the destination shares one growing pause."""
        self._outages += 1
        pause_s, until = self._pause(self._outages)
        delivering.mark_unreachable(self._store, self._destination.name, dues, reason, until)
        log.warning("destination not reached", reason=reason, objects=len(dues), next_try_in_s=pause_s)

    def _reached(self) -> None:
        if self._outages:
            self._outages = 0
            delivering.mark_reachable(self._store, self._destination.name)
            log.info("destination reached again")

    def _pause(self, attempts: int) -> tuple[float, datetime]:
        pause_s = self._backoff.pause_s(attempts)
        return round(pause_s, 1), self._store.clock() + timedelta(seconds=pause_s)

    def _settle(self, due: Due, outcome: SendOutcome) -> None:
        name = self._destination.name
        with structlog.contextvars.bound_contextvars(
            study_instance_uid=due.study_instance_uid, sop_instance_uid=due.sop_instance_uid
        ):
            if outcome.kind == "stored":
                crash_point("object stored")
                ask_at = None
                if self._commitments:
                    failures = due.commitment_failures
                    pause_s = self._ask_again_s(failures) if failures else 0.0
                    ask_at = self._store.clock() + timedelta(seconds=pause_s)
                delivering.mark_delivered(self._store, due, name, outcome.status, ask_at)
                crash_point("delivery recorded")
                log.info("object delivered", status=outcome.status)
            elif outcome.kind == "refused":
                delivering.park(self._store, due, name, outcome.status, outcome.error)
                # Why stands in `deliveries`: a PACS's own words may name a patient.
                log.error("object refused and parked", status=outcome.status)
            else:
                if outcome.kind == "unread":
                    delivering.give_back(self._store, [due])
                pause_s, until = self._pause(due.attempts)
                delivering.postpone(self._store, due, outcome.error, until)
                log.warning("object not delivered yet", reason=outcome.error, next_try_in_s=pause_s)

    def _store_one(self, assoc: Association, due: Due) -> SendOutcome:
        if not any(context.abstract_syntax == due.sop_class_uid for context in assoc.accepted_contexts):
            return _not_accepted(due)
        try:
            ds = dcmread(self._data_dir / due.path)
        except (*UNREADABLE, RuntimeError) as error:
            return unfit(error)
        try:
            answer = assoc.send_c_store(ds)
        except RuntimeError:  # pynetdicom's, for an association that ended before it wrote anything
            return SendOutcome("unsent")
        except UNREADABLE as error:
            return unfit(error)
        return _answered(answer.get("Status"), str(answer.get("ErrorComment", "")).strip(), due)


def _not_accepted(due: Due) -> SendOutcome:
    return SendOutcome("refused", error=f"{NOT_ACCEPTED}: {UID(due.sop_class_uid).name}")


def _answered(status: int | None, comment: str, due: Due) -> SendOutcome:
    if status is None:
        return SendOutcome("broken", error="the association ended without an answer")
    if status in STORED or (status == DUPLICATE_SOP_INSTANCE and due.attempts > 1):
        return SendOutcome("stored", _hex(status))
    return SendOutcome(
        "refused", _hex(status), f"C-STORE answered {_hex(status)}" + (f": {comment}" if comment else "")
    )


def unfit(error: Exception) -> SendOutcome:
    """Of an object that cannot be read: our own machine's shortage, or the object's own fault."""
    is_shortage = isinstance(error, OSError) and error.errno in SHORTAGES
    return SendOutcome("unread" if is_shortage else "refused", error=f"{type(error).__name__}: {error}"[:200])


def _hex(status: int | None) -> str:
    return f"{status:04X}" if status is not None else "nothing"
