"""APScheduler triggers and nothing else: it says when; the database says what."""

from collections.abc import Callable

from apscheduler.schedulers.background import BackgroundScheduler
from apscheduler.triggers.cron import CronTrigger
from apscheduler.triggers.interval import IntervalTrigger


def start_schedule(*, each_second: Callable[[], None], each_night: Callable[[], None]) -> BackgroundScheduler:
    """Start calling; the caller shuts the scheduler down. A call that is late is made once, never twice at a time."""
    scheduler = BackgroundScheduler(
        job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": None}, timezone="UTC"
    )
    scheduler.add_job(each_second, IntervalTrigger(seconds=1, timezone="UTC"), id="each second")
    scheduler.add_job(each_night, CronTrigger(hour=2, minute=30, timezone="UTC"), id="each night")
    scheduler.start()
    return scheduler
