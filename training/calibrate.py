"""Means of the calibration hold-out's studies in, calibration and thresholds out. Pure numpy.

A study's mean is calibrated after averaging, as the daemon does it: sigmoid(logit(mean) / temperature + bias). The
thresholds then apply to calibrated probabilities.
"""

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize

from pacs_agent.analyse.bundle import Calibration, Thresholds
from training.preset import ThresholdRule
from training.studies import Floats, Studies

SLOPES = (0.05, 20.0)  # 1 / temperature: hold-outs that a line separates would drive it without end
MARGIN = 1e-12  # as in `Calibration.apply`


def fit_calibration(means: Floats, labels: NDArray[np.bool_]) -> Calibration:
    """Temperature and bias of the least log loss (Platt scaling of the mean's logit).

    Args:
        means: (S,) of the studies' images, 0 to 1.
        labels: (S,), of both classes.
    """
    logits = _logit(means)
    # Platt's targets (1999): a class of n counts as (n + 1) / (n + 2), so that separable hold-outs have an end.
    positive, negative = int(labels.sum()), int((~labels).sum())
    targets = np.where(labels, (positive + 1) / (positive + 2), 1 / (negative + 2))

    def loss(place: Floats) -> tuple[float, Floats]:
        scores = place[0] * logits + place[1]
        errors = 1 / (1 + np.exp(-scores)) - targets
        total = np.logaddexp(0, scores) - targets * scores
        return float(total.mean()), np.array([(errors * logits).mean(), errors.mean()])

    tight = {"ftol": 1e-14, "gtol": 1e-9}
    start, bounds = np.array([0.5, 0.0]), [SLOPES, (-20.0, 20.0)]
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options=tight)
    return Calibration(temperature=float(1 / found.x[0]), bias=float(found.x[1]))


def calibrated(calibration: Calibration, means: Floats) -> Floats:
    """`Calibration.apply`, of many."""
    return np.array([calibration.apply(mean) for mean in means.tolist()], np.float64)


def fit_thresholds(studies: Studies, probabilities: Floats, rule: ThresholdRule) -> Thresholds:
    """The global threshold, and each part's drawn towards it: a part of few studies has no threshold of its own.

    Args:
        studies: of the calibration hold-out.
        probabilities: (S,), calibrated.
        rule: what is maximised.
    """
    default = best_threshold(probabilities, studies.labels, rule.objective)
    per_part: dict[str, float] = {}
    for part in np.unique(studies.parts):
        mine = studies.parts == part
        own = best_threshold(probabilities[mine], studies.labels[mine], rule.objective)
        count = int(mine.sum())
        share = count / (count + rule.shrink_studies) if count + rule.shrink_studies else 0.0
        per_part[str(part)] = round(share * own + (1 - share) * default, 4)
    return Thresholds(default=round(default, 4), per_part=per_part)


def best_threshold(probabilities: Floats, labels: NDArray[np.bool_], objective: str) -> float:
    """The middle of the widest gap among those that maximise *objective* when greater means abnormal.

    Args:
        probabilities: (S,), 0 to 1.
        labels: (S,); of one class only: 0.5.
        objective: `kappa`, `youden` (sensitivity + specificity) or `accuracy`.
    """
    positives, negatives = int(labels.sum()), int((~labels).sum())
    if not positives or not negatives:
        return 0.5
    values, inverse = np.unique(probabilities, return_inverse=True)
    # Cut k calls abnormal all from the k-th distinct value on.
    hits = positives - np.concatenate([[0], np.cumsum(np.bincount(inverse, labels, len(values)))])
    alarms = negatives - np.concatenate([[0], np.cumsum(np.bincount(inverse, ~labels, len(values)))])
    total = positives + negatives
    accuracy = (hits + negatives - alarms) / total
    if objective == "youden":
        worth = hits / positives - alarms / negatives
    elif objective == "accuracy":
        worth = accuracy
    else:
        called = (hits + alarms) / total
        chance = called * positives / total + (1 - called) * negatives / total
        worth = (accuracy - chance) / (1 - chance)
    edges = np.concatenate([[0.0], values, [1.0]])
    best = np.flatnonzero(worth >= worth.max() - 1e-12)
    cut = best[np.argmax(edges[best + 1] - edges[best])]
    return float((edges[cut] + edges[cut + 1]) / 2)


def _logit(means: Floats) -> Floats:
    clipped = np.clip(means, MARGIN, 1 - MARGIN)
    return np.log(clipped / (1 - clipped))
