"""The bundle that ships, on phantoms that it never saw and on real radiographs, from outside.

The figures of its full evaluation, of 2,041 images, stand in docs/demonstration.
"""

import json
import subprocess
import sys
from pathlib import Path

PATIENTS = 60  # some 190 images in train, of a seed that the bundle was not fitted on
SEED = 77


def run(*arguments: object) -> str:
    """What a command prints; it must succeed."""
    done = subprocess.run(
        [sys.executable, "-m", *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_tells_normal_from_abnormal_phantoms_and_its_guard_lets_them_pass(tmp_path: Path) -> None:
    """Unseen phantoms of default difficulty: study-level kappa at least .70, the guard flags at most 4 %."""
    run("training", "phantoms", tmp_path / "data", "--patients", PATIENTS, "--seed", SEED)
    run("training", "evaluate", "demonstration", tmp_path / "data", "--split", "train", "--out", tmp_path / "out")
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["study"]["overall"]["n"] > PATIENTS * 0.7
    assert metrics["study"]["overall"]["kappa"]["value"] >= 0.70
    assert metrics["guard"] <= 0.04


def test_its_guard_stops_real_radiographs(samples: Path) -> None:
    """At least nine of ten real radiographs are undetermined by what is seen in them, whatever part is claimed."""
    pictures = sorted(path for path in (samples / "radiographs").iterdir() if path.suffix in (".png", ".jpg"))
    pictures += sorted((samples / "dicom").glob("*.dcm"))
    assert len(pictures) >= 10
    for claim in ((), ("--body-part", "wrist")):
        answers = json.loads(run("pacs_agent", "predict", *pictures, *claim, "--json"))
        stopped = [
            answer
            for answer in answers
            if answer["finding"] == "undetermined"
            and any(words in answer["reason"] for words in ("unlike those", "picture looks like"))
        ]
        assert len(stopped) >= 0.9 * len(pictures)
