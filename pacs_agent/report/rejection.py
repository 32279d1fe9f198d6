"""The rejection note of our own objects: a Key Object Selection Document that a PACS may act on. PS3.3 A.35.4

Enters: what a destination has of a study, the header of one of those objects, why they are withdrawn, which
installation speaks, the UIDs and the time given to the note. Leaves: a data set ready to encode. The same arguments
give the same bytes. Never names what is not ours, never changes the caller's data sets.
"""

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass

import highdicom as hd
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, KeyObjectSelectionDocumentStorage

from pacs_agent.errors import PacsAgentError
from pacs_agent.report import codes
from pacs_agent.report.capture import CAPTURE_CLASS
from pacs_agent.report.content import Equipment, device_observer
from pacs_agent.report.header import TYPE_2, requests
from pacs_agent.report.legal import items
from pacs_agent.report.signature import ReportIdentity, local_time, sign

NOTE_CLASS = KeyObjectSelectionDocumentStorage
SERIES_NUMBER = 9000  # before the report's
SERIES_DESCRIPTION = "AI RESEARCH - UNVERIFIED rejection note"
DESCRIPTION = "AI result withdrawn"
CONTRIBUTION = "Withdrawal of a result of AI analysis"


@dataclass(frozen=True, slots=True)
class Rejected:
    """An object of ours that the note names."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str


def rejection_note(
    rejected: Sequence[Rejected], header: Dataset, reason: str, equipment: Equipment, identity: ReportIdentity
) -> Dataset:
    """The note of one study for one destination.

    Args:
        rejected: everything of ours that the destination has of the study, at least one.
        header: of one of those objects, whose patient and study the note takes over, or of an image of the study.
        reason: why, in a person's words.
        equipment: this installation.
        identity: the UIDs, the revision and the time given to the note.

    Raises:
        PacsAgentError: nothing is rejected.
    """
    if not rejected:
        raise PacsAgentError("a rejection note names nothing")
    header = deepcopy(header)  # looking at an element decodes it in place
    references = [_reference(each, header) for each in rejected]
    words = " ".join("".join(character if character.isprintable() else " " for character in reason).split())
    ds: Dataset = hd.ko.KeyObjectSelectionDocument(
        evidence=references,
        content=hd.ko.KeyObjectSelection(
            document_title=codes.REJECTED_FOR_QUALITY_REASONS,
            referenced_objects=references,
            observer_device_context=device_observer(equipment),
            description=f"{DESCRIPTION}: {words}",
        ),
        series_instance_uid=identity.series_instance_uid,
        series_number=SERIES_NUMBER,
        sop_instance_uid=identity.sop_instance_uid,
        instance_number=identity.revision,
        manufacturer=equipment.manufacturer,
        requested_procedures=_requests(header) or None,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    ds.SeriesDescription = SERIES_DESCRIPTION
    sign(ds, [header], CONTRIBUTION, equipment, local_time(identity, [header]))
    return ds


def _reference(rejected: Rejected, header: Dataset) -> Dataset:
    """What highdicom reads of an object that it refers to; the patient comes with the signature."""
    reference = Dataset()
    reference.SOPClassUID, reference.SOPInstanceUID = rejected.sop_class_uid, rejected.sop_instance_uid
    reference.StudyInstanceUID, reference.SeriesInstanceUID = header.StudyInstanceUID, rejected.series_instance_uid
    for keyword in TYPE_2:
        setattr(reference, keyword, "")
    if rejected.sop_class_uid == CAPTURE_CLASS:
        reference.Rows = reference.Columns = 1  # highdicom names an IMAGE by these, else a COMPOSITE
    return reference


def _requests(header: Dataset) -> list[Dataset]:
    """Of our own report those it took from its sources; of an image its own."""
    return list(items(header, "ReferencedRequestSequence")) or requests([header])
