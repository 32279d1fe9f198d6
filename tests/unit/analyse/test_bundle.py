"""A bundle is read whole and right, or refused with one line."""

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from pacs_agent.analyse import network
from pacs_agent.analyse.bundle import ARCHITECTURES, Calibration, load_bundle, write_bundle
from pacs_agent.errors import BundleError

FIELDS: dict[str, Any] = {
    "name": "tiny",
    "version": "1.2",
    "architecture": {"name": "enhanced_ensemble"},
    "input": {"size": 32, "fit": "letterbox", "source_longest_side": 512, "channels": 3, "mean": 0.4, "std": 0.2},
    "body_parts": ["hand", "wrist"],
    "calibration": {"temperature": 1.5, "bias": -0.1},
    "thresholds": {"default": 0.4, "per_part": {"hand": 0.6}},
    "trained": True,
    "requires_quality_control_subject": False,
    "intended_use": "tests",
    "provenance": {"seed": 4},
}


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A safetensors file of one small tensor."""
    path = tmp_path / "some.safetensors"
    save_file({"a": np.arange(6, dtype=np.float32)}, path)
    return path


@pytest.fixture
def folder(tmp_path: Path, weights: Path) -> Path:
    """A good bundle of it."""
    return write_bundle(tmp_path / "tiny", FIELDS, weights).path


def edit(folder: Path, **changes: Any) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def refusal(name_or_path: str | Path) -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(name_or_path)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_what_is_written_is_read(folder: Path, weights: Path) -> None:
    """A written bundle reads back with its fields, its weights' hash and its identity."""
    bundle = load_bundle(str(folder))
    digest = hashlib.sha256(weights.read_bytes()).hexdigest()
    assert bundle.weights_path.read_bytes() == weights.read_bytes()
    assert bundle.manifest.weights_sha256 == digest
    assert (bundle.manifest.input.size, bundle.manifest.input.fit) == (32, "letterbox")
    assert bundle.manifest.gating == "by_part"
    identity = bundle.identity
    assert (identity.name, identity.version, identity.bundle_hash) == ("tiny", "1.2", digest)
    assert (identity.trained, identity.calibrated, identity.requires_quality_control_subject) == (True, True, False)


def test_threshold_is_the_parts_own_or_the_default(folder: Path) -> None:
    """A part without a threshold of its own, and no part at all, get the default one."""
    bundle = load_bundle(folder)
    assert [bundle.threshold(part) for part in ("hand", "wrist", "elbow", None)] == [0.6, 0.4, 0.4, 0.4]


def test_demonstration_ships_trained_and_for_phantoms_only() -> None:
    """The shipped bundle resolves by its name, is under 10 MB, has a guard and figures, and is for phantoms only."""
    bundle = load_bundle("demonstration")
    assert sum(path.stat().st_size for path in bundle.path.iterdir()) < 10_000_000
    assert bundle.manifest.intended_use == "demonstration: synthetic phantoms"
    assert bundle.identity.requires_quality_control_subject
    assert len(bundle.manifest.body_parts) == 7
    assert bundle.identity.trained
    assert bundle.identity.calibrated
    assert bundle.manifest.guard is not None
    assert bundle.manifest.name == "demonstration"


@dataclass
class Fault:
    """A way to break a bundle, and what the refusal must tell."""

    make: Callable[[Path], Any]
    tells: str


def without(key: str) -> Callable[[Path], None]:
    def drop(folder: Path) -> None:
        path = folder / "model.json"
        fields = json.loads(path.read_text())
        del fields[key]
        path.write_text(json.dumps(fields))

    return drop


def flip_last_byte(folder: Path) -> None:
    path = folder / "weights.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


def cut_short(folder: Path) -> None:
    path = folder / "weights.safetensors"
    content = path.read_bytes()[:-4]
    path.write_bytes(content)
    edit(folder, weights_sha256=hashlib.sha256(content).hexdigest())


