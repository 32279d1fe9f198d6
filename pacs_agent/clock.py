"""The present, for the record: UTC that goes forward second by second, whatever happens to the machine's clock.

Enters: the machine's clock and one that nobody can set. Leaves: moments, and by how much the first has jumped. What is
to be done about a jump is the daemon's matter.
"""

import threading
import time
from collections.abc import Callable
from datetime import datetime, timedelta

from pacs_agent.record.times import Clock, utc_now

SLEW = timedelta(seconds=2)
"""What a clock that is kept right by small steps may differ in a second: followed at once, and nobody waits for it."""


def seconds_since_boot() -> float:
    """Runs on while the machine sleeps, so that a sleep is no jump. clock_gettime(2)"""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class SteadyClock:
    """UTC by a clock that cannot be set, from the machine's clock at the start on.

    Args:
        wall: the machine's clock.
        elapsed_s: seconds since any moment.
    """

    def __init__(self, wall: Clock = utc_now, elapsed_s: Callable[[], float] = seconds_since_boot) -> None:
        self._wall = wall
        self._elapsed_s = elapsed_s
        self._lock = threading.Lock()
        self._begun_at = self._begin()

    def __call__(self) -> datetime:
        """The present."""
        with self._lock:
            return self._begun_at + timedelta(seconds=self._elapsed_s())

    def jump(self) -> timedelta:
        """By how much the machine's clock is ahead; zero while it runs as clocks do, which is followed."""
        ahead = self._wall() - self()
        if abs(ahead) > SLEW:
            return ahead
        self.follow()
        return timedelta()

    def follow(self) -> Callable[[], None]:
        """Believe the machine's clock; what is returned takes that back."""
        with self._lock:
            before, self._begun_at = self._begun_at, self._begin()

        def take_back() -> None:
            with self._lock:
                self._begun_at = before

        return take_back

    def _begin(self) -> datetime:
        return self._wall() - timedelta(seconds=self._elapsed_s())
