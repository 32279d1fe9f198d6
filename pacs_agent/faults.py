"""Named places between two durable steps, at which the process can be made to kill itself: for the crash harness.

Nothing is there unless the environment variable `PACS_AGENT_CRASH_AT` was set when the process started: a point's name,
or `name:3` for the third time that it is reached.
"""

import os
import signal
from collections.abc import Callable

VARIABLE = "PACS_AGENT_CRASH_AT"
POINTS = (
    "instance written",  # its bytes are safe, its name is not
    "instance named",  # in the inbox, without a row
    "instance recorded",  # not acknowledged yet
    "studies claimed",
    "images answered",  # in the analysis process, which alone dies
    "images analysed",
    "object written",  # its bytes are safe, its name is not
    "object kept",  # in the outbox, without a row
    "analysis recorded",
    "deliveries claimed",
    "object stored",  # at the destination; the record does not know
    "delivery recorded",
    "commitment recorded",  # and not asked for
    "commitment asked",
    "commitment settled",  # and not answered
)


def _nothing(name: str) -> None:
    """Go on."""


def _killing(wanted: str) -> Callable[[str], None]:
    at, _, times = wanted.partition(":")
    if at not in POINTS:
        raise ValueError(f"{VARIABLE}: there is no point {at!r}")
    left = int(times or 1)

    def reached(name: str) -> None:
        nonlocal left
        if name == at:
            left -= 1
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    return reached


crash_point: Callable[[str], None] = _killing(os.environ[VARIABLE]) if VARIABLE in os.environ else _nothing
