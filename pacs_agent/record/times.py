"""Times as the database holds them: UTC text of fixed width."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

Clock = Callable[[], datetime]


def utc_now() -> datetime:
    """The present, timezone-aware, in UTC."""
    return datetime.now(UTC)


def to_text(moment: datetime) -> str:
    """`2026-01-31T08:15:00.123Z`."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.") + f"{moment.microsecond // 1000:03d}Z"


def from_text(text: str) -> datetime:
    """The moment that `to_text` wrote."""
    return datetime.fromisoformat(text)


def deadline(since: str, hours: float | None) -> str | None:
    """So much later, as text again; None where there is no limit."""
    return None if hours is None else to_text(from_text(since) + timedelta(hours=hours))
