"""Processes that make or decode pictures: how many in, a pool of them out, gone with its end or with the parent.

Never imports torch: every process would pay for it.
"""

import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import connection, get_context, parent_process


@contextmanager
def processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of *count* processes; what waits in it when the block is left is dropped."""
    # spawn: a forked child of a process that has threads, or has used CUDA, may hang.
    pool = ProcessPoolExecutor(count, get_context("spawn"), _end_with_the_parent)
    try:
        yield pool
    finally:
        pool.shutdown(cancel_futures=True)


def _end_with_the_parent() -> None:
    """Leave Ctrl-C to the parent, and go when it has gone, however it went."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = parent_process()
    if parent is not None:
        sentinel = parent.sentinel
        threading.Thread(target=lambda: (connection.wait([sentinel]), os._exit(1)), daemon=True).start()
