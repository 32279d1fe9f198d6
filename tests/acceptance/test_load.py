"""The load benchmark, shortly: its three questions to a real daemon, and what it calls growth."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from watching import Sample, growths

LOAD = Path(__file__).parents[2] / "benchmarks" / "load.py"


def load(*arguments: str) -> str:
    """What it printed; it found nothing that does not hold."""
    done = subprocess.run(
        [sys.executable, str(LOAD), *arguments], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_bad_associations_hold_nobody_up() -> None:
    """Half of twenty at once are idle or slow: the others are served, and no place is held beyond its timeout."""
    told = load("associations", "--associations", "20", "--each", "3")
    assert "20 connections at once: 10 send 3 instances each" in told


def test_all_that_is_sent_is_delivered_once() -> None:
    """What modalities sent at once with analysis and delivery is there, and every study's report at the PACS once."""
    assert "24 instances acknowledged" in load("soak", "--instances", "24")


def test_a_backlog_waits_on_the_disk() -> None:
    """The analysis stopped: all is received, until the disk floor, in bounded memory; and all goes on afterwards."""
    assert "were stored before the first A700" in load("backlog", "--backlog", "24")


def samples(memory_mb: float, seconds: float) -> list[Sample]:
    """A run of 400 studies whose memory and time a study are, at the end, so many times what they were."""
    found = [Sample(0.0, 0, {"memory": 100.0}, 0.0)]
    for done in range(1, 401):
        share = done / 400
        last = found[-1]
        figures = {"memory": 100 + share * 100 * (memory_mb - 1)}
        found.append(
            replace(last, done=done, figures=figures, at=last.at + 1 + share * (seconds - 1), processor_s=float(done))
        )
    return found


def test_growth_is_seen() -> None:
    """Of what grows, and of nothing else."""
    grown = {each.what: each.grows for each in growths(samples(1.5, 1.0), 1.15, {})}
    assert grown == {"memory": True, "seconds a study": False, "processor seconds a study": False}
    grown = {each.what: each.grows for each in growths(samples(1.0, 2.0), 1.15, {})}
    assert grown == {"memory": False, "seconds a study": True, "processor seconds a study": False}
    assert not any(each.grows for each in growths(samples(1.5, 1.0), 1.15, {"memory": 1.6}))


def test_a_run_too_short_says_so() -> None:
    """No ratio is made of nothing."""
    with pytest.raises(ValueError, match="too short"):
        growths(samples(1.0, 1.0)[:4], 1.15, {})
