"""A clock that goes forward second by second, whatever happens to the machine's."""

from datetime import UTC, datetime, timedelta

from pacs_agent.clock import SteadyClock

START = datetime(2026, 1, 5, 10, 0, tzinfo=UTC)


class Machine:
    """A machine whose clock the test sets."""

    def __init__(self) -> None:
        self.wall = START
        self.elapsed_s = 1000.0
        self.clock = SteadyClock(lambda: self.wall, lambda: self.elapsed_s)

    def run(self, seconds: float, ahead: float = 0) -> None:
        """Time passes; the wall clock makes *ahead* seconds too many."""
        self.elapsed_s += seconds
        self.wall += timedelta(seconds=seconds + ahead)


def test_jump_is_told_and_not_followed() -> None:
    """In either direction, until it is said that it is to be."""
    for ahead in (5 * 3600, -5 * 3600):
        machine = Machine()
        machine.run(10, ahead)
        assert machine.clock() == START + timedelta(seconds=10)
        assert machine.clock.jump() == timedelta(seconds=ahead)
        assert machine.clock() == START + timedelta(seconds=10)
        machine.clock.follow()
        assert machine.clock() == machine.wall
        assert not machine.clock.jump()


def test_clock_that_is_kept_right_is_followed() -> None:
    """Small steps add up to no jump."""
    machine = Machine()
    for _ in range(100):
        machine.run(1, 0.5)
        assert not machine.clock.jump()
        assert machine.clock() == machine.wall
