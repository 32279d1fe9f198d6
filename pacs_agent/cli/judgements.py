"""Judgements of models as tables. Enters: figures and pairs. Leaves: headings, rows, a title. Prints nothing.

Beside tables.py, for it needs what computes them.
"""

from collections.abc import Sequence

from pacs_agent.cli.printing import cell
from pacs_agent.cli.tables import Record, TextTable
from pacs_agent.evaluation.comparison import Agreement
from pacs_agent.evaluation.site import SITE_FIGURES, Cohort
from pacs_agent.evaluation.sitepage import figure_cell, figure_text


def agreement_table(groups: Sequence[Agreement]) -> TextTable:
    """How far two models agree, overall and by part."""
    headings = (
        "body part", "findings", "both claim", "neither claims", "agreement", "kappa", "mean difference",
    )  # fmt: skip
    rows = [
        (
            group.body_part,
            *map(str, (group.pairs, group.claimed, group.both_undetermined)),
            *map(figure_text, (group.agreement, group.kappa, group.mean_difference)),
        )
        for group in groups
    ]
    return headings, rows, "Agreement, with 95 % intervals"


def pairs_table(records: Sequence[Record]) -> TextTable:
    """The findings on which two models differ most."""
    headings = ("study", "body part", "laterality", "A", "B", "A says", "B says", "difference")
    rows = [
        (
            record["accession_number"] or record["study_instance_uid"],
            cell(record["body_part"]),
            cell(record["laterality"]),
            *(f"{record[f'abnormal_probability_{each}']:.2f}" for each in "ab"),
            record["finding_a"],
            record["finding_b"],
            f"{record['difference']:+.2f}",
        )
        for record in records
    ]
    return headings, rows, "They differ most on"


def cohorts_table(cohorts: Sequence[Cohort], by: str) -> TextTable:
    """The figures of a site report, *by* body part or station."""
    headings = (by, "known", "undetermined", "abnormal", "normal", *SITE_FIGURES)
    rows = [
        (
            cohort.name,
            *map(str, (cohort.known, cohort.undetermined, cohort.abnormal, cohort.normal)),
            *(figure_cell(cohort, name) for name in SITE_FIGURES),
        )
        for cohort in cohorts
    ]
    return headings, rows, f"By {by}"
