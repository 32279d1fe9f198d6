"""Gates learn which member to believe for their part, and are kept only where unseen patients agree."""

import numpy as np
import pytest
import torch

from pacs_agent.analyse.network import EnhancedEnsemble
from training.gate import fit_gates


def hold_out(informative: dict[str, int], count: int = 300) -> tuple[torch.Tensor, torch.Tensor, list[str], np.ndarray]:
    """Logits in which, for each part, one member knows and the others guess with as much conviction."""
    random = torch.Generator().manual_seed(1)
    parts = [part for part in informative for _ in range(count)]
    labels = torch.randint(0, 2, (len(parts),), generator=random)
    margins = 3 * torch.randn(len(parts), 3, generator=random)
    for index, part in enumerate(parts):
        if informative[part] >= 0:
            margins[index, informative[part]] = 3.0 if labels[index] else -3.0
    logits = torch.stack([-margins / 2, margins / 2], dim=2)
    return logits, labels, parts, np.arange(len(parts)) // 2


@pytest.fixture
def ensemble() -> EnhancedEnsemble:
    torch.manual_seed(0)
    return EnhancedEnsemble().eval()


def test_each_gate_finds_the_member_that_knows(ensemble: EnhancedEnsemble) -> None:
    """Shoulder, elbow and the others have different members to believe, and do; the members stay as they were."""
    logits, labels, parts, patients = hold_out({"shoulder": 0, "elbow": 1, "hand": 2})
    before = {name: tensor.clone() for name, tensor in ensemble.model1.state_dict().items()}
    told = fit_gates(ensemble, logits, labels, parts, patients, seed=1)
    weights = ensemble.member_weights(logits, parts).detach()
    for member, part in enumerate(("shoulder", "elbow", "hand")):
        mine = weights[[place for place, name in enumerate(parts) if name == part]].mean(dim=0)
        assert int(mine.argmax()) == member
        assert float(mine[member]) > 0.45
    assert all(gate["kept"] and gate["log_loss_fitted"] < gate["log_loss_equal"] for gate in told.values())
    assert all(torch.equal(tensor, before[name]) for name, tensor in ensemble.model1.state_dict().items())


def test_nothing_to_know_leaves_equal_weights(ensemble: EnhancedEnsemble) -> None:
    """Where no member knows, or there are few patients, every member counts the same."""
    logits, labels, parts, patients = hold_out({"elbow": -1, "hand": 1}, count=8)
    told = fit_gates(ensemble, logits, labels, parts, patients, seed=1)
    weights = ensemble.member_weights(logits, parts).detach()
    torch.testing.assert_close(weights, torch.full_like(weights, 1 / 3))
    assert not any(gate["kept"] for gate in told.values())
    assert all(gate["log_loss_equal"] is None and gate["log_loss_fitted"] is None for gate in told.values())


def test_a_seed_decides(ensemble: EnhancedEnsemble) -> None:
    """The same seed fits the same gates whatever the random state, which is left alone."""
    data = hold_out({"shoulder": 0, "hand": 1}, count=40)
    fit_gates(ensemble, *data, seed=4)
    first = [parameter.clone() for parameter in ensemble.part_attention.parameters()]
    torch.manual_seed(99)
    state = torch.get_rng_state()
    fit_gates(ensemble, *data, seed=4)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(first, ensemble.part_attention.parameters(), strict=True))
