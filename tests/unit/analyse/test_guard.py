"""The guard names what it saw, and flags what is of another part or unlike the training data; a bundle carries it."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from pacs_agent.analyse.bundle import Bundle, GuardSettings, load_bundle, write_bundle
from pacs_agent.analyse.ensemble import Ensemble
from pacs_agent.analyse.guard import TENSORS, UNLIKE, Guard, make_guard
from pacs_agent.errors import BundleError

SETTINGS = GuardSettings(
    parts=("hand", "wrist"), part_threshold=0.95, distance_threshold=2.0, false_alarm_rate=0.02, measured={}
)


def tensors(features: int = 2) -> dict[str, torch.Tensor]:
    """The first feature tells hand (below 0) from wrist (above); classes lie at -3 and 3, with a spread of 1."""
    weight = torch.zeros(2, features)
    weight[:, 0] = torch.tensor([-1.0, 1.0])
    centres = torch.zeros(2, features)
    centres[:, 0] = torch.tensor([-3.0, 3.0])
    values = (torch.zeros(features), torch.eye(features), centres, weight, torch.zeros(2))
    return dict(zip(TENSORS, values, strict=True))


@pytest.fixture
def guard() -> Guard:
    return make_guard(SETTINGS, tensors())


@pytest.mark.parametrize(
    ("features", "stated", "reason"),
    [
        ((-3.0, 0.0), "hand", None),
        ((-3.0, 0.0), None, None),
        ((3.0, 0.0), None, None),
        ((3.0, 0.5), "hand", "header says hand, picture looks like wrist, 0.99"),
        ((0.5, 0.0), "hand", None),  # wrist rather than hand, and not surely so
        ((3.0, 9.0), "wrist", UNLIKE),
        ((3.0, 9.0), "hand", UNLIKE),
        ((float("nan"), 0.0), "hand", UNLIKE),
    ],
)
def test_verdicts(guard: Guard, features: tuple[float, float], stated: str | None, reason: str | None) -> None:
    """Sure of another part: said so, rounded down; far from all classes, or no number: unlike; else nothing."""
    (verdict,) = guard.judge(torch.tensor([features]), [stated])
    assert verdict.reason == reason
    assert verdict.flagged == (reason is not None)


def test_distance_and_part_are_told(guard: Guard) -> None:
    """The distance is the root mean square in whitened space to the nearest class; the part has its probability."""
    first, second = guard.judge(torch.tensor([[-3.0, 2.0], [4.0, 0.0]]), ["hand", "wrist"])
    assert (first.seen_part, second.seen_part) == ("hand", "wrist")
    assert first.distance == pytest.approx(2 / 2**0.5)
    assert second.distance == pytest.approx(1 / 2**0.5)
    assert second.part_probability == pytest.approx(1 / (1 + np.exp(-8)), rel=1e-5)


def with_guard(out: Path, spoil: Any = None, guard: GuardSettings | None = SETTINGS) -> Bundle:
    """The shipped bundle with another guard over its 3 × 240 features, or with none."""
    shipped = load_bundle("demonstration")
    state = {name: tensor for name, tensor in load_file(shipped.weights_path).items() if not name.startswith("guard.")}
    if guard:
        state |= tensors(720)
    if spoil:
        spoil(state)
    out.mkdir()
    save_file(state, out / "weights")
    fields = shipped.manifest.model_dump(mode="json", exclude={"weights_sha256", "guard"})
    fields["guard"] = guard.model_dump(mode="json") if guard else None
    return write_bundle(out / "bundle", fields, out / "weights")


def test_a_bundle_carries_it(tmp_path: Path) -> None:
    """Every picture gets a verdict and the probability that it has without a guard; without one there are none."""
    inputs = np.random.default_rng(1).integers(0, 256, (3, 160, 160)).astype(np.uint8)
    parts = ["hand", None, "shoulder"]
    plain = Ensemble(with_guard(tmp_path / "plain", guard=None), "cpu").examine(inputs, parts, 2)
    guarded = Ensemble(with_guard(tmp_path / "a"), "cpu").examine(inputs, parts, 2)
    assert plain.verdicts == (None, None, None)
    assert all(verdict is not None for verdict in guarded.verdicts)
    np.testing.assert_array_equal(plain.probabilities, guarded.probabilities)


@pytest.mark.parametrize(
    ("spoil", "tells"),
    [
        (lambda state: state.pop("guard.whiten"), "guard.whiten"),
        (lambda state: state.update({"guard.head.bias": torch.zeros(3)}), "guard.head.bias has shape"),
    ],
)
def test_a_broken_one_is_refused(tmp_path: Path, spoil: Any, tells: str) -> None:
    """A tensor that is missing or of another shape is told in one line."""
    with pytest.raises(BundleError, match=tells) as caught:
        Ensemble(with_guard(tmp_path / "a", spoil), "cpu")
    assert "\n" not in str(caught.value)


def test_a_bundle_of_timm_says_so_without_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where timm is not installed, one line says that the bundle needs it."""
    shipped = load_bundle("demonstration")
    fields = shipped.manifest.model_dump(mode="json", exclude={"weights_sha256"})
    fields["architecture"] = {"name": "backbone_ensemble", "arguments": {"backbones": ["resnet18"] * 3}}
    weights = tmp_path / "weights"
    shutil.copy(shipped.weights_path, weights)
    bundle = write_bundle(tmp_path / "bundle", fields, weights)
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(BundleError, match="backbone_ensemble needs timm"):
        Ensemble(bundle, "cpu")
