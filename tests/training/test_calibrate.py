"""Calibration and thresholds against cases whose answer is known."""

import itertools

import numpy as np
import pytest

from pacs_agent.evaluation.metrics import figure_values
from training.calibrate import best_threshold, calibrated, fit_calibration, fit_thresholds
from training.preset import ThresholdRule
from training.studies import Studies


def test_calibration_undoes_what_was_done() -> None:
    """Probabilities sharpened and shifted come back: temperature and bias are found again."""
    random = np.random.default_rng(1)
    logits = random.normal(0, 2, 40_000)
    labels = random.random(len(logits)) < 1 / (1 + np.exp(-logits))
    given = 1 / (1 + np.exp(-(logits - 0.7) * 2.5))
    calibration = fit_calibration(given, labels)
    assert calibration.temperature == pytest.approx(2.5, rel=0.05)
    assert calibration.bias == pytest.approx(0.7, abs=0.05)
    np.testing.assert_allclose(calibrated(calibration, given), 1 / (1 + np.exp(-logits)), atol=0.03)


def test_a_separable_hold_out_has_an_end() -> None:
    """Means that a line separates give finite numbers, and not certainty."""
    labels = np.arange(20) >= 10
    calibration = fit_calibration(np.where(labels, 1.0, 0.0), labels)
    found = calibrated(calibration, np.array([0.0, 1.0]))
    assert 0.01 < found[0] < 0.2
    assert 0.8 < found[1] < 0.99


@pytest.mark.parametrize("objective", ["kappa", "youden", "accuracy"])
def test_no_other_threshold_is_better(objective: str) -> None:
    """Of every threshold there is, none has more of the objective, by metrics.py's own figures."""
    random = np.random.default_rng(3)
    labels = random.random(80) < 0.3
    probabilities = np.round(np.clip(random.normal(0.35 + 0.2 * labels, 0.15), 0, 1), 2)
    studies = Studies(np.arange(80), np.arange(80), np.full(80, "hand"), labels)

    def worth(threshold: float) -> float:
        values = figure_values(studies.scored(probabilities, threshold))
        return values["sensitivity"] + values["specificity"] if objective == "youden" else values[objective]

    best = worth(best_threshold(probabilities, labels, objective))
    edges = [0.0, *np.unique(probabilities), 1.0]
    assert best == pytest.approx(max(worth((a + b) / 2) for a, b in itertools.pairwise(edges)))


def test_parts_are_drawn_towards_the_whole() -> None:
    """A part of few studies keeps near the global threshold, one of many does not; without shrinking none does."""
    rows = [("hand", 0.2, 400), ("wrist", 0.8, 40)]
    parts = np.concatenate([np.full(count, part) for part, _, count in rows])
    # Each part's probabilities are all around a threshold of its own.
    probabilities = np.concatenate([np.tile([own - 0.1, own + 0.1], count // 2) for _, own, count in rows])
    labels = np.tile([False, True], len(parts) // 2)
    studies = Studies(np.arange(len(parts)), np.arange(len(parts)), parts, labels)
    free = fit_thresholds(studies, probabilities, ThresholdRule(shrink_studies=0))
    assert free.per_part == {"hand": pytest.approx(0.2), "wrist": pytest.approx(0.8)}
    drawn = fit_thresholds(studies, probabilities, ThresholdRule(shrink_studies=200))
    assert drawn.per_part["hand"] == pytest.approx(drawn.default + 2 / 3 * (0.2 - drawn.default), abs=1e-3)
    assert drawn.per_part["wrist"] == pytest.approx(drawn.default + 1 / 6 * (0.8 - drawn.default), abs=1e-3)


def test_one_class_has_the_middle() -> None:
    """Nothing can be chosen where there is one class: 0.5."""
    assert best_threshold(np.array([0.1, 0.9]), np.array([True, True]), "kappa") == 0.5
