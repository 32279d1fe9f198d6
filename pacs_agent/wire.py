"""Bytes off a connection before a given moment: a timeout of each read alone would let a peer drip for good."""

import socket
import time


def read_exactly(sock: socket.socket, count: int, deadline: float) -> bytearray:
    """*count* bytes, fewer only where the peer closed.

    Args:
        sock: its timeout is changed.
        count: of bytes.
        deadline: of `time.monotonic()`.

    Raises:
        TimeoutError: they did not come in time.
    """
    received = bytearray(count)
    done = 0
    with memoryview(received) as view:
        while done < count:
            left = deadline - time.monotonic()
            if left <= 0:
                raise TimeoutError("a transfer took too long")
            sock.settimeout(left)
            size = sock.recv_into(view[done:])
            if not size:
                break
            done += size
    del received[done:]
    return received
