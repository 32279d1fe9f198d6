"""A report's content tree as whoever reads it walks it: items by their concept names.

Enters: a data set of ours, or an item of its tree. Leaves: items, texts, codes in our words. Never raises on an item
that is not there.
"""

from collections.abc import Iterator, Mapping
from typing import cast

from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from pacs_agent.analyse.finding import FindingValue
from pacs_agent.report import codes


def children(item: Dataset, name: Code) -> Iterator[Dataset]:
    """The items directly beneath *item* that are called *name*."""
    yield from (child for child in item.get("ContentSequence", ()) if is_called(child, name))


def is_called(item: Dataset, name: Code) -> bool:
    """Whether an item's concept name is *name*."""
    names = item.get("ConceptNameCodeSequence") or ()
    return any(
        (n.get("CodeValue"), n.get("CodingSchemeDesignator")) == (name.value, name.scheme_designator) for n in names
    )


def texts(item: Dataset, name: Code) -> Iterator[str]:
    """What the texts called *name* beneath *item* say."""
    yield from (str(child.TextValue) for child in children(item, name))


def first_text(item: Dataset, name: Code) -> str:
    """The first of them; empty where there is none."""
    return next(texts(item, name), "")


def groups(ds: Dataset) -> list[Dataset]:
    """The measurement groups of a report (TID 1500), as they stand there."""
    return [
        group for part in children(ds, codes.IMAGING_MEASUREMENTS) for group in children(part, codes.MEASUREMENT_GROUP)
    ]


def is_of_an_image(group: Dataset) -> bool:
    """Whether a group is of one image, and not of a whole finding: `content.measurement_report` names them so."""
    return ": image " in first_text(group, codes.TRACKING_IDENTIFIER)


def normality(group: Dataset) -> FindingValue:
    """A group's result."""
    for item in children(group, codes.NORMALITY):
        return cast(FindingValue, word_of(item, codes.NORMALITIES) or "undetermined")
    return "undetermined"


def word_of(item: Dataset, words: Mapping[str, Code] | Mapping[FindingValue, Code]) -> str | None:
    """Our word for an item's coded value, where it is one of ours."""
    value = str(item.ConceptCodeSequence[0].CodeValue)
    return next((str(word) for word, code in words.items() if code.value == value), None)


def percent(group: Dataset) -> tuple[Code, float] | None:
    """What a group calls its number, and the number."""
    for name in (codes.PROBABILITY, codes.CERTAINTY_OF_FINDING):
        for item in children(group, name):
            return name, float(item.MeasuredValueSequence[0].NumericValue)
    return None


def source_uids(group: Dataset) -> list[str]:
    """SOP Instance UIDs of the images that a group rests on."""
    return [
        str(reference.ReferencedSOPInstanceUID)
        for child in group.get("ContentSequence", ())
        if child.ValueType == "IMAGE" and not is_called(child, codes.VISUAL_EXPLANATION)
        for reference in child.ReferencedSOPSequence
    ]