FAULTS = {
    "wrong hash": Fault(flip_last_byte, "weights.safetensors has SHA-256"),
    "tensors cut short under a right hash": Fault(cut_short, "not a safetensors file"),
    "no weights": Fault(lambda folder: (folder / "weights.safetensors").unlink(), "weights.safetensors is missing"),
    "no manifest": Fault(lambda folder: (folder / "model.json").unlink(), "model.json is missing"),
    "bad JSON": Fault(lambda folder: (folder / "model.json").write_text("{"), "not JSON"),
    "deep JSON": Fault(lambda folder: (folder / "model.json").write_text("[" * 100_000), "not JSON"),
    "not UTF-8": Fault(lambda folder: (folder / "model.json").write_bytes(b'{"name": "\xff"}'), "not JSON"),
    "not an object": Fault(lambda folder: (folder / "model.json").write_text("[]"), "not a JSON object"),
    "endless manifest": Fault(lambda folder: (folder / "model.json").write_text(" " * 2_000_000), "larger than"),
    "another format version": Fault(lambda folder: edit(folder, format_version=2), "format version 2 is unknown"),
    "unknown architecture": Fault(lambda folder: edit(folder, architecture={"name": "vgg"}), "architecture 'vgg'"),
    "unknown key": Fault(lambda folder: edit(folder, colour="red"), "colour: there is no such key"),
    "missing key": Fault(without("trained"), "trained: Field required"),
    "impossible input": Fault(lambda folder: edit(folder, input={**FIELDS["input"], "std": 0}), "std above 0"),
    "stranger's threshold": Fault(lambda folder: edit(folder, thresholds={"per_part": {"knee": 0.5}}), "knee"),
    "threshold beyond 1": Fault(lambda folder: edit(folder, thresholds={"default": 1.5}), "thresholds.default"),
    "calibration by zero": Fault(
        lambda folder: edit(folder, calibration={"temperature": 0, "bias": 0}), "calibration.temperature"
    ),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_faulty_bundle_is_refused_in_one_line(folder: Path, fault: Fault) -> None:
    """Any fault is a BundleError of one line that names the bundle and the fault."""
    fault.make(folder)
    message = refusal(folder)
    assert message.startswith(f"bundle {folder}: ")
    assert fault.tells in message


def test_neither_folder_nor_name(tmp_path: Path) -> None:
    """What is neither is refused with the names that ship."""
    assert "demonstration" in refusal("no-such-bundle")
    assert "neither a folder" in refusal(tmp_path / "nothing")


def test_write_leaves_nothing_behind_when_refused(tmp_path: Path, weights: Path) -> None:
    """Fields or weights that would be refused leave neither a bundle nor a temporary folder."""
    text = tmp_path / "text"
    text.write_text("no tensors")
    for fields, tensors in (({**FIELDS, "trained": None}, weights), (FIELDS, text), (FIELDS, tmp_path / "absent")):
        with pytest.raises(BundleError, match="new"):
            write_bundle(tmp_path / "new", fields, tensors)
    assert {path.name for path in tmp_path.iterdir()} == {"some.safetensors", "text"}


def test_write_never_touches_a_bundle_that_is_there(folder: Path, weights: Path) -> None:
    """A folder with something in it is refused and stays as it was."""
    before = (folder / "model.json").read_bytes()
    with pytest.raises(BundleError, match="cannot be written"):
        write_bundle(folder, {**FIELDS, "name": "other"}, weights)
    assert (folder / "model.json").read_bytes() == before


def test_moved_bundle_still_holds(folder: Path, tmp_path: Path) -> None:
    """A bundle does not know where it lies."""
    moved = Path(shutil.move(folder, tmp_path / "elsewhere"))
    assert load_bundle(moved).manifest.name == "tiny"


def test_calibration_acts_on_the_logit() -> None:
    """Temperature 1 and bias 0 change nothing; a temperature pulls towards .5, a bias moves; ends stay in bounds."""
    assert Calibration(temperature=1, bias=0).apply(0.3) == pytest.approx(0.3)
    assert Calibration(temperature=2, bias=0).apply(0.9) == pytest.approx(0.75)
    assert Calibration(temperature=1, bias=1).apply(0.5) == pytest.approx(0.7310586)
    extreme = Calibration(temperature=0.001, bias=0)
    assert (extreme.apply(0), extreme.apply(1)) == (pytest.approx(0), pytest.approx(1))


def test_architectures_are_those_of_the_network_module() -> None:
    """The names that a manifest may use are the ones that can be built."""
    assert set(network.ARCHITECTURES) == ARCHITECTURES


def test_bundle_and_supervisor_do_not_import_torch() -> None:
    """The listening process imports both, and must stay small."""
    code = "import sys, pacs_agent.analyse.bundle, pacs_agent.analyse.supervisor; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
