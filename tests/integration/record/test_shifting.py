"""A clock that was set: waits last as long as they would have, what happened keeps its time."""

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from records import Record
from sqlalchemy import event

from pacs_agent.record import claiming, delivering, shifting
from pacs_agent.record.times import from_text


@pytest.fixture
def record(tmp_path: Path) -> Record:
    """A record whose clock the test moves."""
    made = Record.open(tmp_path / "pacs-agent.db")
    made.clock = lambda: made.moment
    return made


def set_clock(record: Record, by: timedelta) -> None:
    """As the daemon does."""

    def take_back() -> None:
        record.moment -= by

    def follow() -> Callable[[], None]:
        record.moment += by
        return take_back

    shifting.shift_waits(record, by, follow)


def seconds_left(record: Record, sql: str) -> float:
    """Of the one wait that the statement reads."""
    [(at,)] = record.select(sql)
    return (from_text(at) - record.moment).total_seconds()


@pytest.mark.parametrize("hours", [5, -5])
def test_every_wait_lasts_as_long_as_before(record: Record, hours: int) -> None:
    """Quiet time, longest wait, lease, next attempt, deadline, outage, commitment."""
    record.receive(1, "1.4")
    record.queue()
    deadline = "2026-01-05T11:00:00.000Z"
    record.analyse(record.claim()[0], pacs=("waiting", 1))
    record.receive(2, "1.5")
    record.queue()
    record.claim()
    record.receive(3, "1.6")
    delivering.claim_due(record, "pacs", 10, 60)
    delivering.destinations_since(record, ["pacs"])
    delivering.mark_unreachable(record, "pacs", [], "away", record.moment + timedelta(seconds=30))
    with record.write() as connection:
        connection.exec_driver_sql(f"UPDATE delivery SET commitment_due_at = '{deadline}'")
    waits = [
        "SELECT last_received_at FROM study WHERE study_instance_uid = '1.6'",
        "SELECT waiting_since FROM study WHERE study_instance_uid = '1.6'",
        "SELECT received_at FROM study WHERE study_instance_uid = '1.6'",
        "SELECT claimed_until FROM study WHERE claimed_until IS NOT NULL",
        "SELECT next_attempt_at FROM delivery",
        "SELECT deliver_before FROM delivery",
        "SELECT commitment_due_at FROM delivery",
        "SELECT next_attempt_at FROM destination",
    ]
    happened = "SELECT received_at FROM instance UNION ALL SELECT received_at FROM study WHERE state = 'analysed'"
    before, was = [seconds_left(record, sql) for sql in waits], record.select(happened)
    set_clock(record, timedelta(hours=hours))
    assert [seconds_left(record, sql) for sql in waits] == pytest.approx(before)
    assert record.select(happened) == was
    assert record.select("SELECT event, detail FROM event ORDER BY id DESC LIMIT 1") == [
        ("clock set", f"by {hours * 3600:+d} s")
    ]


@pytest.mark.parametrize("hours", [5, -5])
def test_clock_is_set_while_a_study_is_in_the_analysis(record: Record, hours: int) -> None:
    """Its time limit counts from a receipt that was moved; it goes to what was there before it, and nowhere else."""
    delivering.destinations_since(record, ["before"])
    record.receive(1, "1.4")
    record.tick(1)
    delivering.destinations_since(record, ["since"])
    record.queue()
    [claim] = record.claim()
    set_clock(record, timedelta(hours=hours))
    record.analyse(claim, before=("waiting", 1))
    assert seconds_left(record, "SELECT deliver_before FROM delivery") == 3600 - 1
    assert delivering.destinations_at_receipt(record, "1.4") == ({"before"} if hours < 0 else {"before", "since"})


def test_finished_study_of_the_future_is_complete_in_time(record: Record) -> None:
    """A further image of a study whose last one came before the clock was set back waits its quiet time, no longer."""
    record.receive(1)
    record.queue()
    record.analyse(record.claim()[0])
    set_clock(record, timedelta(hours=-5))
    record.receive(2)
    [waiting] = claiming.receiving_studies(record)
    assert from_text(waiting.last_received_at) <= record.moment


def test_clock_that_was_set_back_while_nobody_ran(record: Record) -> None:
    """At a start nothing is of the future, and what is not stays."""
    record.receive(1, "1.4")
    record.tick(5 * 3600)
    record.receive(2, "1.5")
    record.tick(-5 * 3600 + 60)
    [(untouched,)] = record.select("SELECT last_received_at FROM study WHERE study_instance_uid = '1.4'")
    shifting.forget_future(record)
    times = record.select("SELECT last_received_at, waiting_since FROM study ORDER BY id")
    assert times == [(untouched, untouched), (record.now(), record.now())]


def test_shift_that_is_not_written_is_made_again(record: Record) -> None:
    """The disk is full at the commit: the clock does not run ahead of the rows."""

    def refuse(_: Any) -> None:
        raise OSError

    record.receive(1)
    before, moment = record.select("SELECT last_received_at, waiting_since FROM study"), record.moment
    event.listen(record._engine, "commit", refuse)
    with pytest.raises(OSError, match=r"^$"):
        set_clock(record, timedelta(hours=-5))
    event.remove(record._engine, "commit", refuse)
    assert (record.select("SELECT last_received_at, waiting_since FROM study"), record.moment) == (before, moment)


def test_start_with_a_clock_of_long_ago_ages_nothing(record: Record) -> None:
    """What is finished keeps its time, or retention would take all of it once the clock is right."""
    record.receive(1)
    record.queue()
    record.analyse(record.claim()[0])
    before = record.select("SELECT received_at, last_received_at FROM study")
    record.tick(-20 * 365 * 86_400)
    shifting.forget_future(record)
    set_clock(record, timedelta(days=20 * 365))
    assert record.select("SELECT received_at, last_received_at FROM study") == before


def test_further_image_of_a_study_of_the_future_waits_its_quiet_time(record: Record) -> None:
    """A clock that was ahead wrote when its last image came, and was set back while nobody ran."""
    record.tick(5 * 3600)
    record.receive(1)
    record.queue()
    record.analyse(record.claim()[0])
    record.tick(-5 * 3600)
    shifting.forget_future(record)
    record.receive(2)
    [waiting] = claiming.receiving_studies(record)
    assert waiting.last_received_at == record.now()
