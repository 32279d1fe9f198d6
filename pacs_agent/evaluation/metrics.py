"""Probabilities and labels in, figures with their patient-bootstrap intervals out. Pure numpy.

A resample draws as many patients as there are, with replacement, and takes every study of a drawn patient along, in all
parts: images of one patient are not independent. Never reads a file, never decides a threshold, never draws.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

FIGURES: Final = ("accuracy", "kappa", "auroc", "sensitivity", "specificity", "ece", "brier")
EVERY_FIGURE: Final = (*FIGURES, "ppv")
OVERALL: Final = "overall"
ECE_BINS: Final = 15
RESAMPLES: Final = 1000
WEIGHTS_AT_A_TIME: Final = 2_000_000  # float64: bounds the memory of a figure, however many the patients

Floats = NDArray[np.float64]
Draws = NDArray[np.uint16]  # a patient is drawn a few times; 1,000 × 100,000 patients are 200 MB


@dataclass(frozen=True, slots=True)
class Scored:
    """N judged things (images, or studies) of known label.

    Attributes:
        patients: int64 (N,), 0 to the number of patients - 1; the same numbering at both levels.
        parts: N names.
        labels: bool (N,), True abnormal.
        probabilities: float64 (N,), 0 to 1.
        thresholds: float64 (N,), abnormal when the probability is greater.
    """

    patients: NDArray[np.int64]
    parts: NDArray[np.str_]
    labels: NDArray[np.bool_]
    probabilities: Floats
    thresholds: Floats

    @property
    def called(self) -> NDArray[np.bool_]:
        """bool (N,): called abnormal."""
        return self.probabilities > self.thresholds

    def of(self, chosen: NDArray[np.bool_] | NDArray[np.int64]) -> "Scored":
        """Those of a mask or of indices; the numbering of patients stays."""
        return Scored(
            self.patients[chosen],
            self.parts[chosen],
            self.labels[chosen],
            self.probabilities[chosen],
            self.thresholds[chosen],
        )

    def at(self, threshold: float) -> "Scored":
        """The same at one threshold for all."""
        return replace(self, thresholds=np.full(len(self.labels), threshold))


@dataclass(frozen=True, slots=True)
class Figure:
    """A figure and its 95 % interval.

    Attributes:
        value: None where it is undefined (AUROC, kappa of one class).
        low: 2.5th percentile of the resamples that define it; None where none does.
        high: 97.5th percentile.
        resamples: how many define it.
    """

    value: float | None
    low: float | None
    high: float | None
    resamples: int


@dataclass(frozen=True, slots=True)
class Group:
    """The figures of one body part, or of all."""

    n: int
    figures: Mapping[str, Figure]


def draw_patients(patients: int, resamples: int = RESAMPLES, seed: int = 0) -> Draws:
    """How often each patient is drawn in each resample.

    Returns:
        (resamples, patients), each row adding up to the number of patients.
    """
    draws = np.zeros((resamples, patients), dtype=np.uint16)
    random = np.random.default_rng(seed)
    for row in draws if patients else ():
        row[:] = np.bincount(random.integers(0, patients, patients), minlength=patients)
    return draws


def measure(scored: Scored, draws: Draws, names: Sequence[str] = FIGURES) -> dict[str, Group]:
    """Every figure, overall and for each part that occurs.

    Args:
        scored: of one level.
        draws: of `draw_patients`: one set for all levels, so that they resample alike.
        names: some of `EVERY_FIGURE`.

    Returns:
        By `overall`, then by the parts' names in order.
    """
    groups = {OVERALL: measure_group(scored, draws, names)}
    for part in np.unique(scored.parts):
        groups[str(part)] = measure_group(scored.of(scored.parts == part), draws, names)
    return groups


def measure_group(scored: Scored, draws: Draws, names: Sequence[str] = FIGURES) -> Group:
    """The figures of one group, with its interval over *draws*."""
    whole = _figures(scored, np.ones((1, draws.shape[1])))
    chunks = [_figures(scored, weights) for weights in _chunks(draws)]
    figures = {}
    for name in names:
        resampled = np.concatenate([np.zeros(0), *(chunk[name] for chunk in chunks)])
        figures[name] = figure(float(whole[name][0]), resampled)
    return Group(len(scored.labels), figures)


def figure(value: float, resampled: Floats) -> Figure:
    """A figure of its value and what (B,) resamples give; NaN where undefined."""
    valid = resampled[~np.isnan(resampled)]
    low, high = np.percentile(valid, (2.5, 97.5)).tolist() if len(valid) else (None, None)
    return Figure(None if np.isnan(value) else value, low, high, len(valid))


def measure_mean(values: Floats, patients: NDArray[np.int64], draws: Draws) -> Figure:
    """The mean of (N,) values with its interval; undefined of none."""
    columns = np.column_stack([values, np.ones(len(values))])
    summed = _by_patient(patients, columns, draws.shape[1])
    with np.errstate(invalid="ignore"):
        total, count = np.concatenate([np.zeros((0, 2)), *(weights @ summed for weights in _chunks(draws))]).T
        value = np.divide(*summed.sum(axis=0))
        return figure(float(value), total / count)


def figure_values(scored: Scored) -> dict[str, float]:
    """The figures without intervals; NaN where undefined."""
    patients = int(scored.patients.max(initial=-1)) + 1
    every = _figures(scored, np.ones((1, patients)))
    return {name: float(every[name][0]) for name in FIGURES}


def study_means(
    studies: NDArray[np.int64], probabilities: Floats, count: int | None = None
) -> tuple[Floats, NDArray[np.int64]]:
    """The arithmetic mean of each study's images (MURA's rule).

    Args:
        studies: int64 (N,), the study of each image, 0 to *count* - 1.
        probabilities: (N,).
        count: of studies; None: the largest number + 1.

    Returns:
        (count,) means, NaN for a study without an image, and (count,) how many images each has.
    """
    images = np.bincount(studies, minlength=count or 0)
    sums = np.bincount(studies, weights=probabilities, minlength=count or 0)
    return np.divide(sums, images, out=np.full(len(images), np.nan), where=images > 0), images


def reliability(scored: Scored, bins: int = ECE_BINS) -> tuple[Floats, Floats, Floats]:
    """Of equally wide bins of the probability: mean probability, share abnormal (NaN where empty), how many."""
    count, probability, abnormal = np.hsplit(_binned(scored, bins).sum(axis=0).reshape(3, bins).T, 3)
    with np.errstate(invalid="ignore"):
        return (probability / count).ravel(), (abnormal / count).ravel(), count.ravel()


def roc_curve(scored: Scored) -> tuple[Floats, Floats]:
    """Share of normals and of abnormals above each threshold; empty of one class."""
    positive, negative = int(scored.labels.sum()), int((~scored.labels).sum())
    if not positive or not negative:
        return np.zeros(0), np.zeros(0)
    order = np.argsort(-scored.probabilities, kind="stable")
    labels, probabilities = scored.labels[order], scored.probabilities[order]
    last = np.r_[np.flatnonzero(np.diff(probabilities)), len(labels) - 1]  # of each run of equal probabilities
    hits = np.cumsum(labels)[last]
    return np.r_[0.0, (last + 1 - hits) / negative], np.r_[0.0, hits / positive]


def _figures(scored: Scored, weights: Floats) -> dict[str, Floats]:
    """Each figure for each row of (B, patients) weights: (B,), NaN where undefined."""
    labels, called = scored.labels, scored.called
    each = np.stack([labels & called, labels & ~called, ~labels & called, ~labels & ~called], axis=1)
    error = (scored.probabilities - labels) ** 2
    columns = np.column_stack([each.astype(np.float64), error])
    true_positive, false_negative, false_positive, true_negative, squares = (
        weights @ _by_patient(scored.patients, columns, weights.shape[1])
    ).T
    positive, negative = true_positive + false_negative, false_positive + true_negative
    n = positive + negative
    with np.errstate(invalid="ignore", divide="ignore"):
        accuracy = (true_positive + true_negative) / n
        chance = (positive * (true_positive + false_positive) + negative * (false_negative + true_negative)) / n**2
        # Of one class nothing can be agreed on beyond chance: undefined, though the formula may give 0.
        kappa = np.where((positive > 0) & (negative > 0), (accuracy - chance) / (1 - chance), np.nan)
        return {
            "accuracy": accuracy,
            "kappa": kappa,
            "auroc": _auroc(scored, weights),
            "sensitivity": true_positive / positive,
            "specificity": true_negative / negative,
            "ppv": true_positive / (true_positive + false_positive),
            "ece": _ece(scored, weights),
            "brier": squares / n,
        }


def _chunks(draws: Draws) -> Iterator[Floats]:
    """Some resamples at a time, as weights."""
    rows = max(1, WEIGHTS_AT_A_TIME // max(1, draws.shape[1]))
    for start in range(0, len(draws), rows):
        yield draws[start : start + rows].astype(np.float64)


def _by_patient(patient: NDArray[np.int64], columns: Floats, patients: int) -> Floats:
    """(N, K) summed to (patients, K): a resample's sum is then one product of matrices."""
    summed = np.zeros((patients, columns.shape[1]))
    np.add.at(summed, patient, columns)
    return summed


