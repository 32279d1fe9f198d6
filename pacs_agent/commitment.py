"""The result of a storage commitment: an N-EVENT-REPORT enters, what it says of each instance and the answer leave.

The PACS sends it on the association of our request or on one of its own; both ends are handed to the record by whoever
settles it. Never decides what a failure leads to. PS3.4 J.3.3
"""

from collections.abc import Callable

import structlog
from pydicom.dataset import Dataset
from pydicom.valuerep import VR
from pynetdicom import evt
from sqlalchemy.exc import DBAPIError

from pacs_agent.errors import NotUnderstoodError
from pacs_agent.faults import crash_point
from pacs_agent.record.committing import CommitmentResult
from pacs_agent.study.header import read_header

log = structlog.get_logger()

SUCCESS = 0x0000
PROCESSING_FAILURE = 0x0110
NO_SUCH_EVENT_TYPE = 0x0113
INVALID_ARGUMENT_VALUE = 0x0115
ALL_COMMITTED, SOME_FAILED = 1, 2  # PS3.4 Table J.3.3-1, event type IDs
MAX_BYTES = 4 << 20
MAX_INSTANCES = 10_000
_TAGS = frozenset({0x00081195, 0x00081199, 0x00081198})  # transaction, referenced and failed instances
# PS3.3 C.14.1.1, Failure Reason
REASONS = {
    0x0110: "processing failure",
    0x0112: "no such object instance",
    0x0119: "class and instance conflict",
    0x0122: "SOP class not supported",
    0x0131: "duplicate transaction UID",
    0x0213: "resource limitation",
}


def read_result(ds: Dataset) -> CommitmentResult:
    """Read the event information.

    Raises:
        NotUnderstoodError: there is no Transaction UID, or there are too many instances.
    """
    transaction_uid = str(ds.get("TransactionUID") or "")
    if not transaction_uid:
        raise NotUnderstoodError("there is no Transaction UID")
    committed, failed = _items(ds, "ReferencedSOPSequence"), _items(ds, "FailedSOPSequence")
    reasons = {str(item.get("ReferencedSOPInstanceUID") or ""): _reason(item.get("FailureReason")) for item in failed}
    return CommitmentResult(
        transaction_uid,
        # Named in both sequences, it is not safe.
        frozenset(str(item.get("ReferencedSOPInstanceUID") or "") for item in committed) - reasons.keys(),
        reasons,
    )


def answer_report(event: evt.Event, settle: Callable[[CommitmentResult], bool]) -> int:
    """Settle what an N-EVENT-REPORT says and give the status to answer with, whatever came. PS3.7 10.1.1

    Args:
        event: `evt.EVT_N_EVENT_REPORT`.
        settle: hands a result to the record; whether its transaction is known.
    """
    bound = log.bind(address=event.assoc.remote["address"], ae_title=event.assoc.remote["ae_title"].strip())
    try:
        information = event.request.EventInformation
        if event.request.EventTypeID not in (ALL_COMMITTED, SOME_FAILED):
            bound.warning("commitment report refused", reason="no such event type")
            return NO_SUCH_EVENT_TYPE
        if information is None or information.getbuffer().nbytes > MAX_BYTES:
            raise NotUnderstoodError("it has no event information, or too much of it")
        syntax = str(event.context.transfer_syntax)
        result = read_result(read_header(information.getbuffer(), syntax, _TAGS).elements)
        if not settle(result):
            bound.warning("commitment report of an unknown transaction", transaction_uid=result.transaction_uid[:64])
            return INVALID_ARGUMENT_VALUE
        crash_point("commitment settled")
    except NotUnderstoodError as error:
        bound.warning("commitment report refused", reason=str(error))
        return INVALID_ARGUMENT_VALUE
    except DBAPIError as error:  # it may be sent again
        bound.error("commitment report refused", reason=f"database: {error.orig}")
        return PROCESSING_FAILURE
    except Exception as error:  # noqa: BLE001 - it is always answered; pydicom raises whatever such bytes lead it to
        bound.warning("commitment report refused", reason=type(error).__name__)
        return PROCESSING_FAILURE
    bound.info("commitment report", committed=len(result.committed), failed=len(result.failed))
    return SUCCESS


def _items(ds: Dataset, keyword: str) -> list[Dataset]:
    if keyword not in ds:
        return []
    element = ds[keyword]
    if element.VR != VR.SQ or len(element.value) > MAX_INSTANCES:
        raise NotUnderstoodError(f"{keyword} is no sequence, or too long")
    return list(element.value)


def _reason(value: object) -> str:
    if not isinstance(value, int):
        return "failed without a reason"
    return f"{value:04X}" + (f" {REASONS[value]}" if value in REASONS else "")
