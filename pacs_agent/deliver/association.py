"""Associations as the requestor: how they are asked for, why one did not come about, and the hard way to end one.

Every wait is bounded; nothing here knows the record.
"""

import contextlib
import socket
import ssl
import time
from collections.abc import Callable, Sequence
from typing import cast

from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian
from pynetdicom import AE, evt
from pynetdicom.association import Association
from pynetdicom.sop_class import Verification
from pynetdicom.transport import AssociationSocket

from pacs_agent.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacs_agent.settings import Destination, Tls
from pacs_agent.wire import read_exactly

NOT_ACCEPTED = "the destination does not accept this SOP class"
NOTHING_SENT = "the association ended before anything could be sent"


class PatientSocket(AssociationSocket):
    """A requestor's socket that bounds what the peer may take to read or finish a PDU, also one that drips."""

    timeout_s: float

    @classmethod
    def adopt(cls, plain: AssociationSocket, timeout_s: float) -> "PatientSocket":
        """Take over the state of *plain*, which must not be used after."""
        patient = cls.__new__(cls)
        patient.__dict__.update(plain.__dict__)
        patient.timeout_s = timeout_s
        cast(socket.socket, patient.socket).settimeout(timeout_s)
        return patient

    def recv(self, nr_bytes: int) -> bytearray:
        """Read a header, or what it announced.

        Raises:
            OSError: it did not come in time; pynetdicom then closes the association.
        """
        sock = cast(socket.socket, self.socket)
        received = read_exactly(sock, nr_bytes, time.monotonic() + self.timeout_s)
        sock.settimeout(self.timeout_s)  # of the next write
        return received


def scu(ae_title: str, timeout_s: float) -> AE:
    """Our AE as a requestor, every wait of it bounded."""
    ae = AE(ae_title=ae_title)
    ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
    ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
    ae.maximum_pdu_size = 0
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = timeout_s
    return ae


def association(
    destination: Destination,
    ae_title: str,
    sop_class_uids: Sequence[str],
    watch: Callable[[evt.Event], None] | None = None,
    on_report: Callable[[evt.Event], tuple[int, None]] | None = None,
) -> Association:
    """Request an association that offers *sop_class_uids*; look at `is_established` and `is_rejected`.

    Args:
        destination: the peer.
        ae_title: ours.
        sop_class_uids: each in explicit and in implicit VR.
        watch: called when the association is requested, and when its connection is open.
        on_report: answers an N-EVENT-REPORT.

    Raises:
        OSError: the host's name is not known, or the certificates cannot be read.
    """
    ae = scu(ae_title, destination.timeout_seconds)
    for uid in sop_class_uids:
        # One context each: the stored bytes are explicit, and go as they are wherever that is accepted.
        ae.add_requested_context(uid, ExplicitVRLittleEndian)
        ae.add_requested_context(uid, ImplicitVRLittleEndian)
    return ae.associate(
        destination.host,
        destination.port,
        ae_title=destination.ae_title,
        tls_args=(client_tls(destination.tls), destination.host) if destination.tls else None,
        evt_handlers=[
            (evt.EVT_CONN_OPEN, _be_patient, [destination.timeout_seconds]),
            *((kind, watch) for kind in (evt.EVT_REQUESTED, evt.EVT_CONN_OPEN) if watch),
            *([(evt.EVT_N_EVENT_REPORT, on_report)] if on_report else []),
        ],
    )


def _be_patient(event: evt.Event, timeout_s: float) -> None:
    dul = event.assoc.dul
    dul.socket = PatientSocket.adopt(dul.socket, timeout_s)  # `set_socket` refuses a second one


def why_not_established(assoc: Association) -> str:
    """One line on an association that did not come about."""
    if assoc.is_rejected:
        answer = assoc.acceptor.primitive
        return f"association rejected: {answer.reason_str}" if answer else "association rejected"
    if accepts_nothing(assoc):
        return NOT_ACCEPTED
    return "association aborted" if assoc.acceptor.primitive else "cannot be reached"


def accepts_nothing(assoc: Association) -> bool:
    """Whether the peer accepted the association and none of its contexts; pynetdicom then aborts. PS3.8 9.3.3.2"""
    answer = assoc.acceptor.primitive
    return answer is not None and answer.result == 0 and not assoc.accepted_contexts


def echo(destination: Destination, ae_title: str) -> str | None:
    """C-ECHO; None where it was answered, else why not.

    Raises:
        OSError: the host's name is not known, or the certificates cannot be read.
    """
    assoc = association(destination, ae_title, [Verification])
    if not assoc.is_established:
        return why_not_established(assoc)
    try:
        status = assoc.send_c_echo().get("Status")
        if status is None:
            return "C-ECHO was not answered"
        return None if status == 0 else f"C-ECHO answered {status:04X}"
    finally:
        assoc.release()


def cut(assoc: Association) -> None:
    """Close the connection beneath an association: to both sides an abort by the provider. PS3.8 9.2, Evt17

    pynetdicom's own `abort` waits for the peer to close, which a deaf one does not.
    """
    connection = assoc.dul.socket.socket if assoc.dul.socket else None
    if connection:
        with contextlib.suppress(OSError):  # not connected yet, or no more
            # Not SSLSocket's, which takes the session away from the thread that reads.
            socket.socket.shutdown(connection, socket.SHUT_RDWR)


def client_tls(tls: Tls) -> ssl.SSLContext:
    """Mutual TLS to a destination, 1.2 at least. BCP 195"""
    context = ssl.create_default_context(cafile=str(tls.ca))
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.load_cert_chain(tls.certificate, tls.key)
    return context
