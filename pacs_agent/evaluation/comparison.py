"""Two models on the same findings: how often they agree, by how much they differ, where most. Pure.

Figures are of the pairs in which both make a claim; the others are counted. Kappa is Cohen's, its interval and the
others' a patient bootstrap (metrics.py). Neither model is taken for the truth.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from pacs_agent.evaluation.metrics import (
    OVERALL,
    Draws,
    Figure,
    Scored,
    draw_patients,
    measure_group,
    measure_mean,
)
from pacs_agent.evaluation.said import ModelName, Said, patients_of


@dataclass(frozen=True, slots=True)
class Pair:
    """One finding and what both say of it."""

    a: Said
    b: Said

    @property
    def is_claimed(self) -> bool:
        """Whether both make a claim."""
        return self.a.is_claim and self.b.is_claim

    @property
    def difference(self) -> float:
        """Probability of *b* less that of *a*, where both make a claim."""
        return self.b.probability - self.a.probability


@dataclass(frozen=True, slots=True)
class Agreement:
    """The figures of one body part, or of all.

    Attributes:
        pairs: findings that both have looked at.
        claimed: those of which both say normal or abnormal; the figures are of them.
        both_undetermined: neither makes a claim.
        kappa: undefined where either says the same of every finding.
        mean_difference: of the probabilities, *b* less *a*.
    """

    body_part: str
    pairs: int
    claimed: int
    both_undetermined: int
    agreement: Figure
    kappa: Figure
    mean_difference: Figure


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two models side by side.

    Attributes:
        only_a, only_b: findings that only one has looked at.
        groups: overall, then by part.
        differ_most: pairs of claims, by the size of their difference.
    """

    a: ModelName
    b: ModelName
    only_a: int
    only_b: int
    groups: tuple[Agreement, ...]
    differ_most: tuple[Pair, ...]


def compare(
    a: ModelName, b: ModelName, said_a: Sequence[Said], said_b: Sequence[Said], *, most: int = 10, seed: int = 0
) -> Comparison | None:
    """Put them side by side; None where they have no finding in common."""
    other = {each.key: each for each in said_b}
    pairs = [Pair(each, other[each.key]) for each in said_a if each.key in other]
    if not pairs:
        return None
    claimed = [pair for pair in pairs if pair.is_claimed]
    _, count = patients_of([pair.a for pair in claimed])
    draws = draw_patients(count, seed=seed)
    parts = sorted({pair.a.body_part for pair in pairs})
    groups = [_agreement(OVERALL, pairs, claimed, draws)]
    groups += [_agreement(part, [each for each in pairs if each.a.body_part == part], claimed, draws) for part in parts]
    return Comparison(
        a,
        b,
        len(said_a) - len(pairs),
        len(said_b) - len(pairs),
        tuple(groups),
        tuple(sorted(claimed, key=lambda pair: -abs(pair.difference))[:most]),
    )


def _agreement(body_part: str, pairs: Sequence[Pair], claimed: Sequence[Pair], draws: Draws) -> Agreement:
    """*claimed* are those of all parts: the numbering of patients is that of *draws*."""
    patients, _ = patients_of([pair.a for pair in claimed])
    inside = np.array([body_part in (OVERALL, pair.a.body_part) for pair in claimed], dtype=bool)
    said_a = np.array([pair.a.finding == "abnormal" for pair in claimed], dtype=bool)
    said_b = np.array([pair.b.finding == "abnormal" for pair in claimed], dtype=bool)
    parts = np.array([pair.a.body_part for pair in claimed], dtype=np.str_)
    scored = Scored(patients, parts, said_a, said_b.astype(np.float64), np.full(len(claimed), 0.5)).of(inside)
    figures = measure_group(scored, draws, ("accuracy", "kappa")).figures
    kappa = figures["kappa"]
    if len(np.unique(scored.called)) < 2:  # metrics.py looks at one side only, which there is the truth
        kappa = replace(kappa, value=None, low=None, high=None, resamples=0)
    differences = np.array([pair.difference for pair in claimed], dtype=np.float64)[inside]
    return Agreement(
        body_part,
        len(pairs),
        int(inside.sum()),
        sum(not pair.a.is_claim and not pair.b.is_claim for pair in pairs),
        figures["accuracy"],
        kappa,
        measure_mean(differences, scored.patients, draws),
    )


def agreement_record(group: Agreement) -> dict[str, Any]:
    """One flat row, as CSV and JSON have it."""
    row: dict[str, Any] = {
        "body_part": group.body_part,
        "findings": group.pairs,
        "both_claim": group.claimed,
        "both_undetermined": group.both_undetermined,
    }
    for name in ("agreement", "kappa", "mean_difference"):
        figure: Figure = getattr(group, name)
        row |= {name: figure.value, f"{name}_low": figure.low, f"{name}_high": figure.high}
    return row


def pair_record(pair: Pair) -> dict[str, Any]:
    """One of those that differ, as JSON has it."""
    return {
        "study_instance_uid": pair.a.study_instance_uid,
        "accession_number": pair.a.accession_number,
        "body_part": pair.a.body_part,
        "laterality": pair.a.laterality,
        "finding_a": pair.a.finding,
        "finding_b": pair.b.finding,
        "abnormal_probability_a": pair.a.abnormal_probability,
        "abnormal_probability_b": pair.b.abnormal_probability,
        "difference": pair.difference,
    }
