"""The storage SCP: associations in, statuses out. Hands every data set to the inbox; decodes no pixels, knows no SQL.
What destinations say of their storage commitment comes here too, and is handed on.

Every status that a sender gets is decided in `_status_of`.
"""

import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import structlog
from pydicom.dataset import Dataset
from pynetdicom import AE, evt
from pynetdicom.association import Association
from sqlalchemy.exc import DBAPIError

from pacs_agent.commitment import answer_report
from pacs_agent.errors import DataSetMismatchError, NotUnderstoodError, OutOfResourcesError, SettingsError
from pacs_agent.identity import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from pacs_agent.receive.connection import BoundedServer, BoundedSocket, hang_up
from pacs_agent.receive.contexts import supported_contexts
from pacs_agent.receive.dataset import check_request, read_received
from pacs_agent.receive.inbox import Inbox
from pacs_agent.record.committing import CommitmentResult
from pacs_agent.settings import Listener as ListenerSettings
from pacs_agent.settings import Tls

log = structlog.get_logger()

# PS3.8 9.3.4: result, source, reason of an A-ASSOCIATE-RJ
_CALLED_NOT_RECOGNISED = (1, 1, 7)
_CALLING_NOT_RECOGNISED = (1, 1, 3)
_LOCAL_LIMIT_EXCEEDED = (2, 3, 2)

SUCCESS = 0x0000
OUT_OF_RESOURCES = 0xA700
DATA_SET_MISMATCH = 0xA900
CANNOT_UNDERSTAND = 0xC000
PROCESSING_FAILURE = 0x0110


@dataclass(slots=True)
class _Connection:
    """What is known of an open connection; lost with it, and nothing that matters is."""

    socket: BoundedSocket
    since: float = field(default_factory=time.monotonic)
    caller: tuple[str, str] | None = None  # AE title and address, once it was let in
    is_established: bool = False
    is_storing: bool = False
    study_instance_uid: str | None = None


