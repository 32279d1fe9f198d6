"""Callers that hold a place as long as they are let: silent, slow, or never ending what they began."""

import select
import threading
import time
from collections.abc import Callable
from contextlib import suppress

from callers import Caller, Sent

TIMEOUTS_S = {"association": 4, "idle": 5, "transfer": 4}  # of a listener that is held up


def _trickle(caller: Caller, content: bytes) -> None:
    for byte in content:
        caller.socket.sendall(bytes([byte]))
        if select.select([caller.socket], [], [], 1)[0]:  # it is hung up: nobody answers half a PDU
            return


# What they do, the timeout that bounds it, and whether they have an association before.
KINDS: dict[str, tuple[Callable[[Caller, Sent], None], str, bool]] = {
    "connected and silent": (lambda _caller, _sent: None, "association", False),
    "a byte a second of a request": (lambda caller, _: _trickle(caller, caller.request), "association", False),
    "associated and silent": (lambda _caller, _sent: None, "idle", True),
    "a byte a second of an instance": (lambda caller, sent: _trickle(caller, sent.messages), "transfer", True),
    "half an instance": (lambda caller, sent: caller.socket.sendall(sent.messages[:50_000]), "transfer", True),
}


class Holder(threading.Thread):
    """One of them, in a thread of its own.

    Args:
        port: of the listener.
        kind: one of `KINDS`.
        sent: an instance that it never sends to its end.

    Attributes:
        held_s: how long it was let; endless while it lasts.
    """

    def __init__(self, port: int, kind: str, sent: Sent) -> None:
        super().__init__(daemon=True)
        self.kind = kind
        self.held_s = float("inf")
        self._act, _, is_associated = KINDS[kind]
        self._sent = sent
        self._caller = Caller(port, "XR9")
        self._began = time.monotonic()
        if is_associated:
            self._caller.associate()

    def run(self) -> None:
        """Do it, then wait for the end."""
        with self._caller, suppress(OSError):
            self._act(self._caller, self._sent)
            while self._caller.socket.recv(4096):
                pass
        self.held_s = time.monotonic() - self._began
