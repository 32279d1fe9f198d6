"""What a model said at a site against what the site knows: the figures of the report. Pure.

Enters: a model's findings and the site's truth. Leaves: figures by part and by station with 95 % intervals, and what
was not said and why. Of too few cases no figure leaves here: a number without meaning would be believed.
"""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pacs_agent.evaluation.metrics import OVERALL, Draws, Figure, Scored, draw_patients, measure_group
from pacs_agent.evaluation.said import ModelName, Said, patients_of

SITE_FIGURES: Final = ("sensitivity", "specificity", "ppv", "kappa", "auroc", "ece", "brier")
FEWEST: Final = 10  # cases, of patients of their own, that each figure needs of every class it speaks of
NO_FINDING: Final = "no finding of this model"
_PROPORTIONS: Final = ("sensitivity", "specificity", "ppv")


@dataclass(frozen=True, slots=True)
class Truth:
    """What the site knows of one part and side of a study; *status* is what became of the study."""

    study_instance_uid: str
    body_part: str
    laterality: str | None
    label: str
    status: str


@dataclass(frozen=True, slots=True)
class Cohort:
    """The cases of one part, one station, or all.

    Attributes:
        by: `overall`, `body_part` or `station`.
        known: findings whose truth is known.
        undetermined: of those, how many the model makes no claim of.
        cases: those with a claim; the figures are of them.
        figures: by name; None where there are too few cases.
        basis: by name: how many cases the figure rests on (the fewest of the classes that it speaks of).
    """

    by: str
    name: str
    known: int
    undetermined: int
    cases: int
    abnormal: int
    normal: int
    figures: Mapping[str, Figure | None]
    basis: Mapping[str, int]


@dataclass(frozen=True, slots=True)
class SiteReport:
    """All that the report tells.

    Attributes:
        findings: of the model, with or without a truth.
        undetermined: of those, without a claim.
        reasons: why, with how often; free of what a header said.
        truths: labels that the site gave.
        contradicted: of those, on a finding of which the site says both; left out.
        without_finding: of those, on which the model has no finding, by what became of the study.
        cohorts: overall, by part, by station.
        scored: the cases with a claim, for the plots.
    """

    model: ModelName
    findings: int
    undetermined: int
    reasons: tuple[tuple[str, int], ...]
    truths: int
    contradicted: int
    without_finding: tuple[tuple[str, int], ...]
    cohorts: tuple[Cohort, ...]
    scored: Scored

    @property
    def overall(self) -> Cohort:
        """The cohort of all."""
        return self.cohorts[0]

    def of(self, by: str) -> list[Cohort]:
        """The cohorts of one kind."""
        return [cohort for cohort in self.cohorts if cohort.by == by]


def match(laterality: str | None, sides: Sequence[str | None]) -> list[str | None]:
    """Which of a study's findings of one part a truth may mean: its own side; else one of which either says no side."""
    if laterality in sides:
        return [laterality]
    return [side for side in sides if laterality is None or side is None]


def site_report(model: ModelName, said: Sequence[Said], truths: Sequence[Truth], *, seed: int = 0) -> SiteReport:
    """Judge what a model said by what the site knows."""
    sides: dict[tuple[str, str], list[str | None]] = {}
    for each in said:
        sides.setdefault((each.study_instance_uid, each.body_part), []).append(each.laterality)
    labels: dict[tuple[str, str, str | None], set[str]] = {}
    given: Counter[tuple[str, str, str | None]] = Counter()
    missing: Counter[str] = Counter()
    for truth in truths:
        meant = match(truth.laterality, sides.get((truth.study_instance_uid, truth.body_part), ()))
        if len(meant) == 1:
            key = (truth.study_instance_uid, truth.body_part, meant[0])
            labels.setdefault(key, set()).add(truth.label)
            given[key] += 1
        else:
            missing[NO_FINDING if truth.status in ("analysed", "delivered", "held") else truth.status] += 1
    known = [each for each in said if len(labels.get(each.key, ())) == 1]
    cases = [each for each in known if each.is_claim]
    scored = _scored(cases, [labels[each.key] == {"abnormal"} for each in cases])
    draws = draw_patients(patients_of(cases)[1], seed=seed)
    kinds: dict[str, Callable[[Said], str]] = {
        "overall": (lambda _each: OVERALL),
        "body_part": (lambda each: each.body_part),
        "station": (lambda each: each.station_name or f"AE {each.calling_ae_title}"),
    }
    cohorts = [
        _cohort(
            by, name, [each for each in known if name_of(each) == name], scored.of(_mask(cases, name_of, name)), draws
        )
        for by, name_of in kinds.items()
        for name in ([OVERALL] if by == "overall" else sorted({name_of(each) for each in known}))
    ]
    undetermined = [each for each in said if not each.is_claim]
    return SiteReport(
        model,
        len(said),
        len(undetermined),
        _ranked(Counter(kind_of_reason(each.reason) for each in undetermined)),
        len(truths),
        sum(given[key] for key, values in labels.items() if len(values) > 1),
        _ranked(missing),
        tuple(cohorts),
        scored,
    )


