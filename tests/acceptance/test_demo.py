"""`pacs-agent demo`, the first thing a new user runs."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

from pydicom import dcmread

from pacs_agent.demonstration import LESIONS
from pacs_agent.study.bodypart import BODY_PARTS


def test_demo_shows_seven_parts_and_a_report(tmp_path: Path) -> None:
    """Without settings: seven delivered studies, each with the finding that its phantom has, and a report as text."""
    done = subprocess.run(
        [sys.executable, "-m", "pacs_agent", "demo", "--keep", str(tmp_path / "kept")],
        capture_output=True,
        text=True,
        timeout=240,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    for part in BODY_PARTS:
        (row,) = (line for line in done.stdout.splitlines() if line.startswith("PH") and f" {part} " in line)
        assert ("abnormal" if part in LESIONS else "normal") in row.split()
    assert done.stdout.count("delivered") == len(BODY_PARTS)
    assert "AI RESEARCH - UNVERIFIED" in done.stdout
    # A report of each study, and of each abnormal one's two images a heat map.
    kinds = Counter(dcmread(path).Modality for path in (tmp_path / "kept" / "pacs").glob("*.dcm"))
    assert kinds == {"SR": len(BODY_PARTS), "OT": 2 * len(LESIONS)}


def test_init_writes_settings_that_check_accepts(tmp_path: Path) -> None:
    """`init` then `check` in an empty folder: one line each, nothing fails."""
    run = [sys.executable, "-m", "pacs_agent"]
    subprocess.run([*run, "init"], cwd=tmp_path, check=True, capture_output=True, timeout=60)
    checked = subprocess.run([*run, "check"], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False)
    assert "settings" in checked.stdout
    assert "hash holds" in checked.stdout
    assert subprocess.run([*run, "init"], cwd=tmp_path, capture_output=True, timeout=60, check=False).returncode == 2


def test_predict_answers_for_each_file(samples: Path) -> None:
    """DICOM and PNG side by side, one JSON object a file; a leg is refused by its header."""
    files = [
        samples / "dicom" / "HAND_kodak_cr500_J2KR.dcm",
        samples / "dicom" / "EXTREMITY_fuji_RG3_J2KR.dcm",
        next((samples / "radiographs").glob("*.png")),
    ]
    done = subprocess.run(
        [sys.executable, "-m", "pacs_agent", "predict", *map(str, files), "--json"],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    hand, leg, png = json.loads(done.stdout)
    assert set(hand) == {
        "file", "body_part", "body_part_source", "abnormal_probability", "member_probabilities", "finding", "reason",
    }  # fmt: skip
    assert (hand["body_part"], hand["finding"], len(hand["member_probabilities"])) == ("hand", "undetermined", 3)
    assert leg["body_part"] is None
    assert "lower leg" in leg["reason"]
    assert "--body-part" in png["reason"]
    for answer in (hand, leg, png):
        assert "the picture is unlike those that the model was trained on" in answer["reason"]
