"""Completeness: quiet time, the longest wait, open associations."""

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from pacs_agent.study.completeness import CompletenessRule, CompletenessRules, complete_because

START = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)
RULE = CompletenessRule(quiet_s=60, max_wait_s=900)
receipts = st.lists(st.integers(0, 2000), min_size=1, max_size=20)


def at(seconds: float) -> datetime:
    return START + timedelta(seconds=seconds)


def reason(
    received: list[int], now: float, *, ready: float = 0, held: bool = False, rule: CompletenessRule = RULE
) -> str | None:
    return complete_because(
        rule,
        now=at(now),
        ready_since=at(ready),
        last_received_at=at(max(received)),
        waiting_since=at(min(received)),
        is_held_by_association=held,
    )


@given(receipts, st.randoms(use_true_random=False), st.integers(0, 4000), st.booleans())
def test_order_of_receipt_does_not_matter(received: list[int], random: object, now: int, held: bool) -> None:
    """The same instances in any order are complete at the same moment for the same reason."""
    shuffled = received.copy()
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    # As the record keeps them: the latest of the times so far, and the first.
    last = waiting = at(shuffled[0])
    for seconds in shuffled[1:]:
        last, waiting = max(last, at(seconds)), min(waiting, at(seconds))
    found = complete_because(
        RULE, now=at(now), ready_since=at(0), last_received_at=last, waiting_since=waiting, is_held_by_association=held
    )
    assert found == reason(received, now, held=held)


@given(receipts, st.integers(0, 4000), st.integers(0, 4000), st.booleans())
def test_longest_wait_wins_over_everything(received: list[int], now: int, ready: int, held: bool) -> None:
    """Past the longest wait a study is complete, however open its association and however late its last instance."""
    found = reason(received, now, ready=ready, held=held)
    assert (found is not None and found.startswith("longest wait")) == (now - min(received) >= RULE.max_wait_s)


@given(receipts, st.integers(0, 4000), st.integers(0, 4000))
def test_complete_stays_complete(received: list[int], now: int, later: int) -> None:
    """Time alone never makes a complete study incomplete."""
    if reason(received, now) is not None:
        assert reason(received, now + later) is not None


@given(receipts, st.integers(0, 899))
def test_association_holds_until_the_longest_wait(received: list[int], waited: int) -> None:
    """An open association on the study holds it, quiet or not."""
    assert reason(received, min(received) + waited, held=True) is None


def test_quiet_time_counts_from_the_last_instance_and_from_readiness() -> None:
    """59 s are not enough, 60 are; what came to a closed door does not count as quiet."""
    assert reason([0, 100], 159) is None
    assert reason([0, 100], 160) == "quiet for 60 s"
    assert reason([0, 100], 209, ready=150) is None
    assert reason([0, 100], 210, ready=150) == "quiet for 60 s"


def test_caller_has_its_own_rule() -> None:
    """A calling AE title with settings of its own gets those, any other the default."""
    quick = CompletenessRule(20, 100)
    rules = CompletenessRules(RULE, {"XR1": quick})
    assert rules.of("XR1") is quick
    assert rules.of("XR2") is RULE
    assert reason([0], 20, rule=quick) == "quiet for 20 s"
    assert reason([0], 100, rule=quick, held=True) == "longest wait of 100 s since its first instance"
