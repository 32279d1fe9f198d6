"""Sockets that cannot be held for good: a bound on every PDU and on every instance, a deadline for every transfer.

pynetdicom reads with blocking sockets and believes a PDU's length; this is where a slow or lying sender ends.
"""

import select
import socket
import ssl
import time
from dataclasses import dataclass
from typing import Any, cast

import structlog
from pynetdicom.transport import AssociationSocket, ThreadedAssociationServer

from pacs_agent.receive.upperlayer import LOOK_AGAIN_S, Turn
from pacs_agent.wire import read_exactly

log = structlog.get_logger()

# An A-ASSOCIATE-RQ with 128 contexts of many transfer syntaxes stays below this. PS3.8 9.3.2
MAX_CONTROL_PDU_BYTES = 1 << 20
_QUICK_ACK: int | None = getattr(socket, "TCP_QUICKACK", None)  # Linux


class BoundedSocket(AssociationSocket):
    """An association's socket with bounds; made from the one that pynetdicom made.

    Attributes:
        timeout_s: the deadline of one instance, from its first byte to its last.
        last_received: `time.monotonic()` of the latest bytes.
        message_bytes: bytes since `begin_message`, for the bound of one instance.
        message_began: when the first of them were awaited.
    """

    max_pdu_bytes: int
    max_message_bytes: int
    timeout_s: float
    last_received: float
    message_bytes: int
    message_began: float | None
    _turn: Turn
    _poll: select.poll

    @classmethod
    def adopt(
        cls, plain: AssociationSocket, *, max_pdu_bytes: int, max_message_bytes: int, timeout_s: float
    ) -> "BoundedSocket":
        """Take over the state of *plain*, which must not be used after."""
        bounded = cls.__new__(cls)
        bounded.__dict__.update(plain.__dict__)
        bounded.max_pdu_bytes = max(max_pdu_bytes + 6, MAX_CONTROL_PDU_BYTES)
        bounded.max_message_bytes = max_message_bytes
        bounded.timeout_s = timeout_s
        bounded.last_received = time.monotonic()
        bounded.begin_message()
        bounded._turn = Turn(bounded.assoc)
        bounded._poll = select.poll()
        bounded._poll.register(cast(socket.socket, bounded.socket), select.POLLIN)
        return bounded

    def begin_message(self) -> None:
        """Count the bytes of the next instance from here."""
        self.message_bytes = 0
        self.message_began = None

    @property
    def ready(self) -> bool:
        """Whether there is something to read: waits for the user's answer, or else for the peer, but not for long."""
        sock = self.socket
        if sock is None or not self._is_connected:
            time.sleep(0.001)  # the end of the association is near; do not spin until then
            return False
        if isinstance(sock, ssl.SSLSocket) and sock.pending():
            return True
        wait_s = 0 if self._turn.await_answer() else LOOK_AGAIN_S
        return bool(self._poll.poll(wait_s * 1000))

    def recv(self, nr_bytes: int) -> bytearray:
        """Read exactly *nr_bytes*, fewer only where the peer closed.

        Raises:
            OSError: a bound or the deadline is passed; pynetdicom then closes the association.
        """
        if nr_bytes > self.max_pdu_bytes:
            raise OSError(f"a PDU of {nr_bytes} bytes")
        self.message_bytes += nr_bytes
        if self.message_bytes > self.max_message_bytes:
            raise OSError(f"an instance of more than {self.max_message_bytes} bytes")
        if self.message_began is None:
            self.message_began = time.monotonic()
        sock = cast(socket.socket, self.socket)
        received = read_exactly(sock, nr_bytes, self.message_began + self.timeout_s)
        self.last_received = time.monotonic()
        sock.settimeout(self.timeout_s)
        if _QUICK_ACK is not None:
            # Many senders' last packet waits for the acknowledgement of the one before (Nagle), which Linux would
            # delay by 40 ms: an eternity for a small image. The option holds for a few packets only.
            sock.setsockopt(socket.IPPROTO_TCP, _QUICK_ACK, 1)
        return received


@dataclass(slots=True)
class Newcomer:
    """A connection that pynetdicom does not know yet: in its TLS handshake, or about to be handed over."""

    since: float
    socket: socket.socket


class BoundedServer(ThreadedAssociationServer):
    """An acceptor that bounds connections without an association and shakes TLS hands off the accepting thread.

    Attributes:
        newcomers: by address.
        make_room: asked before each connection; False refuses it. Set by the listener, which knows the others.
    """

    daemon_threads = True
    request_queue_size = 128
    handshake_timeout_s: float = 30
    make_room: Any = staticmethod(lambda: True)

    def __init__(self, *arguments: Any, **named: Any) -> None:
        self.newcomers: dict[Any, Newcomer] = {}
        super().__init__(*arguments, **named)

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accept, and no more: a TLS handshake here would let one silent client stop everybody."""
        return cast(socket.socket, self.socket).accept()

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Whether there is room for one more connection."""
        if not self.make_room():
            log.warning("connection refused: too many", address=client_address[0])
            return False
        self.newcomers[client_address] = Newcomer(time.monotonic(), request)
        return True

    def finish_request(self, request: Any, client_address: Any) -> None:
        """Shake hands where TLS is on, then hand over to pynetdicom."""
        try:
            if self.ssl_context:
                request.settimeout(self.handshake_timeout_s)
                try:
                    request = self.ssl_context.wrap_socket(request, server_side=True, do_handshake_on_connect=False)
                    newcomer = self.newcomers.get(client_address)
                    if newcomer is None:
                        raise OSError("closed: too many connections")
                    newcomer.socket = request
                    request.do_handshake()
                except (ssl.SSLError, OSError) as error:
                    log.warning("TLS handshake failed", address=client_address[0], reason=str(error))
                    request.close()
                    return
            super().finish_request(request, client_address)
        finally:
            self.newcomers.pop(client_address, None)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """One line instead of socketserver's traceback on stderr."""
        log.warning("connection failed", address=client_address[0], exc_info=True)


def hang_up(sock: socket.socket | None) -> None:
    """End a connection from another thread: whoever reads it finds its end."""
    try:
        if sock is not None:
            # Not SSLSocket's own: that would take its TLS state away from under the reader.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)
    except OSError:
        return  # it has ended already
