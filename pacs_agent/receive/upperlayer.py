"""pynetdicom's upper layer, quicker: its threads wait instead of polling, and P-DATA is decoded without copies.

An association has two threads: the provider's reads and writes the socket, the user's serves requests. pynetdicom lets
each sleep a millisecond and look again, which costs a millisecond or two an instance and, at many associations, most
of the interpreter's time. Here one waits for the other, or for the peer, and looks again after `LOOK_AGAIN_S` at the
latest, so that whatever else ends an association is still noticed. C-STORE's command sets go past pydicom (`command`).
"""

import queue
import struct
import threading
from typing import Any, cast

import structlog
from pynetdicom import _config
from pynetdicom.acse import ACSE
from pynetdicom.association import Association
from pynetdicom.dimse import DIMSEServiceProvider
from pynetdicom.dimse_messages import DIMSEMessage
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dul import DULServiceProvider
from pynetdicom.fsm import StateMachine
from pynetdicom.pdu import P_DATA_TF
from pynetdicom.pdu_items import PresentationDataValueItem
from pynetdicom.pdu_primitives import P_DATA

from pacs_agent.receive.command import read_store_request, write_store_response

log = structlog.get_logger()

LOOK_AGAIN_S = 0.05
_P_DATA_TF = 0x04  # PS3.8 9.3.5
_PROVIDER_ABORT = b"\x07\0\0\0\0\x04\0\0\x02\0"  # PS3.8 9.3.8: by the provider, no reason given
_WHOLE_COMMAND = b"\x03"  # message control header, PS3.8 E.2
_MAX_COMMAND_BYTES = 65_536  # a real one has some hundred; pydicom makes a hundred times as much of it
_AROUND_COMMAND = 6  # a PDV's length, context ID and message control header
# It would write out every message in words, for a log that we do not keep.
_config.LOG_HANDLER_LEVEL = "none"


class Turn:
    """Whose turn it is to speak on an association, and the queues between its threads, which say so.

    Attributes:
        is_ours: the peer waits for our answer; else we wait for the peer.
    """

    def __init__(self, association: Association) -> None:
        self.is_ours = False
        self.given = threading.Condition()
        self.answered = threading.Condition()
        self.primitives = association.dul.to_user_queue = _Given(self)
        self.messages = association.dimse.msg_queue = _Messages(self)
        self.answers = association.dul.to_provider_queue = _Answers(self)
        association.dul._run_loop_delay = 0
        association.__class__ = _Acceptor
        association.acse.__class__ = _Negotiator
        association.dul.__class__ = _Provider
        association.dul.state_machine.__class__ = _StateMachine
        association.dimse.__class__ = _Assembler

    def await_answer(self) -> bool:
        """In the provider's thread: wait while the user works at an answer; whether it was our turn."""
        with self.answered:
            if not self.is_ours:
                return False
            if not self.answers.queue:
                self.answered.wait(LOOK_AGAIN_S)
            return True


class _Given(queue.Queue[Any]):
    """From provider to user: association, release and abort primitives."""

    def __init__(self, turn: Turn) -> None:
        super().__init__()
        self._turn = turn

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        with self._turn.given:
            self._turn.is_ours = True
            super().put(item, block, timeout)
            self._turn.given.notify_all()


class _Messages(_Given):
    """From provider to user: requests. The user's thread looks here in a loop, without blocking as it thinks."""

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        _, message = item
        if message is not None and not message.is_valid_request:  # pynetdicom would pass over it, and never answer
            raise ValueError(f"{message.msg_type}: not a request, or it lacks what it must have")
        super().put(item, block, timeout)

    def get(self, block: bool = True, timeout: float | None = None) -> Any:
        turn = self._turn
        with turn.given:
            if not block and not self.queue and not turn.primitives.queue:
                turn.is_ours = False
                turn.given.wait(LOOK_AGAIN_S)
        return super().get(block, timeout)


class _Answers(queue.Queue[Any]):
    """From user to provider: whatever is to be sent."""

    def __init__(self, turn: Turn) -> None:
        super().__init__()
        self._turn = turn

    def put(self, item: Any, block: bool = True, timeout: float | None = None) -> None:
        super().put(item, block, timeout)
        with self._turn.answered:
            self._turn.is_ours = bool(self._turn.messages.queue)
            self._turn.answered.notify_all()


class _Provider(DULServiceProvider):
    def _read_pdu_data(self) -> None:
        """As pynetdicom's; but who does not ask for an association leaves no thread waiting for it."""
        awaits_request = self.state_machine.current_state == "Sta2"  # PS3.8 9.2
        super()._read_pdu_data()
        if awaits_request and "Evt6" not in self.event_queue.queue:
            if "Evt19" in self.event_queue.queue:
                log.warning("connection ended: what came is not DICOM", address=self.assoc.requestor.address)
            self.to_user_queue.put(None)

    def _decode_pdu(self, bytestream: bytearray) -> tuple[Any, str]:
        """A P-DATA-TF's values are views of what was received; every other PDU is pynetdicom's."""
        if bytestream[0] != _P_DATA_TF:
            return super()._decode_pdu(bytestream)  # type: ignore[no-any-return]
        pdu = P_DATA_TF()
        received = memoryview(bytestream)
        offset = 6
        while offset < len(received):
            # PS3.8 9.3.5.1: length, of context ID and value; context ID
            length, context_id = struct.unpack_from(">LB", received, offset)
            end = offset + 4 + length
            if length < 2 or end > len(received):  # a value has its message control header at least
                raise ValueError("a presentation data value does not fit its PDU")
            item = PresentationDataValueItem()
            item.presentation_context_id = context_id
            item.presentation_data_value = received[offset + 5 : end]
            pdu.presentation_data_value_items.append(item)
            offset = end
        return pdu, "Evt10"


