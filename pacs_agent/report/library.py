"""The image library of a report: TID 1600 to 1602 (PS3.16), one entry for each source image.

Enters: headers. Leaves: one content item. Built here and not by highdicom's `ImageLibrary`, which demands
ImagerPixelSpacing and PatientOrientation of any radiograph; CR need have neither. Says nothing a header does not.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import highdicom.sr as hd_sr
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from pacs_agent.report import codes
from pacs_agent.report.legal import legal_items, legal_value, received


def image_library(images: Iterable[Dataset]) -> hd_sr.ContainerContentItem:
    """TID 1600 with one group (TID 1601) that lists the images."""
    contains = hd_sr.RelationshipTypeValues.CONTAINS
    library = hd_sr.ContainerContentItem(codes.IMAGE_LIBRARY, relationship_type=contains)
    group = hd_sr.ContainerContentItem(codes.IMAGE_LIBRARY_GROUP, relationship_type=contains)
    entries = []
    for image in images:
        entry = hd_sr.ImageContentItem(
            codes.SOURCE, image.SOPClassUID, image.SOPInstanceUID, relationship_type=contains
        )
        if descriptors := list(_descriptors(image)):
            entry.ContentSequence = hd_sr.ContentSequence(descriptors)
        entries.append(entry)
    group.ContentSequence = hd_sr.ContentSequence(entries)
    library.ContentSequence = hd_sr.ContentSequence([group])
    return library


def _descriptors(image: Dataset) -> Iterator[Any]:
    """TID 1602, the rows that a radiograph's header answers."""
    relationship = hd_sr.RelationshipTypeValues.HAS_ACQ_CONTEXT
    coded = (
        (codes.MODALITY, codes.MODALITIES.get(str(received(image, "Modality")))),
        (codes.IMAGE_LATERALITY, _laterality(image)),
        (codes.IMAGE_VIEW, _view(image)),
    )
    for name, value in coded:
        if value is not None:
            yield hd_sr.CodeContentItem(name, value, relationship_type=relationship)
    for name, keyword in ((codes.PIXEL_DATA_ROWS, "Rows"), (codes.PIXEL_DATA_COLUMNS, "Columns")):
        number = received(image, keyword)
        if isinstance(number, int):
            yield hd_sr.NumContentItem(name, number, codes.PIXELS, relationship_type=relationship)


def _laterality(image: Dataset) -> Code | None:
    for keyword in ("ImageLaterality", "Laterality"):
        if side := codes.LATERALITIES.get(str(legal_value(image, keyword))):
            return side
    return None


def _view(image: Dataset) -> Code | None:
    for item in legal_items(image, "ViewCodeSequence"):
        if "CodeValue" in item:
            return Code(item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning)
    return codes.VIEWS.get(str(legal_value(image, "ViewPosition")))
