"""Bytes off a connection before a given moment: a timeout of each read alone would let a peer drip for good."""

import socket
import time

_AT_FIRST = 1 << 20  # bytes of room; twice as much each time that it is full


def read_exactly(sock: socket.socket, count: int, deadline: float) -> bytearray:
    """*count* bytes, fewer only where the peer closed.

    Args:
        sock: its timeout is changed.
        count: of bytes.
        deadline: of `time.monotonic()`.

    Raises:
        TimeoutError: they did not come in time.
    """
    received = bytearray(min(count, _AT_FIRST))
    done = 0
    while done < count:
        left = deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError("a transfer took too long")
        if done == len(received):  # a length that a peer only states costs nothing
            received.extend(bytes(min(count - done, done)))
        sock.settimeout(left)
        with memoryview(received) as view:
            size = sock.recv_into(view[done:])
        if not size:
            break
        done += size
    del received[done:]
    return received