class _StateMachine(StateMachine):
    def do_action(self, event: str) -> None:
        """As pynetdicom's; but a PDU out of turn, or with values that no PDU has, ends its association, not the thread.

        Without the thread nobody would close the connection, and the association kept its place until it fell silent.
        """
        try:
            super().do_action(event)
        except Exception as error:  # noqa: BLE001 - pynetdicom raises whatever a PDU's values lead it to
            dul, assoc = self.dul, self.dul.assoc
            _tell(assoc, "a PDU that is out of turn or cannot be read", error)
            if dul.socket is not None and dul.socket.socket is not None:
                dul.socket.send(_PROVIDER_ABORT)
                dul.socket.close()
            assoc.is_aborted, assoc.is_established, assoc._kill = True, False, True
            dul.kill_dul()
            dul.to_user_queue.put(None)
            assoc.dimse.msg_queue.put((None, None))


class _Negotiator(ACSE):
    def negotiate_association(self) -> None:
        """As pynetdicom's; but a request that it cannot judge ends by an A-ABORT, and takes no thread along."""
        try:
            super().negotiate_association()
        except Exception as error:  # noqa: BLE001 - as above
            _tell(self.assoc, "an association request that cannot be judged", error)
            self.dul.event_queue.put("Evt19")  # PS3.8 9.2.2


class _Acceptor(Association):
    def _serve_request(self, msg: Any, context_id: int) -> None:
        """As pynetdicom's; but a request that it cannot serve ends its association by an A-ABORT, not its thread."""
        try:
            super()._serve_request(msg, context_id)
        except Exception as error:  # noqa: BLE001 - as above
            _tell(self, "a request that cannot be served", error)
            self.dul.event_queue.put("Evt19")


def _tell(association: Association, what: str, error: Exception) -> None:
    address = association.requestor.address
    log.warning(f"association aborted: {what}", address=address, kind=type(error).__name__)


class _StoreRequest(DIMSEMessage):
    """A C-STORE request whose command set was read already; its data set is collected as pynetdicom does."""

    request: C_STORE

    def message_to_primitive(self) -> C_STORE:
        request = self.request
        request.DataSet = self.data_set
        request._context_id = self.context_id
        return request


class _Assembler(DIMSEServiceProvider):
    message: DIMSEMessage | None

    def receive_primitive(self, primitive: Any) -> None:
        """As pynetdicom's; but a message that cannot be read ends its association by an A-ABORT, not its thread."""
        try:
            fragments = primitive.presentation_data_value_list
            self._check_command(fragments)
            if self.message is None and fragments and (message := _store_request(*fragments[0])):
                self.message = message
                del fragments[0]
            super().receive_primitive(primitive)
        except Exception as error:  # noqa: BLE001 - pynetdicom and pydicom raise whatever such bytes lead them to
            _tell(self.assoc, "a message that cannot be read", error)
            self.dul.event_queue.put("Evt19")  # PS3.8 9.2.2

    def _check_command(self, fragments: list[Any]) -> None:
        """Refuse a command set that grows without end. PS3.8 E.2: the lowest bit says that a fragment is of one."""
        held = self.message.encoded_command_set.getbuffer().nbytes if self.message else 0
        if held + sum(len(fragment) - 1 for _, fragment in fragments if fragment[0] & 1) > _MAX_COMMAND_BYTES:
            raise ValueError("a command set of more than 64 KB")

    def send_msg(self, primitive: Any, context_id: int) -> None:
        """As pynetdicom's; the plain response to a C-STORE is written without it."""
        command = write_store_response(primitive) if isinstance(primitive, C_STORE) else None
        if command is None or 0 < self.maximum_pdu_size < len(command) + _AROUND_COMMAND:
            super().send_msg(primitive, context_id)
            return
        answer = P_DATA()
        answer.presentation_data_value_list = [[context_id, _WHOLE_COMMAND + command]]
        self.dul.send_pdu(answer)


def _store_request(context_id: int, fragment: Any) -> _StoreRequest | None:
    """The message that a first fragment begins, where that is a C-STORE request's whole command set."""
    if bytes(fragment[:1]) != _WHOLE_COMMAND or (request := read_store_request(bytes(fragment[1:]))) is None:
        return None
    message = DIMSEMessage()
    message.__class__ = _StoreRequest
    message = cast(_StoreRequest, message)
    message.context_id, message.request = context_id, request
    return message
