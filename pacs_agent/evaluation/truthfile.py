"""A site's CSV of what is true: text in, rows in known words out, and a line for each that is not. Pure.

Each line is read by itself, so that a quote that is never closed costs one row and not the rest of the file.
"""

import csv
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from pacs_agent.errors import PacsAgentError
from pacs_agent.study.bodypart import BODY_PARTS

COLUMNS: Final = ("accession_number", "study_instance_uid", "body_part", "laterality", "label")
LABELS: Final = ("normal", "abnormal")
SIDES: Final = ("L", "R", "B")


@dataclass(frozen=True, slots=True)
class TruthRow:
    """A row whose words are of the right kind.

    Attributes:
        row: its line in the file; the heading's is 1.
        accession_number, study_instance_uid: at least one.
        body_part: empty: the study has one finding.
        laterality: `L`, `R`, `B` or empty: the part has one finding.
        label: `normal` or `abnormal`.
    """

    row: int
    accession_number: str
    study_instance_uid: str
    body_part: str
    laterality: str
    label: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """A row that is not taken, and why."""

    row: int
    reason: str


def read_truth(text: str) -> tuple[list[TruthRow], list[Refusal]]:
    """Read a file's rows; separated by commas, semicolons or tabs, as its heading is.

    Raises:
        PacsAgentError: the heading cannot be used, so that no row could be.
    """
    lines = re.split(r"\r\n|\r|\n", text)
    delimiter = next((each for each in ",;\t" if each in lines[0]), ",")
    heading = [cell.strip().lower() for cell in _cells(lines[0], delimiter)]
    if not heading or "label" not in heading or not {"accession_number", "study_instance_uid"} & set(heading):
        raise PacsAgentError("the first line must name the columns: label, and accession_number or study_instance_uid")
    for name in heading:
        if name not in COLUMNS:
            raise PacsAgentError(f"unknown column {name!r}: one of {', '.join(COLUMNS)}")
        if heading.count(name) > 1:
            raise PacsAgentError(f"column {name!r} stands there twice")
    rows: list[TruthRow] = []
    refused: list[Refusal] = []
    for number, line in enumerate(lines[1:], 2):
        if not line.strip():
            continue
        found = _row(number, heading, line, delimiter)
        if isinstance(found, TruthRow):
            rows.append(found)
        else:
            refused.append(Refusal(number, found))
    return rows, refused


def _row(number: int, heading: Sequence[str], line: str, delimiter: str) -> TruthRow | str:
    """The row, or why it is none."""
    try:
        cells = _cells(line, delimiter)
    except csv.Error as error:
        return f"it cannot be read: {error}"
    if len(cells) != len(heading):
        return f"it has {len(cells)} cells, the heading {len(heading)}"
    values = dict.fromkeys(COLUMNS, "") | dict(zip(heading, map(str.strip, cells), strict=True))
    values["body_part"], values["label"] = values["body_part"].lower(), values["label"].lower()
    values["laterality"] = values["laterality"].upper()
    if not (values["accession_number"] or values["study_instance_uid"]):
        return "it names no study: accession_number or study_instance_uid"
    for column, words in (("body_part", ("", *BODY_PARTS)), ("laterality", ("", *SIDES)), ("label", LABELS)):
        if values[column] not in words:
            empty = ", or empty" if "" in words else ""
            return f"{column} {values[column]!r} is none of {', '.join(filter(None, words))}{empty}"
    return TruthRow(number, **values)


def _cells(line: str, delimiter: str) -> list[str]:
    return next(csv.reader([line], delimiter=delimiter, strict=True), [])
