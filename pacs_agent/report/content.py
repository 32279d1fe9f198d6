"""The content tree of a report: TID 1500 Measurement Report (PS3.16).

Enters: findings, the model, the equipment, the headers of the images. Leaves: the root content item. Says of a
finding only what it holds: no probability where it has none, never a diagnosis.

The measurement groups stand in the order of the findings, that of a whole finding before those of its images.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import highdicom.sr as hd_sr
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code
from pydicom.uid import SecondaryCaptureImageStorage

from pacs_agent.analyse.finding import Finding, FindingValue, ImageOutcome, LeftOut, ModelIdentity
from pacs_agent.report import codes
from pacs_agent.report.legal import legal_items
from pacs_agent.report.library import image_library
from pacs_agent.report.uids import derived_uid

DISCLAIMER = "Unverified result of artificial intelligence. Research software, not for clinical use."
SENTENCES: Mapping[FindingValue, str] = {
    "normal": "No abnormality flagged by the model; does not exclude one.",
    "abnormal": "Abnormality flagged by the model.",
    "undetermined": "Undetermined: no statement is made.",
}
REASON, NOT_ANALYSED, NOT_COUNTED = "Reason", "Not analysed", "Not counted"
HASH_DIGITS = 12  # of the weights' SHA-256: enough to tell bundles apart, short enough to be read out

CONTAINS = hd_sr.RelationshipTypeValues.CONTAINS
_SIDES = {"R": "right", "L": "left", "B": "both sides"}


@dataclass(frozen=True, slots=True)
class CaptureReference:
    """A capture as the report refers to it."""

    sop_instance_uid: str
    series_instance_uid: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Equipment:
    """This installation, as observer and as contributing equipment.

    Attributes:
        device_uid: a stable UID of the installation.
        station_name: its AE title.
        software_version: of the program, not of the model.
    """

    device_uid: str
    station_name: str
    software_version: str
    manufacturer: str = "pacs-agent"
    model_name: str = "pacs-agent"


def device_observer(equipment: Equipment) -> hd_sr.ObserverContext:
    """This installation as the observer of a document, TID 1001 and 1004."""
    return hd_sr.ObserverContext(
        observer_type=hd_sr.CodedConcept.from_code(codes.DEVICE),
        observer_identifying_attributes=hd_sr.DeviceObserverIdentifyingAttributes(
            uid=equipment.device_uid,
            name=equipment.station_name,
            manufacturer_name=equipment.manufacturer,
            model_name=equipment.model_name,
        ),
    )


def measurement_report(
    findings: Sequence[Finding],
    images: Mapping[str, Dataset],
    model: ModelIdentity,
    equipment: Equipment,
    root_uid: str,
    captures: Mapping[str, CaptureReference | str],
    left_out: Sequence[LeftOut] = (),
) -> hd_sr.MeasurementReport:
    """The content tree.

    Args:
        findings: one for each body part and side, at least one.
        images: header by SOP Instance UID, of every image that the findings name.
        model: which model spoke.
        equipment: who observed.
        root_uid: SOP Instance UID of the report; the tracking UIDs derive from it.
        captures: by SOP Instance UID of the image its heat map, or why there is none.
        left_out: images of the study that the findings do not speak of.
    """
    report = hd_sr.MeasurementReport(
        observation_context=hd_sr.ObservationContext(observer_device_context=device_observer(equipment)),
        procedure_reported=_procedures(images.values()),
        imaging_measurements=[
            group
            for number, finding in enumerate(findings, 1)
            for group in _groups(finding, images, model, root_uid, f"{number}", captures)
        ],
        title=codes.IMAGING_MEASUREMENT_REPORT,
    )
    content = report[0].ContentSequence
    # TID 1500 row 5 stands before the measurements, row 12 after them.
    content.insert(len(content) - 1, image_library(images.values()))
    evaluations = hd_sr.ContainerContentItem(codes.QUALITATIVE_EVALUATIONS, relationship_type=CONTAINS)
    evaluations.ContentSequence = hd_sr.ContentSequence(
        [_comment(text) for text in (DISCLAIMER, *map(_left_out, left_out))]
    )
    content.append(evaluations)
    return report


def group_name(finding: Finding) -> str:
    """What a person calls the group: `wrist, right`."""
    part = finding.body_part or "body part not determined"
    return f"{part}, {_SIDES[finding.laterality]}" if finding.laterality else part


def percent(probability: float) -> float:
    """As every object states it, and each text rounds it: to two decimals."""
    return round(100 * probability, 2)


def algorithm_version(model: ModelIdentity) -> str:
    """The model's version with the start of its weights' hash, for weights are what spoke."""
    return f"{model.version} (weights {model.bundle_hash[:HASH_DIGITS]})"


def _groups(
    finding: Finding,
    images: Mapping[str, Dataset],
    model: ModelIdentity,
    root_uid: str,
    number: str,
    captures: Mapping[str, CaptureReference | str],
) -> Iterator[hd_sr.MeasurementsAndQualitativeEvaluations]:
    """TID 1501 for the finding, then for each of its images."""
    name = group_name(finding)

    def group(
        name: str,
        uid_name: str,
        *,
        probability: float | None,
        normality: FindingValue,
        comments: Sequence[str],
        outcomes: Sequence[ImageOutcome],
        heat_map: CaptureReference | None = None,
    ) -> hd_sr.MeasurementsAndQualitativeEvaluations:
        item = hd_sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=hd_sr.TrackingIdentifier(uid=derived_uid(root_uid, uid_name), identifier=name),
            algorithm_id=hd_sr.AlgorithmIdentification(
                name=model.name,
                version=algorithm_version(model),
                parameters=[f"threshold={finding.threshold:g}"],
            ),
            finding_sites=_sites(finding),
            measurements=None if probability is None else [_probability(probability, model)],
            qualitative_evaluations=[hd_sr.QualitativeEvaluation(codes.NORMALITY, codes.NORMALITIES[normality])],
        )
        # TID 1501 row 12, text, for which highdicom has no argument; the images follow as it would put them.
        item[0].ContentSequence.extend(_comment(text) for text in comments)
        for outcome in outcomes:
            source = images[outcome.sop_instance_uid]
            item[0].ContentSequence.append(
                hd_sr.SourceImageForMeasurementGroup(source.SOPClassUID, source.SOPInstanceUID)
            )
        if heat_map:
            item[0].ContentSequence.append(_heat_map(heat_map))
        return item

    yield group(
        name,
        number,
        probability=finding.abnormal_probability,
        normality=finding.finding,
        comments=_comments(finding),
        outcomes=finding.images,
    )
    for index, outcome in enumerate(finding.images, 1):
        # No claim for the group means none for its images.
        probability = None if finding.abnormal_probability is None else outcome.counted_probability
        normality: FindingValue = "undetermined"
        if finding.finding != "undetermined" and probability is not None:
            normality = "abnormal" if probability > finding.threshold else "normal"
        comments = []
        if outcome.status == "failed":
            comments = [_sentence(f"{NOT_ANALYSED}: {outcome.reason or 'no reason is known'}")]
        elif outcome.doubt:
            comments = [_sentence(f"{NOT_COUNTED}: {outcome.doubt}")]
        capture = captures.get(outcome.sop_instance_uid)
        if isinstance(capture, str):
            comments.append(_sentence(f"No heat map: {capture}"))
        image_name = f"{name}: image {index} of {finding.image_count}"
        yield group(
            image_name,
            f"{number}/{index}",
            probability=probability,
            normality=normality,
            comments=comments,
            outcomes=[outcome],
            heat_map=None if isinstance(capture, str) else capture,
        )


def _heat_map(capture: CaptureReference) -> hd_sr.ImageContentItem:
    item = hd_sr.ImageContentItem(
        codes.VISUAL_EXPLANATION, SecondaryCaptureImageStorage, capture.sop_instance_uid, relationship_type=CONTAINS
    )
    method = hd_sr.CodeContentItem(
        codes.MEASUREMENT_METHOD,
        codes.GRADIENT_WEIGHTED_CLASS_ACTIVATION,
        relationship_type=hd_sr.RelationshipTypeValues.HAS_CONCEPT_MOD,
    )
    item.ContentSequence = hd_sr.ContentSequence([method])
    return item


def _comments(finding: Finding) -> list[str]:
    """What the report says of a finding in words: the result, why, and how many images it rests on."""
    count = f"{finding.images_analysed} of {finding.image_count} images analysed"
    reason = finding.reason or ""
    texts = [SENTENCES[finding.finding]]
    if reason:
        texts.append(_sentence(f"{REASON}: {reason}" if finding.finding == "undetermined" else reason))
    if count not in reason:
        texts.append(_sentence(count))
    above = sum((image.counted_probability or 0) > finding.threshold for image in finding.images)
    if finding.finding == "normal" and above:
        alone = f"{above} image{' alone is' if above == 1 else 's alone are'} above the threshold"
        texts.append(_sentence(f"{alone}; the finding rests on the mean of all"))
    return texts


def _left_out(images: LeftOut) -> str:
    kind = f" of the {images.body_part}" if images.body_part else ""
    count = f"1 image{kind} is" if images.image_count == 1 else f"{images.image_count} images{kind} are"
    return _sentence(f"{count} not in this report: {images.reason}")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(". ") + "."


def _sites(finding: Finding) -> list[hd_sr.FindingSite] | None:
    if finding.body_part is None:
        return None
    side = codes.LATERALITIES[finding.laterality] if finding.laterality else None
    return [hd_sr.FindingSite(anatomic_location=codes.BODY_PARTS[finding.body_part], laterality=side)]


def _probability(probability: float, model: ModelIdentity) -> hd_sr.Measurement:
    """TID 300: in percent, to two decimals; the name claims a probability only of a calibrated model."""
    name = codes.PROBABILITY if model.calibrated else codes.CERTAINTY_OF_FINDING
    return hd_sr.Measurement(name=name, value=percent(probability), unit=codes.PERCENT)


def _comment(text: str) -> hd_sr.TextContentItem:
    return hd_sr.TextContentItem(codes.COMMENT, text, relationship_type=CONTAINS)


def _procedures(images: Iterable[Dataset]) -> list[Code]:
    """The study's own procedure codes, of the first image that has valid ones."""
    for image in images:
        if found := [
            Code(item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning)
            for item in legal_items(image, "ProcedureCodeSequence")
            if "CodeValue" in item
        ]:
            return found
    return [codes.XR_UNSPECIFIED_BODY_REGION]
