"""When the daemon looks: each second, and each night by APScheduler. It says when; the database says what."""

import threading
from collections.abc import Callable

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger

_NIGHT = CronTrigger(hour=2, minute=30, timezone="UTC")
_NAME = "each night"


class Schedule:
    """Calls until it is shut down; a call that is late is made once, never twice at a time.

    The seconds are counted by a clock that nobody can set: APScheduler waits for a time of day, and where that is set
    back it would wait for as long again.

    Args:
        each_second: raises nothing.
        each_night: raises nothing.
        second_s: how long a second is.
    """

    def __init__(
        self, *, each_second: Callable[[], None], each_night: Callable[[], None], second_s: float = 1.0
    ) -> None:
        self._each_second = each_second
        self._second_s = second_s
        self._stop = threading.Event()
        self._ticking = threading.Thread(target=self._tick, name="each second")
        self._scheduler = BackgroundScheduler(
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}, timezone="UTC"
        )
        self._scheduler.add_job(each_night, _NIGHT, id=_NAME)
        self._scheduler.start()
        self._ticking.start()

    def clock_was_set(self) -> None:
        """Find the next night anew."""
        self._scheduler.reschedule_job(_NAME, trigger=_NIGHT)

    def shutdown(self) -> None:
        """End, once what is in hand has ended."""
        self._stop.set()
        self._scheduler.shutdown(wait=True)
        self._ticking.join()

    def _tick(self) -> None:
        while not self._stop.wait(self._second_s):
            self._each_second()
