"""A report of ours read back: what it says of its findings and images, for a record that has lost its rows.

Enters: the data set of a report, as `structured_report` made it. Leaves: findings as the record has them, as exactly as
the report states them: probabilities to a hundredth of a percent, of the weights' hash its beginning, of the members
of the ensemble nothing. Never guesses.
"""

import re
from dataclasses import dataclass

from pydicom.dataset import Dataset

from pacs_agent.analyse.finding import FindingValue
from pacs_agent.report import codes
from pacs_agent.report.content import NOT_ANALYSED, NOT_COUNTED, REASON
from pacs_agent.report.tree import (
    children,
    first_text,
    groups,
    is_called,
    is_of_an_image,
    normality,
    percent,
    source_uids,
    texts,
    word_of,
)

_COUNT = re.compile(r"\d+ of \d+ images analysed\.")
_VERSION = re.compile(r"(.+) \(weights ([0-9a-f]+)\)")


@dataclass(frozen=True, slots=True)
class SaidOfImage:
    """What a report says of one image; `reason`: why it was not analysed, or is not counted."""

    sop_instance_uid: str
    is_analysed: bool
    abnormal_probability: float | None
    reason: str | None

    @property
    def is_counted(self) -> bool:
        """Whether the finding rests on it."""
        return self.is_analysed and self.reason is None


@dataclass(frozen=True, slots=True)
class SaidOfPart:
    """What a report says of one body part and side."""

    body_part: str | None
    laterality: str | None
    finding: FindingValue
    abnormal_probability: float | None
    threshold: float | None
    reason: str | None
    images: tuple[SaidOfImage, ...]


@dataclass(frozen=True, slots=True)
class SaidByReport:
    """All that the record wants of a report.

    Attributes:
        model: name, version, and the beginning of the hash of the weights.
        device_uid: of the installation that made it; empty where the report does not say.
    """

    model: tuple[str, str, str]
    device_uid: str
    parts: tuple[SaidOfPart, ...]


def said_by_report(ds: Dataset) -> SaidByReport | None:
    """What a report says, or None where it is no measurement report of ours."""
    try:
        return _read(ds) if is_called(ds, codes.IMAGING_MEASUREMENT_REPORT) else None
    except (AttributeError, IndexError, KeyError, TypeError, ValueError):  # another program's, or spoilt
        return None


def _read(ds: Dataset) -> SaidByReport | None:
    found: list[tuple[Dataset, list[SaidOfImage]]] = []
    for group in groups(ds):
        if is_of_an_image(group):
            found[-1][1].append(_image(group))
        else:
            found.append((group, []))
    if not found:
        return None
    first = found[0][0]
    version = _VERSION.fullmatch(first_text(first, codes.ALGORITHM_VERSION))
    if version is None:
        return None
    device = next((str(item.UID) for item in children(ds, codes.DEVICE_OBSERVER_UID)), "")
    return SaidByReport(
        (first_text(first, codes.ALGORITHM_NAME), version[1], version[2]),
        device,
        tuple(_part(group, tuple(images)) for group, images in found),
    )


def _part(group: Dataset, images: tuple[SaidOfImage, ...]) -> SaidOfPart:
    body_part = laterality = None
    for site in children(group, codes.FINDING_SITE):
        body_part = word_of(site, codes.BODY_PARTS)
        laterality = next((word_of(side, codes.LATERALITIES) for side in children(site, codes.LATERALITY)), None)
    # The first comment says the result in words; the last may say the count.
    comments = [text for text in list(texts(group, codes.COMMENT))[1:] if not _COUNT.fullmatch(text)]
    threshold = first_text(group, codes.ALGORITHM_PARAMETERS).partition("threshold=")[2]
    return SaidOfPart(
        body_part,
        laterality,
        normality(group),
        _probability(group),
        float(threshold) if threshold else None,
        "; ".join(text.removeprefix(f"{REASON}: ").removesuffix(".") for text in comments) or None,
        images,
    )


def _image(group: Dataset) -> SaidOfImage:
    [uid] = source_uids(group)
    said = {
        name: text.removeprefix(f"{name}: ").removesuffix(".")
        for text in texts(group, codes.COMMENT)
        for name in (NOT_ANALYSED, NOT_COUNTED)
        if text.startswith(f"{name}: ")
    }
    reason = said.get(NOT_ANALYSED) or said.get(NOT_COUNTED)
    return SaidOfImage(uid, NOT_ANALYSED not in said, _probability(group), reason)


def _probability(group: Dataset) -> float | None:
    found = percent(group)
    return None if found is None else found[1] / 100
