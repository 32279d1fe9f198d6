"""Figures and their patient-bootstrap intervals: the same as scikit-learn's, and a resample one at a time."""

import numpy as np
import pytest
from sklearn.metrics import brier_score_loss, cohen_kappa_score, precision_score, recall_score, roc_auc_score

from pacs_agent.evaluation.metrics import (
    ECE_BINS,
    FIGURES,
    OVERALL,
    Scored,
    draw_patients,
    figure_values,
    measure,
    measure_mean,
    reliability,
    study_means,
)


def some(n: int, patients: int, seed: int, *, decimals: int = 2) -> Scored:
    """Random things of three parts; few decimals, so that many probabilities are equal."""
    rng = np.random.default_rng(seed)
    labels = rng.random(n) < 0.45
    return Scored(
        rng.integers(0, patients, n),
        rng.choice(["hand", "shoulder", "wrist"], n),
        labels,
        np.clip(rng.normal(0.4 + 0.2 * labels, 0.25), 0, 1).round(decimals),
        rng.choice([0.4, 0.5, 0.55], n),
    )


def ece(labels: np.ndarray, probabilities: np.ndarray) -> float:
    """Expected calibration error, written out bin by bin."""
    total = 0.0
    for index in range(ECE_BINS):
        low, high = index / ECE_BINS, (index + 1) / ECE_BINS
        inside = (probabilities >= low) & ((probabilities < high) | (index == ECE_BINS - 1))
        if inside.any():
            total += inside.mean() * abs(labels[inside].mean() - probabilities[inside].mean())
    return total


def by_scikit_learn(scored: Scored) -> dict[str, float]:
    labels, called, probabilities = scored.labels, scored.called, scored.probabilities
    return {
        "accuracy": float((labels == called).mean()),
        "kappa": cohen_kappa_score(labels, called),
        "auroc": roc_auc_score(labels, probabilities),
        "sensitivity": recall_score(labels, called),
        "specificity": recall_score(~labels, ~called),
        "ece": ece(labels, probabilities),
        "brier": brier_score_loss(labels, probabilities),
    }


@pytest.mark.parametrize("decimals", [1, 2, 9])
@pytest.mark.parametrize("seed", range(5))
def test_the_figures_are_those_of_scikit_learn(seed: int, decimals: int) -> None:
    """Every figure equals scikit-learn's on random data, ties among the probabilities or none."""
    scored = some(300, 40, seed, decimals=decimals)
    assert figure_values(scored) == pytest.approx(by_scikit_learn(scored), abs=1e-9)


def test_a_resample_takes_all_of_a_patient_along() -> None:
    """Each interval is that of scikit-learn's figures over the same patients, drawn one resample at a time."""
    scored = some(200, 25, 3)
    draws = draw_patients(25, 60, seed=4)
    groups = measure(scored, draws)
    for name, chosen in ((OVERALL, scored), *((part, scored.of(scored.parts == part)) for part in ("hand", "wrist"))):
        found: dict[str, list[float]] = {figure: [] for figure in FIGURES}
        for draw in draws:
            rows = np.repeat(np.arange(len(chosen.labels)), draw[chosen.patients].astype(int))
            repeated = chosen.of(rows)
            assert 0 < repeated.labels.sum() < len(rows)
            for figure, value in by_scikit_learn(repeated).items():
                found[figure].append(value)
        for figure in FIGURES:
            low, high = np.percentile(found[figure], (2.5, 97.5))
            measured = groups[name].figures[figure]
            assert (measured.low, measured.high) == pytest.approx((low, high), abs=1e-9)
            assert measured.resamples == 60


def test_draws_are_of_patients_and_seeded() -> None:
    """Each resample draws as many patients as there are; a seed decides them."""
    draws = draw_patients(7, 50, seed=1)
    assert draws.shape == (50, 7)
    assert (draws.sum(axis=1) == 7).all()
    assert (draws == draw_patients(7, 50, seed=1)).all()
    assert (draws != draw_patients(7, 50, seed=2)).any()


def test_a_patient_with_many_images_widens_the_interval() -> None:
    """The same images in fewer patients give a wider interval: images of one patient are no independent news."""
    each = some(400, 400, 5)
    alone = Scored(np.arange(400), each.parts, each.labels, each.probabilities, each.thresholds)
    right = alone.labels == alone.called
    together = Scored(
        np.argsort(np.argsort(right)) // 20, alone.parts, alone.labels, alone.probabilities, alone.thresholds
    )
    widths = []
    for scored, patients in ((alone, 400), (together, 20)):
        accuracy = measure(scored, draw_patients(patients, 200))[OVERALL].figures["accuracy"]
        assert accuracy.low is not None
        assert accuracy.high is not None
        widths.append(accuracy.high - accuracy.low)
    assert widths[1] > 3 * widths[0]


