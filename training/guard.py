"""Pooled features of train and of a hold-out in, a guard out: its tensors and thresholds.

The body-part head is a linear classifier of standardised features; the distance is Mahalanobis' to the nearest class
(part and label) with one covariance for all, shrunk towards its diagonal. Both are fitted on what the members learnt
from; the thresholds on the calibration hold-out, for the false alarms that the preset allows in all.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from pacs_agent.analyse.bundle import GuardSettings
from pacs_agent.analyse.guard import TENSORS, make_guard
from training.preset import GuardRule

SHRINKAGE = 0.05
DIRECTIONS = 384  # of the whitened space at most; more would make the bundle heavy
CHUNK_ROWS = 1024  # of float64 at a time: a copy of all features would be twice their size
HEAD_STEPS = 300
HEAD_DECAY = 1e-3  # on standardised features


def fit_guard(
    features: Tensor,
    parts: Sequence[str],
    labels: NDArray[np.int64],
    held_out: Tensor,
    held_out_parts: Sequence[str],
    rule: GuardRule,
) -> tuple[GuardSettings, dict[str, Tensor]]:
    """Fit a guard.

    Args:
        features: (N, D) float32 of the pictures that the members learnt from, on the CPU.
        parts: N names.
        labels: (N,).
        held_out: (M, D) of the calibration hold-out.
        held_out_parts: M names.
        rule: how many false alarms.

    Returns:
        The manifest's section and the tensors `guard.*`.
    """
    names = tuple(sorted(set(parts)))
    place = {name: index for index, name in enumerate(names)}
    seen = torch.tensor([place[part] for part in parts])
    mean = features.mean(dim=0)
    classes = seen * 2 + torch.from_numpy(labels)
    centred = features - mean
    whiten, centres = _whitened(centred, classes)
    weight, bias = _head(centred, seen, len(names))
    tensors = dict(zip(TENSORS, (mean, whiten, centres, weight, bias), strict=True))
    unset = GuardSettings(
        parts=names, part_threshold=1.0, distance_threshold=float("1e30"), false_alarm_rate=rule.false_alarms
    )
    probabilities, distances = make_guard(unset, tensors).measure(held_out)
    best, guessed = probabilities.max(dim=1)
    wrong = guessed != torch.tensor([place[part] for part in held_out_parts])
    contradicted = np.where(wrong.numpy(), best.double().numpy(), 0.0)
    part_threshold, distance_threshold = choose_thresholds(contradicted, distances.double().numpy(), rule)
    by_part = contradicted > part_threshold
    by_distance = distances.double().numpy() > distance_threshold
    settings = GuardSettings(
        parts=names,
        part_threshold=part_threshold,
        distance_threshold=distance_threshold,
        false_alarm_rate=rule.false_alarms,
        measured={
            "hold_out_images": len(held_out),
            "flagged": float((by_part | by_distance).mean()),
            "flagged_as_unlike": float(by_distance.mean()),
            "flagged_as_another_part": float((by_part & ~by_distance).mean()),
            "part_accuracy": float((~wrong).double().mean()),
            "distance_median": float(distances.median()),
        },
    )
    return settings, tensors


def choose_thresholds(
    contradicted: NDArray[np.float64], distances: NDArray[np.float64], rule: GuardRule
) -> tuple[float, float]:
    """The two thresholds: at most half the false alarms by part, and by both together not more than the rule allows.

    Args:
        contradicted: (M,) probability of the part seen where it is not the header's, else 0.
        distances: (M,).
        rule: how many.

    Returns:
        Of the part's probability and of the distance.
    """
    count = len(distances)
    half = int(rule.false_alarms / 2 * count)
    part_threshold = max(rule.least_part_probability, float(np.sort(contradicted)[::-1][half]) if count > half else 0.0)
    left = distances[contradicted <= part_threshold]
    allowed = int(rule.false_alarms * count) - (count - len(left))
    # Of the others, so many may lie beyond; the threshold is the greatest that does not.
    beyond = np.sort(left)[::-1]
    distance_threshold = float(beyond[min(max(allowed, 0), len(beyond) - 1)]) if len(beyond) else 1.0
    return min(part_threshold, 1.0), float(np.nextafter(np.float32(distance_threshold), np.float32(np.inf)))


def _whitened(centred: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """The map to the space where the covariance within classes is the identity, and the classes' means there."""
    present, place, counts = torch.unique(classes, return_inverse=True, return_counts=True)
    means = torch.zeros(len(present), centred.shape[1], dtype=torch.float64)
    covariance = torch.zeros(centred.shape[1], centred.shape[1], dtype=torch.float64)
    chunks = [slice(start, start + CHUNK_ROWS) for start in range(0, len(centred), CHUNK_ROWS)]
    for rows in chunks:
        means.index_add_(0, place[rows], centred[rows].double())
    means /= counts.unsqueeze(1)
    for rows in chunks:
        within = centred[rows].double() - means[place[rows]]
        covariance.addmm_(within.T, within)
    covariance /= max(1, len(centred) - len(present))
    diagonal = torch.diag(covariance.diagonal() + 1e-9)
    values, vectors = torch.linalg.eigh((1 - SHRINKAGE) * covariance + SHRINKAGE * diagonal)
    kept = slice(max(0, len(values) - DIRECTIONS), None)
    whiten = (vectors[:, kept] / values[kept].clamp_min(1e-9).sqrt()).float()
    return whiten, means.float() @ whiten


def _head(centred: Tensor, seen: Tensor, parts: int) -> tuple[Tensor, Tensor]:
    """A linear classifier of features less their mean, which are used up: (parts, D) and (parts,)."""
    spread = centred.std(dim=0).clamp_min(1e-6)
    inputs = centred.div_(spread)
    weight = torch.zeros(parts, inputs.shape[1], requires_grad=True)
    bias = torch.zeros(parts, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=HEAD_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = functional.cross_entropy(inputs @ weight.T + bias, seen) + HEAD_DECAY * weight.square().sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(loss)  # type: ignore[no-untyped-call]
    return weight.detach() / spread, bias.detach()
