"""The members' logits on a hold-out in, the weights by which the ensemble combines them out.

Each gate is fitted alone, on the pictures of its part; the default weights on those of all other parts. A gate has 300
parameters and a hold-out few pictures: it is kept only where it predicts unseen patients better than equal weights do.
The members' weights are never touched.
"""

from collections.abc import Callable, Sequence
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from pacs_agent.analyse.network import GATED_PARTS, GatedEnsemble

STEPS = 100
LEARNING_RATE = 1e-2
WEIGHT_DECAY = 1e-2
FOLDS = 5


def fit_gates(
    ensemble: GatedEnsemble,
    member_logits: Tensor,
    labels: Tensor,
    parts: Sequence[str],
    patients: NDArray[np.int64],
    seed: int,
) -> dict[str, dict[str, float | bool | None]]:
    """Fit the gates and the default weights in place.

    Args:
        ensemble: whose gates.
        member_logits: (N, 3, classes) of the hold-out, on the CPU like the ensemble.
        labels: int64 (N,).
        parts: N names.
        patients: int64 (N,), so that folds are of patients.
        seed: of the gates' first weights.

    Returns:
        For each gate and for `default`: log loss on unseen patients with equal weights, with the fitted ones (None
        where there are too few to tell), and whether those were kept.
    """
    told: dict[str, dict[str, float | bool | None]] = {}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # on tensors this small threads wait for each other longer than they work
    for group in (*GATED_PARTS, "default"):
        chosen = np.array([(part if part in GATED_PARTS else "default") == group for part in parts], bool)
        logits, truth, people = member_logits[chosen], labels[chosen], patients[chosen]
        module = nn.ParameterList([ensemble.default_weights])
        if group != "default":
            module = ensemble.part_attention[group.upper()]  # type: ignore[assignment]
        weigh = _weigher(ensemble, group)
        with torch.random.fork_rng(devices=[]):
            losses = _on_unseen(module, weigh, logits, truth, people, seed)
            kept = losses is not None and losses[1] < losses[0]
            _equal_weights(module, seed)
            if kept:
                _fit(module, weigh, logits, truth)
        equal, fitted = losses or (None, None)
        told[group] = {"log_loss_equal": equal, "log_loss_fitted": fitted, "kept": kept}
    torch.set_num_threads(threads)
    return told


def _on_unseen(
    module: nn.Module,
    weigh: Callable[[Tensor], Tensor],
    logits: Tensor,
    labels: Tensor,
    patients: NDArray[np.int64],
    seed: int,
) -> tuple[float, float] | None:
    """Log loss of equal and of fitted weights, over folds of patients; None where there is too little to fold."""
    if len(np.unique(patients)) < 2 * FOLDS:
        return None
    people = np.random.default_rng(seed).permutation(np.unique(patients))
    equal = fitted = 0.0
    for fold in range(FOLDS):
        unseen = torch.from_numpy(np.isin(patients, people[fold::FOLDS]))
        _equal_weights(module, seed)
        with torch.no_grad():
            equal += float(_loss(weigh, logits[unseen], labels[unseen], "sum"))
        _fit(module, weigh, logits[~unseen], labels[~unseen])
        with torch.no_grad():
            fitted += float(_loss(weigh, logits[unseen], labels[unseen], "sum"))
    return equal / len(labels), fitted / len(labels)


def _fit(module: nn.Module, weigh: Callable[[Tensor], Tensor], logits: Tensor, labels: Tensor) -> None:
    optimizer = torch.optim.AdamW(module.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
    for _ in range(STEPS):
        optimizer.zero_grad()
        _loss(weigh, logits, labels, "mean").backward()  # type: ignore[no-untyped-call]
        optimizer.step()


def _loss(weigh: Callable[[Tensor], Tensor], logits: Tensor, labels: Tensor, reduction: str) -> Tensor:
    combined = (weigh(logits).unsqueeze(2) * logits).sum(dim=1)
    return functional.cross_entropy(combined, labels, reduction=reduction)


def _weigher(ensemble: GatedEnsemble, group: str) -> Callable[[Tensor], Tensor]:
    """Logits of a group to the weights (N, 3) that `GatedEnsemble.member_weights` gives them, that gate alone."""
    if group == "default":
        return lambda logits: torch.softmax(ensemble.default_weights, dim=0).expand(len(logits), -1)
    gate = ensemble.part_attention[group.upper()]
    return lambda logits: cast(Tensor, gate(logits.flatten(start_dim=1)))


@torch.no_grad()
def _equal_weights(module: nn.Module, seed: int) -> None:
    """Start where every member counts the same: the last layer is zero, the first one random."""
    torch.manual_seed(seed)
    for layer in module.modules():
        if isinstance(layer, nn.Linear):
            layer.reset_parameters()
    last = list(module.parameters())[-2:]
    for parameter in last:
        parameter.fill_(0.0 if parameter.dim() > 1 or len(last) > 1 else 1.0)