def test_one_class_leaves_figures_undefined() -> None:
    """AUROC and kappa of one class are None with no interval; sensitivity of no abnormal one too; the rest stands."""
    scored = some(50, 10, 6)
    normal = scored.of(~scored.labels)
    figures = measure(normal, draw_patients(10, 20))[OVERALL].figures
    for name in ("auroc", "kappa", "sensitivity"):
        assert (figures[name].value, figures[name].low, figures[name].resamples) == (None, None, 0)
    for name in ("accuracy", "specificity", "ece", "brier"):
        assert figures[name].value is not None
        assert figures[name].low is not None


def test_resamples_of_one_class_are_left_out_and_counted() -> None:
    """Where the abnormal ones are one patient's, resamples without that patient do not count for AUROC and kappa."""
    patients = np.arange(6)
    labels = patients == 0
    probabilities = np.array([0.9, 0.1, 0.2, 0.3, 0.4, 0.95])
    scored = Scored(patients, np.full(6, "hand"), labels, probabilities, np.full(6, 0.5))
    draws = draw_patients(6, 300, seed=2)
    figures = measure(scored, draws)["hand"].figures
    drawn = (draws[:, 0] > 0) & (draws[:, 0] < 6)
    assert 0 < drawn.sum() < 300
    assert figures["auroc"].resamples == figures["kappa"].resamples == drawn.sum()
    assert figures["sensitivity"].resamples == (draws[:, 0] > 0).sum()
    assert figures["accuracy"].resamples == 300


def test_a_resample_without_the_part_is_left_out() -> None:
    """A part that a resample does not draw has no figures there, not figures of zero."""
    scored = some(40, 8, 1)
    rare = Scored(
        scored.patients, np.where(scored.patients == 3, "elbow", "hand"), scored.labels, scored.probabilities,
        scored.thresholds,
    )  # fmt: skip
    draws = draw_patients(8, 100)
    accuracy = measure(rare, draws)["elbow"].figures["accuracy"]
    assert accuracy.resamples == (draws[:, 3] > 0).sum()
    assert accuracy.low == pytest.approx(accuracy.value)


def test_greater_than_the_threshold_and_not_equal() -> None:
    """A probability equal to the threshold is called normal (MURA's rule)."""
    scored = Scored(np.arange(2), np.full(2, "hand"), np.array([True, False]), np.array([0.5, 0.5]), np.full(2, 0.5))
    assert not scored.called.any()
    assert scored.at(0.4999).called.all()


def test_the_mean_of_a_study() -> None:
    """The arithmetic mean of its images, and no number for a study that has none."""
    means, images = study_means(np.array([2, 0, 2, 0, 2]), np.array([0.1, 0.5, 0.2, 1.0, 0.6]))
    assert means == pytest.approx([0.75, np.nan, 0.3], nan_ok=True)
    assert images.tolist() == [2, 0, 3]


def test_reliability_counts_each_once() -> None:
    """Bins hold everything once, 1.0 included, and their means are those of what they hold."""
    scored = Scored(
        np.arange(4), np.full(4, "hand"), np.array([True, False, True, True]), np.array([1.0, 0.95, 0.05, 0.0]),
        np.full(4, 0.5),
    )  # fmt: skip
    probability, abnormal, count = reliability(scored, 10)
    assert count.tolist() == [2, 0, 0, 0, 0, 0, 0, 0, 0, 2]
    assert probability[[0, 9]] == pytest.approx([0.025, 0.975])
    assert abnormal[[0, 9]].tolist() == [1.0, 0.5]
    assert np.isnan(probability[1:9]).all()


def test_predictive_value_and_mean_are_those_of_scikit_learn_and_numpy() -> None:
    """PPV equals precision; a mean has the interval of means over the same drawn patients."""
    scored = some(200, 25, 6)
    draws = draw_patients(25, 60, seed=4)
    ppv = measure(scored, draws, ("ppv",))[OVERALL].figures["ppv"]
    assert ppv.value == pytest.approx(precision_score(scored.labels, scored.called))
    mean = measure_mean(scored.probabilities, scored.patients, draws)
    means = [
        scored.probabilities[np.repeat(np.arange(200), draw[scored.patients].astype(int))].mean() for draw in draws
    ]
    assert mean.value == pytest.approx(scored.probabilities.mean())
    assert (mean.low, mean.high) == pytest.approx(tuple(np.percentile(means, (2.5, 97.5))))
    assert measure_mean(np.zeros(0), np.zeros(0, dtype=np.int64), draw_patients(0)).value is None
