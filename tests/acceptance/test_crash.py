"""The crash harness, shortly: every named point and some moments by chance, with a real PACS."""

import subprocess
import sys
from pathlib import Path

import pytest
from peers import ORTHANC

from pacs_agent.faults import POINTS

HARNESS = Path(__file__).parents[2] / "benchmarks" / "crash.py"
KILLS = 20

pytestmark = [pytest.mark.orthanc, pytest.mark.timeout(600)]


def test_no_kill_breaks_a_promise() -> None:
    """Twenty kills: nothing that was acknowledged is lost, no study stays behind, no report is doubled."""
    if not Path(ORTHANC).exists():
        pytest.skip(f"{ORTHANC} is not installed (Debian package orthanc)")
    done = subprocess.run(
        [sys.executable, str(HARNESS), "--kills", str(KILLS)], capture_output=True, text=True, timeout=540, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{KILLS} kills" in done.stdout
    for point in POINTS:
        assert f"\n{point} " in f"\n{done.stdout}"


def test_a_point_that_is_none_is_refused() -> None:
    """A harness that asks for a point by a wrong name is not told that nothing happened."""
    program = "import pacs_agent.faults"
    asked = {"PACS_AGENT_CRASH_AT": "nowhere"}
    done = subprocess.run([sys.executable, "-c", program], env=asked, capture_output=True, text=True, check=False)
    assert "there is no point 'nowhere'" in done.stderr