def kind_of_reason(reason: str | None) -> str:
    """A reason without what only one study says: quotes of its header, and numbers."""
    text = re.sub(r"'.*'", "'…'", reason or "not said")
    return re.sub(r"\d+(?:\.\d+)?", "n", text)


def _ranked(counter: Counter[str]) -> tuple[tuple[str, int], ...]:
    return tuple(sorted(counter.items(), key=lambda item: (-item[1], item[0])))


def _mask(cases: Sequence[Said], name_of: Callable[[Said], str], name: str) -> NDArray[np.bool_]:
    return np.array([name_of(each) == name for each in cases], dtype=bool)


def _scored(cases: Sequence[Said], labels: Sequence[bool]) -> Scored:
    # Called abnormal is what the finding says; the probability is above the threshold exactly then.
    return Scored(
        patients_of(cases)[0],
        np.array([each.body_part for each in cases], dtype=np.str_),
        np.array(labels, dtype=bool),
        np.array([each.probability for each in cases], dtype=np.float64),
        np.array([each.threshold for each in cases], dtype=np.float64),
    )


def _cohort(by: str, name: str, known: Sequence[Said], scored: Scored, draws: Draws) -> Cohort:
    labels, called = scored.labels, scored.called

    def patients(mask: NDArray[np.bool_]) -> int:
        return len(np.unique(scored.patients[mask]))

    each_class = min(patients(labels), patients(~labels))
    basis = dict.fromkeys(SITE_FIGURES, each_class)
    basis |= {"sensitivity": patients(labels), "specificity": patients(~labels), "ppv": patients(called)}
    measured = measure_group(scored, draws, SITE_FIGURES).figures
    figures = {
        figure: _honest(figure, measured[figure], basis[figure]) if basis[figure] >= FEWEST else None
        for figure in SITE_FIGURES
    }
    undetermined = sum(not each.is_claim for each in known)
    return Cohort(
        by, name, len(known), undetermined, len(labels), int(labels.sum()), int((~labels).sum()), figures, basis
    )


def _honest(name: str, figure: Figure, patients: int) -> Figure:
    """The figure; where all or none are right, every resample says the same, and the exact binomial bound stands in.

    Clopper and Pearson's (1934) for 0 or n of n patients, two-sided 95 %.
    """
    if name in _PROPORTIONS and figure.value in (0.0, 1.0):
        bound = 0.025 ** (1 / patients)
        return replace(figure, low=bound, high=1.0) if figure.value else replace(figure, low=0.0, high=1 - bound)
    return figure


def cohort_record(cohort: Cohort) -> dict[str, Any]:
    """One flat row, as CSV and JSON have it; a figure of too few cases is empty."""
    row: dict[str, Any] = {
        "by": cohort.by,
        "name": cohort.name,
        "known": cohort.known,
        "undetermined": cohort.undetermined,
        "cases": cohort.cases,
        "abnormal": cohort.abnormal,
        "normal": cohort.normal,
    }
    for name, figure in cohort.figures.items():
        row |= {
            name: figure and figure.value,
            f"{name}_low": figure and figure.low,
            f"{name}_high": figure and figure.high,
        }
    return row
