"""The storage commitment SCU: asks a destination to keep what it took, and takes its word. PS3.4 J

Enters: what the record says is to be asked. Leaves: what the destination said, on the record. The word may come on the
same association, even before the response, or on one of the destination's own, which is the listener's.
"""

import threading
from collections.abc import Callable
from typing import Any

import structlog
from pydicom.dataset import Dataset
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.service_class_n import StorageCommitmentServiceClass
from pynetdicom.sop_class import StorageCommitmentPushModel, StorageCommitmentPushModelInstance
from pynetdicom.status import STATUS_FAILURE, code_to_category

from pacs_agent.commitment import answer_report
from pacs_agent.deliver.association import (
    NOT_ACCEPTED,
    NOTHING_SENT,
    accepts_nothing,
    association,
    why_not_established,
)
from pacs_agent.faults import crash_point
from pacs_agent.record import committing
from pacs_agent.record.committing import CommitmentRequest, CommitmentResult
from pacs_agent.record.store import Store
from pacs_agent.report.uids import new_uid
from pacs_agent.settings import Destination

log = structlog.get_logger()

OBJECTS_AT_A_TIME = 50
LINGER_S = 1.0  # that an association is held open for the report; most destinations open one of their own
_REQUEST = 1  # PS3.4 Table J.3.2-1, action type ID


class Commitments:
    """What is asked of one destination.

    Args:
        destination: which.
        ae_title: ours.
        store: the record.
        watch: is shown each association.
        ask_again_s: seconds until an object is asked for again, by how often that failed.
    """

    def __init__(
        self,
        destination: Destination,
        *,
        ae_title: str,
        store: Store,
        watch: Callable[[evt.Event], None],
        ask_again_s: Callable[[int], float],
    ) -> None:
        self._destination = destination
        self._ae_title = ae_title
        self._store = store
        self._watch = watch
        self._ask_again_s = ask_again_s

    def is_due(self) -> bool:
        """Whether there is anything to do now."""
        return committing.has_commitment_due(self._store, self._destination.name)

    def ask_once(self) -> tuple[int, str | None]:
        """One transaction on one association; how many objects it was for, and why the destination was not reached."""
        name = self._destination.name
        if expired := committing.expire_requests(self._store, name):
            log.warning("storage commitment was not answered in time", objects=expired)
        # On the record before it is sent: the report may come before the response.
        request = committing.next_request(
            self._store, name, new_uid, self._destination.commitment_timeout_seconds, OBJECTS_AT_A_TIME
        )
        if request is None:
            return 0, None
        crash_point("commitment recorded")
        reports = _Reports(self._store, request.transaction_uid)
        try:
            assoc = association(
                self._destination, self._ae_title, [StorageCommitmentPushModel], self._watch, reports.answer
            )
        except OSError as error:
            committing.give_back_request(self._store, request)
            return len(request.objects), f"cannot be reached: {error}"
        unreached = None
        if assoc.is_established:
            unreached = self._ask(assoc, request, reports)
        elif accepts_nothing(assoc):
            self._refused(request, f"storage commitment: {NOT_ACCEPTED}")
        else:
            unreached = why_not_established(assoc)
        if unreached:
            committing.give_back_request(self._store, request)
        return len(request.objects), unreached

    def _ask(self, assoc: Association, request: CommitmentRequest, reports: "_Reports") -> str | None:
        """Why nothing was asked, where that is so."""
        reports.attach(assoc)
        try:
            answer, _ = assoc.send_n_action(
                _action_information(request),
                _REQUEST,
                StorageCommitmentPushModel,
                StorageCommitmentPushModelInstance,
            )
        except RuntimeError:  # pynetdicom's, for an association that ended before it wrote anything
            return NOTHING_SENT
        crash_point("commitment asked")
        status = answer.get("Status")
        if status is None:  # it may have come through: a report would be right, and time will tell
            log.warning("N-ACTION was not answered", transaction_uid=request.transaction_uid)
        elif code_to_category(status) == STATUS_FAILURE:
            self._refused(request, f"N-ACTION answered {status:04X}")
        else:
            log.info(
                "storage commitment asked for", objects=len(request.objects), transaction_uid=request.transaction_uid
            )
            reports.wait(LINGER_S)
        reports.finish(self._destination.timeout_seconds)
        if assoc.is_established:
            assoc.release()
        return None

    def _refused(self, request: CommitmentRequest, why: str) -> None:
        log.error("storage commitment refused", reason=why, objects=len(request.objects))
        committing.refuse_request(self._store, request, why, self._ask_again_s)


class _Reports:
    """The reports that come on the association of a request.

    pynetdicom serves them in threads of their own, and lets them touch what its `release` waits for, which may then
    wait for good. Here they do not, and are over before the association is.
    """

    def __init__(self, store: Store, transaction_uid: str) -> None:
        self._store = store
        self._transaction_uid = transaction_uid
        self._changed = threading.Condition()
        self._in_hand = 0
        self._is_answered = False
        self._is_over = False

    def attach(self, assoc: Association) -> None:
        """Serve what comes on this association."""

        def serve(request: Any, context_id: int) -> None:
            with self._changed:
                if self._is_over:  # it is being released: an answer would break it, and the report is sent again
                    return
                self._in_hand += 1
            try:
                context = assoc._accepted_cx.get(context_id)
                if context and request.AffectedSOPClassUID == StorageCommitmentPushModel:
                    StorageCommitmentServiceClass(assoc).SCP(request, context)
            finally:
                with self._changed:
                    self._in_hand -= 1
                    self._changed.notify_all()

        assoc._serve_request = serve

    def answer(self, event: evt.Event) -> tuple[int, None]:
        """Settle it."""
        return answer_report(event, self._settle), None

    def _settle(self, result: CommitmentResult) -> bool:
        is_known = committing.settle_commitment(self._store, result)
        self._is_answered |= result.transaction_uid == self._transaction_uid
        return is_known

    def wait(self, timeout_s: float) -> None:
        """Until the report is there and answered, but not for long."""
        with self._changed:
            self._changed.wait_for(lambda: self._is_answered and not self._in_hand, timeout_s)

    def finish(self, timeout_s: float) -> None:
        """Take no more, and let what is in hand be answered."""
        with self._changed:
            self._is_over = True
            self._changed.wait_for(lambda: not self._in_hand, timeout_s)


def _action_information(request: CommitmentRequest) -> Dataset:
    """PS3.4 Table J.3.2.1.1-1"""
    ds = Dataset()
    ds.TransactionUID = request.transaction_uid
    ds.ReferencedSOPSequence = []
    for sop_class_uid, sop_instance_uid in request.objects:
        item = Dataset()
        item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class_uid, sop_instance_uid
        ds.ReferencedSOPSequence.append(item)
    return ds
