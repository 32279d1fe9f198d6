"""The structured report as a DICOM object: Comprehensive 3D SR, or a plainer class for a PACS that refuses it.

Enters: findings, the headers of their images, which model and which installation spoke, the UIDs and the time given
to this revision. Leaves: a data set ready to encode, and its Part 10 bytes. The same arguments give the same bytes.
Never changes the caller's data sets, never gives a UID or reads a clock, never marks a report verified or final.
"""

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Literal

import highdicom.sr as hd_sr
from pydicom.dataset import Dataset
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage, ExplicitVRLittleEndian

from pacs_agent.analyse.finding import Finding, LeftOut, ModelIdentity
from pacs_agent.errors import PacsAgentError
from pacs_agent.report.capture import CAPTURE_CLASS
from pacs_agent.report.content import CaptureReference, Equipment, measurement_report
from pacs_agent.report.header import TYPE_2, requests
from pacs_agent.report.signature import ReportIdentity, encode_part10, local_time, sign

__all__ = [
    "SERIES_DESCRIPTION",
    "SERIES_NUMBER",
    "SR_CLASSES",
    "Equipment",
    "Predecessor",
    "ReportIdentity",
    "SrClass",
    "encode_part10",
    "structured_report",
]

SrClass = Literal["comprehensive3d", "comprehensive", "enhanced"]
SR_CLASSES: Mapping[SrClass, str] = {
    "comprehensive3d": Comprehensive3DSRStorage,
    "comprehensive": ComprehensiveSRStorage,
    "enhanced": EnhancedSRStorage,
}
_CONSTRUCTORS = {
    "comprehensive3d": hd_sr.Comprehensive3DSR,
    "comprehensive": hd_sr.ComprehensiveSR,
    "enhanced": hd_sr.EnhancedSR,
}

SERIES_NUMBER = 9001  # high: behind the modality's own series in any worklist
SERIES_DESCRIPTION = "AI RESEARCH - UNVERIFIED structured report"


@dataclass(frozen=True, slots=True)
class Predecessor:
    """An earlier report that this one replaces (PS3.3 C.17.2, Predecessor Documents Sequence)."""

    sop_class_uid: str
    sop_instance_uid: str
    series_instance_uid: str
    study_instance_uid: str


def structured_report(
    findings: Sequence[Finding],
    sources: Sequence[Dataset],
    model: ModelIdentity,
    equipment: Equipment,
    identity: ReportIdentity,
    *,
    predecessors: Sequence[Predecessor] = (),
    captures: Mapping[str, CaptureReference | str] | None = None,
    left_out: Sequence[LeftOut] = (),
    sr_class: SrClass = "comprehensive3d",
) -> Dataset:
    """One report of a study and revision with all its findings.

    Args:
        findings: one for each body part and side, at least one.
        sources: headers, of one study, of exactly the images that the findings name; pixel data is not looked at.
        model: which model spoke; an uncalibrated one states a Certainty of Finding, not a Probability.
        equipment: this installation.
        identity: the UIDs, the revision and the time given to it.
        predecessors: earlier reports that this one replaces.
        captures: by SOP Instance UID of the image its heat map, or why there is none.
        left_out: images of the study that the findings do not speak of; it says so of them.
        sr_class: the plainer classes hold the same content.

    Raises:
        PacsAgentError: the sources are not those the findings name, or not of one study.
    """
    images = _images(findings, sources)
    ordered = list(images.values())
    created_at = local_time(identity, ordered)
    captures = captures or {}
    made = [each for each in captures.values() if isinstance(each, CaptureReference)]
    total = sum(f.image_count for f in findings) + sum(images.image_count for images in left_out if images.body_part)
    analysed = sum(finding.images_analysed for finding in findings)
    content = measurement_report(findings, images, model, equipment, identity.sop_instance_uid, captures, left_out)
    ds: Dataset = _CONSTRUCTORS[sr_class](
        # References only: highdicom reads names, dates and character sets of its evidence and stops at odd ones.
        evidence=[*map(_reference, ordered), *(_capture_reference(each, ordered[0]) for each in made)],
        content=content[0],
        series_instance_uid=identity.series_instance_uid,
        series_number=SERIES_NUMBER,
        series_description=SERIES_DESCRIPTION,
        sop_instance_uid=identity.sop_instance_uid,
        instance_number=identity.revision,
        manufacturer=equipment.manufacturer,
        manufacturer_model_name=equipment.model_name,
        software_versions=equipment.software_version,
        content_date=created_at.date(),
        content_time=created_at.time(),
        is_complete=analysed == total,
        is_final=False,
        is_verified=False,
        requested_procedures=requests(ordered) or None,
        previous_versions=[_document(predecessor) for predecessor in predecessors] or None,
        transfer_syntax_uid=ExplicitVRLittleEndian,
    )
    if analysed < total:
        ds.CompletionFlagDescription = f"{analysed} of {total} images analysed"
    sign(ds, ordered, model, equipment, created_at)
    return ds


def _images(findings: Sequence[Finding], sources: Sequence[Dataset]) -> dict[str, Dataset]:
    """Copies of the sources by SOP Instance UID in the order of the findings, whatever order they came in."""
    # Copies: looking at an element decodes it in place, and what could not be decoded would be written differently.
    given = {str(source.SOPInstanceUID): source for source in map(deepcopy, sources)}
    named = [outcome.sop_instance_uid for finding in findings for outcome in finding.images]
    if not named or set(named) != set(given):
        raise PacsAgentError("the sources of a report are not the images that its findings name")
    if len({source.StudyInstanceUID for source in given.values()}) > 1:
        raise PacsAgentError("the sources of a report are not of one study")
    return {uid: given[uid] for uid in named}


def _reference(image: Dataset) -> Dataset:
    reference = Dataset()
    for keyword in ("SOPClassUID", "SOPInstanceUID", "SeriesInstanceUID", "StudyInstanceUID"):
        setattr(reference, keyword, image[keyword].value)
    for keyword in TYPE_2:
        setattr(reference, keyword, "")
    return reference


def _capture_reference(capture: CaptureReference, image: Dataset) -> Dataset:
    reference = _reference(image)
    reference.SOPClassUID, reference.SOPInstanceUID = CAPTURE_CLASS, capture.sop_instance_uid
    reference.SeriesInstanceUID = capture.series_instance_uid
    return reference


def _document(predecessor: Predecessor) -> Dataset:
    document = Dataset()
    document.SOPClassUID = predecessor.sop_class_uid
    document.SOPInstanceUID = predecessor.sop_instance_uid
    document.SeriesInstanceUID = predecessor.series_instance_uid
    document.StudyInstanceUID = predecessor.study_instance_uid
    return document
