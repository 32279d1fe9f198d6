"""A guard fitted on features of known classes has the rates asked for, and flags strangers and swapped parts."""

from typing import Any

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from pacs_agent.analyse.guard import make_guard
from training.guard import SHRINKAGE, _whitened, choose_thresholds, fit_guard
from training.preset import GuardRule

PARTS = ("hand", "shoulder", "wrist")
FEATURES = 12


def features(count: int, seed: int) -> tuple[torch.Tensor, list[str], np.ndarray]:
    """Correlated features around a centre for each part and label."""
    random = torch.Generator().manual_seed(seed)
    mixing = torch.randn(FEATURES, FEATURES, generator=torch.Generator().manual_seed(0)) + 3 * torch.eye(FEATURES)
    centres = 12 * torch.randn(6, FEATURES, generator=torch.Generator().manual_seed(1))
    classes = torch.arange(count) % 6
    found = centres[classes] + torch.randn(count, FEATURES, generator=random) @ mixing
    return found, [PARTS[c // 2] for c in classes.tolist()], (classes % 2).numpy()


def test_rates_are_those_asked_for() -> None:
    """On other pictures of the same kind about 2 % are flagged; swapped headers and strangers nearly all are."""
    fitted, held_out, others = features(3000, 1), features(1000, 2), features(3000, 3)
    settings, tensors = fit_guard(*fitted, *held_out[:2], GuardRule(false_alarms=0.02))
    assert settings.measured["flagged"] <= 0.02
    guard = make_guard(settings, tensors)
    assert np.mean([v.flagged for v in guard.judge(others[0], others[1])]) < 0.04
    swapped = guard.judge(others[0], [PARTS[(PARTS.index(part) + 1) % 3] for part in others[1]])
    assert np.mean([v.flagged for v in swapped]) > 0.95
    assert any("picture looks like" in (verdict.reason or "") for verdict in swapped)
    strangers = 40 * torch.randn(200, FEATURES, generator=torch.Generator().manual_seed(9))
    assert np.mean([v.flagged for v in guard.judge(strangers, [None] * 200)]) > 0.95


@pytest.mark.parametrize("wrong", [0, 3, 200])
def test_both_thresholds_together_keep_the_rate(wrong: int) -> None:
    """However many parts are mistaken on the hold-out, not more than the rule allows is flagged, and nearly so many."""
    random = np.random.default_rng(wrong)
    contradicted = np.zeros(1000)
    contradicted[:wrong] = random.uniform(0.5, 1, wrong)
    distances = random.chisquare(5, 1000)
    part, distance = choose_thresholds(contradicted, distances, GuardRule(false_alarms=0.05))
    flagged = (contradicted > part) | (distances > distance)
    assert 0.9 <= part <= 1
    assert 0.045 <= flagged.mean() <= 0.05


class LargestDouble(TorchDispatchMode):
    """The most elements of any float64 tensor that an operation makes."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for one in made if isinstance(made, (tuple, list)) else (made,):
            if isinstance(one, torch.Tensor) and one.dtype == torch.float64:
                self.elements = max(self.elements, one.numel())
        return made


def test_features_are_not_doubled() -> None:
    """No float64 copy of all features is made (0.6 GB for `pretrained`); what is whitened is the shrunk covariance."""
    found, parts, labels = features(5000, 1)
    centred = found - found.mean(dim=0)
    classes = torch.tensor([PARTS.index(part) for part in parts]) * 2 + torch.from_numpy(labels)
    with LargestDouble() as seen:
        whiten, centres = _whitened(centred, classes)
    assert 0 < seen.elements < centred.numel() / 2
    means = torch.stack([centred[classes == one].double().mean(dim=0) for one in range(6)])
    within = centred.double() - means[classes]
    covariance = within.T @ within / (len(within) - 6)
    shrunk = (1 - SHRINKAGE) * covariance + SHRINKAGE * torch.diag(covariance.diagonal())
    identity = whiten.double().T @ shrunk @ whiten.double()
    torch.testing.assert_close(identity, torch.eye(FEATURES, dtype=torch.float64), atol=1e-4, rtol=0)
    torch.testing.assert_close(centres, means.float() @ whiten)
