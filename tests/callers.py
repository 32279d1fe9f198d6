"""A modality on a bare socket, whose every byte is ours: many at once, quick, slow or silent; and what it sends.

pynetdicom's own requestor polls with two threads each; fifty of them would measure themselves.
"""

import copy
import hashlib
import itertools
import socket
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from io import BytesIO
from types import TracebackType

from pydicom.dataset import FileDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid
from pynetdicom.dimse_messages import C_STORE_RQ
from pynetdicom.dimse_primitives import C_STORE
from pynetdicom.dsutils import decode, encode
from pynetdicom.pdu import A_ASSOCIATE_RQ, P_DATA_TF
from pynetdicom.pdu_primitives import A_ASSOCIATE, ImplementationClassUIDNotification, MaximumLengthNotification
from pynetdicom.presentation import build_context

from pacs_agent.phantom.dataset import study

MAX_PDU = 131_072
ANSWER_S = 60.0  # bound of a wait for an answer
RELEASE_REQUEST = struct.pack(">BBLL", 5, 0, 4, 0)  # PS3.8 9.3.6
_CONTEXT = 1  # the presentation context


@dataclass(frozen=True, slots=True)
class Sent:
    """An instance ready to be sent.

    Attributes:
        messages: its C-STORE request, PDUs one after the other.
        sha256: of transfer syntax and data set, as the inbox names its files.
        size_bytes: of the data set.
    """

    study_instance_uid: str
    sop_instance_uid: str
    messages: bytes
    sha256: str
    size_bytes: int

    def without_messages(self) -> "Sent":
        """The same to be remembered, not to be sent."""
        return replace(self, messages=b"")


class Caller:
    """An association as its requestor has it; a context that ends it.

    Args:
        port: of the acceptor on this machine.
        name: calling AE title.
    """

    def __init__(self, port: int, name: str = "XR1") -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), ANSWER_S)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._name = name

    def __enter__(self) -> "Caller":
        return self

    def __exit__(self, kind: type[BaseException] | None, _error: object, _trace: TracebackType | None) -> None:
        self.socket.close()

    @property
    def request(self) -> bytes:
        """Its A-ASSOCIATE-RQ. PS3.8 9.3.2"""
        wanted = A_ASSOCIATE()
        wanted.application_context_name = "1.2.840.10008.3.1.1.1"
        wanted.calling_ae_title, wanted.called_ae_title = self._name, "PACS_AGENT"
        context = build_context(ComputedRadiographyImageStorage, ExplicitVRLittleEndian)
        context.context_id = _CONTEXT
        wanted.presentation_context_definition_list = [context]
        length, implementation = MaximumLengthNotification(), ImplementationClassUIDNotification()
        length.maximum_length_received = MAX_PDU
        implementation.implementation_class_uid = "1.2.826.0.1.3680043.8.498.77.9"
        wanted.user_information = [length, implementation]
        pdu = A_ASSOCIATE_RQ()
        pdu.from_primitive(wanted)
        return bytes(pdu.encode())

    def associate(self) -> None:
        """Ask for the association and be accepted."""
        self.socket.sendall(self.request)
        kind, _ = self._read()
        assert kind == 2, f"not accepted: PDU type {kind}"  # A-ASSOCIATE-AC

    def store(self, sent: Sent) -> int:
        """Send an instance; the status of its response."""
        self.socket.sendall(sent.messages)
        kind, body = self._read()
        assert kind == 4, f"no response: PDU type {kind}"  # P-DATA-TF
        return int(decode(BytesIO(body[6:]), is_implicit_vr=True, is_little_endian=True).Status)

    def release(self) -> None:
        """Release the association and wait for the response."""
        self.socket.sendall(RELEASE_REQUEST)
        kind, _ = self._read()
        assert kind == 6, f"not released: PDU type {kind}"  # A-RELEASE-RP

    def _read(self) -> tuple[int, bytes]:
        """Type and body of the next PDU."""
        kind, length = struct.unpack(">BxL", self._exactly(6))
        return kind, self._exactly(length)

    def _exactly(self, count: int) -> bytes:
        received = b""
        while len(received) < count:
            more = self.socket.recv(count - len(received))
            if not more:
                raise ConnectionError("the acceptor closed the connection")
            received += more
        return received


def to_send(ds: FileDataset) -> Sent:
    """A CR instance, encoded with its C-STORE request. PS3.7 9.3.1"""
    encoded = encode(ds, is_implicit_vr=False, is_little_endian=True)
    assert encoded is not None
    request = C_STORE()
    request.MessageID, request.Priority = 1, 2
    request.AffectedSOPClassUID, request.AffectedSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    request.DataSet = BytesIO(encoded)
    digest = hashlib.sha256(ExplicitVRLittleEndian.encode() + b"\0" + encoded).hexdigest()
    message = C_STORE_RQ()
    message.primitive_to_message(request)
    messages = b""
    for data in message.encode_msg(_CONTEXT, MAX_PDU):
        pdu = P_DATA_TF()
        pdu.from_primitive(data)
        messages += pdu.encode()
    return Sent(str(ds.StudyInstanceUID), str(ds.SOPInstanceUID), messages, digest, len(encoded))


class Studies:
    """Studies of two to four images without end: a few phantoms' pictures, each time under new UIDs.

    Args:
        longest_side: of their pictures, pixels.
        prints: how many different studies the pictures are of.
    """

    def __init__(self, longest_side: int = 256, prints: int = 9) -> None:
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        parts = ("hand", "wrist", "finger")
        self._templates = [
            study(
                parts[number % len(parts)], seed=700_000 + number, abnormal=number % 3 == 1, views=2 + number % 3,
                kind="CR", transfer_syntax_uid=ExplicitVRLittleEndian, longest_side=longest_side,
            )
            for number in range(prints)
        ]  # fmt: skip

    def __iter__(self) -> Iterator[list[Sent]]:
        return self

    def __next__(self) -> list[Sent]:
        with self._lock:
            number = next(self._numbers)
        study_uid, series_uid = generate_uid(), generate_uid()
        instances = []
        for template in self._templates[number % len(self._templates)]:
            ds = copy.copy(template)
            ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID = study_uid, series_uid, generate_uid()
            ds.AccessionNumber, ds.PatientID = f"L{number:07}", f"PHANTOM-L{number:07}"
            instances.append(to_send(ds))
        return instances
