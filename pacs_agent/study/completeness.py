"""When a study is complete: times in, a reason or None out. Pure; order of receipt does not matter."""

from dataclasses import dataclass
from datetime import datetime, timedelta


@dataclass(frozen=True, slots=True)
class CompletenessRule:
    """Seconds for one calling AE title."""

    quiet_s: float
    max_wait_s: float


@dataclass(frozen=True, slots=True)
class CompletenessRules:
    """The default rule and those of calling AE titles."""

    default: CompletenessRule
    callers: dict[str, CompletenessRule]

    def of(self, calling_ae_title: str) -> CompletenessRule:
        """The rule for a caller."""
        return self.callers.get(calling_ae_title, self.default)


def complete_because(
    rule: CompletenessRule,
    *,
    now: datetime,
    ready_since: datetime,
    last_received_at: datetime,
    waiting_since: datetime,
    is_held_by_association: bool,
) -> str | None:
    """Why the study is complete now, or None while it is not.

    Args:
        rule: the caller's rule.
        now: the present.
        ready_since: when the daemon became ready: what came to a closed door before does not count as quiet.
        last_received_at: receipt of the study's latest instance, of whatever series.
        waiting_since: receipt of its first instance that has not been analysed yet.
        is_held_by_association: an open association's latest instance belongs to it.
    """
    if now - waiting_since >= timedelta(seconds=rule.max_wait_s):
        return f"longest wait of {rule.max_wait_s:g} s since its first instance"
    quiet_since = max(last_received_at, ready_since)
    if not is_held_by_association and now - quiet_since >= timedelta(seconds=rule.quiet_s):
        return f"quiet for {rule.quiet_s:g} s"
    return None