class Listener:
    """The acceptor on its port.

    Args:
        settings: section [listener].
        inbox: where instances go.
        settle: hands the result of a storage commitment to the record; whether its transaction is known.
        on_database_error: is told, after the answer A700 is decided, that the database did not take an instance.
    """

    def __init__(
        self,
        settings: ListenerSettings,
        inbox: Inbox,
        settle: Callable[[CommitmentResult], bool] = lambda _result: False,
        on_database_error: Callable[[DBAPIError], None] = lambda _error: None,
    ) -> None:
        self._settings = settings
        self._inbox = inbox
        self._settle = settle
        self._on_database_error = on_database_error
        self._lock = threading.Lock()
        self._connections: dict[Association, _Connection] = {}
        self._ae = AE(ae_title=settings.ae_title)
        self._ae.implementation_class_uid = IMPLEMENTATION_CLASS_UID
        self._ae.implementation_version_name = IMPLEMENTATION_VERSION_NAME
        self._ae.maximum_pdu_size = settings.max_pdu_bytes
        # Ours is the limit that counts (`_rejection`): pynetdicom's counts bare connections too.
        self._ae.maximum_associations = settings.max_associations + settings.max_pending_connections + 1
        self._ae.acse_timeout = settings.association_timeout_seconds
        self._ae.dimse_timeout = settings.transfer_timeout_seconds
        self._ae.network_timeout = settings.idle_timeout_seconds
        self._server: BoundedServer | None = None

    def start(self) -> int:
        """Open the port and serve in threads of its own; returns the port.

        Raises:
            SettingsError: the certificates cannot be used.
            OSError: the port cannot be opened.
        """
        settings = self._settings
        ssl_context = server_tls(settings.tls) if settings.tls else None
        server = self._ae.make_server(
            (settings.host, settings.port),
            contexts=supported_contexts(),
            ssl_context=ssl_context,
            evt_handlers=[
                (evt.EVT_CONN_OPEN, self._on_open),
                (evt.EVT_REQUESTED, self._on_requested),
                (evt.EVT_ESTABLISHED, self._on_established),
                (evt.EVT_C_ECHO, self._on_echo),
                (evt.EVT_C_STORE, self._on_store),
                (evt.EVT_N_EVENT_REPORT, self._on_report),
            ],
            server_class=BoundedServer,
        )
        server.handshake_timeout_s = settings.association_timeout_seconds
        server.make_room = self._make_room
        # AE.shutdown and BoundedServer.shutdown expect to find it here, as AE.start_server would have put it.
        self._ae._servers.append(server)
        self._server = server
        threading.Thread(target=server.serve_forever, name="listener", daemon=True).start()
        return int(server.server_address[1])

    def stop(self, drain_s: float) -> None:
        """Stop accepting, let transfers in hand finish for at most *drain_s*, then abort what is left.

        What is no association yet ends at once: nothing of it is worth waiting for.
        """
        if self._server is None:
            return
        self._server.shutdown()
        self._hang_up_unestablished(self._server)
        deadline = time.monotonic() + drain_s
        while time.monotonic() < deadline and any(
            connection.is_storing or time.monotonic() - connection.socket.last_received < 1.0
            for connection in self._open().values()
        ):
            time.sleep(0.05)
        self._hang_up_unestablished(self._server)
        for association, connection in self._open().items():
            if connection.is_established:
                association.abort()
        self._server = None

    def _hang_up_unestablished(self, server: BoundedServer) -> None:
        for address, newcomer in list(server.newcomers.items()):
            server.newcomers.pop(address, None)
            hang_up(newcomer.socket)
        for connection in self._open().values():
            if not connection.is_established:
                # Not `abort`, which waits for the thread that reads, and knows no way out of Sta2. PS3.8 9.2.3
                hang_up(connection.socket.socket)

    def open_studies(self) -> dict[str, float]:
        """Studies that an open association's latest instance belongs to → seconds since that association was heard."""
        now = time.monotonic()
        silent: dict[str, float] = {}
        for connection in self._open().values():
            if uid := connection.study_instance_uid:
                seconds = 0.0 if connection.is_storing else now - connection.socket.last_received
                silent[uid] = min(seconds, silent.get(uid, seconds))
        return silent

    def _open(self) -> dict[Association, _Connection]:
        with self._lock:
            self._forget_ended()
            return dict(self._connections)

    def _forget_ended(self) -> None:
        for association in [each for each in self._connections if each.ident is not None and not each.is_alive()]:
            del self._connections[association]

    def _make_room(self) -> bool:
        """Whether one more connection fits; where not, the oldest that never became an association gives way.

        A good sender is past that within moments, so that whoever holds connections open in silence loses them first.
        """
        open_now = self._open()
        newcomers = self._server.newcomers if self._server else {}
        if len(open_now) + len(newcomers) < self._settings.max_associations + self._settings.max_pending_connections:
            return True
        idle: list[tuple[float, Any, Any, str]] = [
            *((each.since, address, each.socket, address[0]) for address, each in list(newcomers.items())),
            *(
                (each.since, association, each.socket.socket, association.requestor.address)
                for association, each in open_now.items()
                if not each.is_established
            ),
        ]
        if not idle:
            return False
        _, key, sock, address = min(idle, key=lambda each: each[0])
        newcomers.pop(key, None)
        with self._lock:
            self._connections.pop(key, None)
        hang_up(sock)
        log.warning("connection closed: the oldest of too many without an association", address=address)
        return True

    def _on_open(self, event: evt.Event) -> None:
        association = event.assoc
        bounded = BoundedSocket.adopt(
            cast(Any, association.dul.socket),
            max_pdu_bytes=self._settings.max_pdu_bytes,
            # The data set, and what the PDUs and the command set around it take.
            max_message_bytes=(self._settings.max_instance_mb << 20) * 11 // 10 + (1 << 20),
            timeout_s=self._settings.association_timeout_seconds,
        )
        association.dul.socket = bounded  # `set_socket` refuses a second one
        with self._lock:
            self._connections[association] = _Connection(bounded)

    def _on_requested(self, event: evt.Event) -> None:
        if (rejection := self._rejection(event.assoc)) is not None:
            event.assoc.acse.send_reject(*rejection)
            event.assoc.kill()

    def _rejection(self, association: Association) -> tuple[int, int, int] | None:
        """Result, source and reason of a rejection, or None to accept."""
        request = association.requestor.primitive
        calling, called = request.calling_ae_title.strip(), request.called_ae_title.strip()
        address = association.requestor.address
        settings = self._settings
        refused = log.bind(calling_ae_title=calling, called_ae_title=called, address=address)
        if settings.require_called_ae_title and called != settings.ae_title:
            refused.warning("association rejected: called AE title not recognised")
            return _CALLED_NOT_RECOGNISED
        callers = settings.allowed_callers
        if callers and not any(caller.allows(calling, address) for caller in callers):
            refused.warning("association rejected: calling AE title not recognised, or not from this address")
            return _CALLING_NOT_RECOGNISED
        if full := self._admit(association, (calling, address)):
            setting, limit = full
            refused.warning("association rejected: limit reached", limit=limit, setting=setting)
            return _LOCAL_LIMIT_EXCEEDED
        return None

    def _admit(self, association: Association, caller: tuple[str, str]) -> tuple[str, int] | None:
        """Give the association one of the places, or say which limit stands against it: its setting and number."""
        with self._lock:  # judged and taken at once: of many that ask together none gets a place too many
            self._forget_ended()
            callers = [connection.caller for connection in self._connections.values() if connection.caller]
            if len(callers) >= self._settings.max_associations:
                return "max_associations", self._settings.max_associations
            if callers.count(caller) >= self._settings.max_associations_per_caller:
                return "max_associations_per_caller", self._settings.max_associations_per_caller
            if connection := self._connections.get(association):
                connection.caller = caller
        return None

    def _on_established(self, event: evt.Event) -> None:
        if connection := self._open().get(event.assoc):
            connection.is_established = True
            connection.socket.timeout_s = self._settings.transfer_timeout_seconds
            connection.socket.begin_message()
        log.debug("association established", calling_ae_title=event.assoc.requestor.ae_title.strip())

    def _on_echo(self, event: evt.Event) -> int:
        if connection := self._open().get(event.assoc):
            connection.socket.begin_message()
        return SUCCESS

    def _on_report(self, event: evt.Event) -> tuple[int, None]:
        """A destination's word on what we sent it. PS3.4 J.3.3"""
        connection = self._open().get(event.assoc)
        if connection:
            connection.is_storing = True
            connection.socket.begin_message()
        try:
            return answer_report(event, self._settle), None
        finally:
            if connection:
                connection.is_storing = False

    def _on_store(self, event: evt.Event) -> int | Dataset:
        connection = self._open().get(event.assoc)
        if connection:
            connection.is_storing = True
            connection.socket.begin_message()
        try:
            return self._status_of(event, connection)
        finally:
            # pynetdicom keeps the request until the next one is there: two instances a sender instead of one.
            event.request.DataSet = None
            if connection:
                connection.is_storing = False

    def _status_of(self, event: evt.Event, connection: _Connection | None) -> int | Dataset:
        """Keep the instance and say what became of it. PS3.4 B.2.3; the only place that chooses a status."""
        request = event.request
        calling_ae_title = event.assoc.requestor.ae_title.strip()
        bound = log.bind(calling_ae_title=calling_ae_title, sop_instance_uid=str(request.AffectedSOPInstanceUID))
        try:
            if request.DataSet is None:  # PS3.7 9.3.1.1: a C-STORE-RQ without its data set
                raise NotUnderstoodError("the request has no data set")
            encoded = request.DataSet.getbuffer()
            received = read_received(encoded, str(event.context.transfer_syntax), self._settings.max_instance_mb << 20)
            check_request(received.facts, str(request.AffectedSOPClassUID), str(request.AffectedSOPInstanceUID))
            check_request(received.facts, str(event.context.abstract_syntax), str(request.AffectedSOPInstanceUID))
            if connection:
                connection.study_instance_uid = received.facts.study_instance_uid
            outcome = self._inbox.accept(encoded, received, calling_ae_title, event.assoc.requestor.address)
        except NotUnderstoodError as error:
            bound.warning("instance refused", status="C000", reason=str(error))
            return _failure(CANNOT_UNDERSTAND, str(error))
        except DataSetMismatchError as error:
            bound.warning("instance refused", status="A900", reason=str(error))
            return _failure(DATA_SET_MISMATCH, str(error))
        except OutOfResourcesError as error:
            bound.error("instance refused", status="A700", reason=str(error))
            return _failure(OUT_OF_RESOURCES, str(error))
        except DBAPIError as error:
            # Locked for longer than we wait, or its disk is full: the sender may well try again.
            bound.error("instance refused", status="A700", reason=f"database: {error.orig}")
            self._on_database_error(error)
            return _failure(OUT_OF_RESOURCES, "the database is not available")
        except Exception:  # noqa: BLE001 - the one place; no exception may escape to the sender as C211
            # pynetdicom would answer C211 and the sender would never learn that it was our fault.
            bound.exception("instance refused", status="0110")
            return _failure(PROCESSING_FAILURE, "internal error")
        facts = received.facts
        phi = {"patient_id": facts.patient_id, "accession_number": facts.accession_number}
        bound.info("instance received", outcome=outcome, study_instance_uid=facts.study_instance_uid, phi=phi)
        return SUCCESS


def _failure(status: int, comment: str) -> Dataset:
    answer = Dataset()
    answer.Status = status
    answer.ErrorComment = comment[:64]  # PS3.7 C: VR LO
    return answer


def server_tls(tls: Tls) -> ssl.SSLContext:
    """Mutual TLS, 1.2 at least. BCP 195

    Raises:
        SettingsError: a file cannot be read, or does not hold what it should; the message names it.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    in_hand = f"{tls.certificate} with {tls.key}"
    try:
        for path in (tls.certificate, tls.key, tls.ca):
            path.open("rb").close()  # ssl's own error would not say which
        context.load_cert_chain(tls.certificate, tls.key)
        in_hand = str(tls.ca)
        context.load_verify_locations(tls.ca)
    except ssl.SSLError as error:
        raise SettingsError(f"listener.tls: {in_hand}: {error.reason or error}") from error
    except OSError as error:
        raise SettingsError(f"listener.tls: {error.filename}: {error.strerror}") from error
    context.verify_mode = ssl.CERT_REQUIRED
    return context