def _binned(scored: Scored, bins: int) -> Floats:
    """(N, 3 × bins): one, the probability and the label, each in the column of its bin."""
    place = np.minimum((scored.probabilities * bins).astype(np.int64), bins - 1)
    columns = np.zeros((len(place), 3, bins))
    rows = np.arange(len(place))
    for index, values in enumerate((np.ones(len(place)), scored.probabilities, scored.labels)):
        columns[rows, index, place] = values
    return columns.reshape(len(place), 3 * bins)


def _ece(scored: Scored, weights: Floats) -> Floats:
    """Expected calibration error (Guo et al. 2017) of the probability of `abnormal`, equally wide bins."""
    summed = weights @ _by_patient(scored.patients, _binned(scored, ECE_BINS), weights.shape[1])
    count, probability, abnormal = summed.reshape(len(weights), 3, ECE_BINS).transpose(1, 0, 2)
    with np.errstate(invalid="ignore"):
        gap: Floats = np.abs(probability - abnormal).sum(axis=1) / count.sum(axis=1)
    return gap


def _auroc(scored: Scored, weights: Floats) -> Floats:
    """The share of pairs (abnormal, normal) in the right order, ties counted half, each pair weighted."""
    if not len(scored.labels):
        return np.full(len(weights), np.nan)
    order = np.argsort(scored.probabilities, kind="stable")
    probabilities, labels = scored.probabilities[order], scored.labels[order]
    drawn = weights[:, scored.patients[order]]
    first = np.flatnonzero(np.r_[True, np.diff(probabilities) > 0])  # of each run of equal probabilities
    positive = np.add.reduceat(drawn * labels, first, axis=1)
    negative = np.add.reduceat(drawn * ~labels, first, axis=1)
    below = np.cumsum(negative, axis=1) - negative / 2
    with np.errstate(invalid="ignore"):
        area: Floats = (positive * below).sum(axis=1) / (positive.sum(axis=1) * negative.sum(axis=1))
    return area
