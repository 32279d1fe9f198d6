"""What a report says, read back: the way from its bytes to rows again."""

from io import BytesIO

import pytest
from objects import DOUBT, EQUIPMENT, MODEL, UNTRAINED, doubted, finding, radiograph, report
from pydicom import dcmread
from pydicom.dataset import Dataset

from pacs_agent.analyse.finding import Finding
from pacs_agent.report.readback import SaidOfImage, SaidOfPart, said_by_report
from pacs_agent.report.sr import SR_CLASSES, SrClass, encode_part10


def read(ds: Dataset) -> Dataset:
    """As it lies in the outbox."""
    return dcmread(BytesIO(encode_part10(ds)))


@pytest.mark.parametrize("sr_class", SR_CLASSES)
def test_findings_come_back(sr_class: SrClass) -> None:
    """Of every class: part, side, finding, numbers, why, each image, the model, and who made it."""
    images = [radiograph(number) for number in range(1, 5)]
    uids = [str(image.SOPInstanceUID) for image in images]
    findings = [
        finding(images[:2], 0.91234, 0.5),
        finding(images[2:3], None, part="hand", side=None),
        finding(images[3:], 0.2, part=None, side=None, reason="BodyPartExamined and AnatomicRegionSequence disagree"),
    ]
    said = said_by_report(read(report(images, findings, sr_class=sr_class)))
    assert said is not None
    assert said.model == (MODEL.name, MODEL.version, MODEL.bundle_hash[:12])
    assert said.device_uid == EQUIPMENT.device_uid
    broken = "the JPEG 2000 stream is broken"
    assert said.parts == (
        SaidOfPart(
            "wrist", "R", "abnormal", pytest.approx(0.70617, abs=1e-4), 0.5, None,
            (
                SaidOfImage(uids[0], True, pytest.approx(0.9123, abs=1e-4), None),
                SaidOfImage(uids[1], True, pytest.approx(0.5), None),
            ),
        ),
        SaidOfPart(
            "hand", None, "undetermined", None, 0.5, f"0 of 1 images analysed ({broken})",
            (SaidOfImage(uids[2], False, None, broken),),
        ),
        SaidOfPart(
            None, None, "undetermined", None, 0.5, "BodyPartExamined and AnatomicRegionSequence disagree",
            (SaidOfImage(uids[3], True, None, None),),
        ),
    )  # fmt: skip


def test_what_is_not_counted_says_why() -> None:
    """An image that the guard doubts was analysed, and the finding does not rest on it."""
    images, findings, *_ = doubted()
    said = said_by_report(read(report(images, findings)))
    assert said is not None
    assert [image.is_counted for image in said.parts[0].images] == [True, False]
    assert said.parts[0].images[1].reason == DOUBT


def test_report_without_a_claim() -> None:
    """An untrained model's: undetermined, the reason as it was given, no number."""
    image = radiograph()
    made: Finding = finding([image], 0.9, model=UNTRAINED)
    said = said_by_report(read(report([image], [made], UNTRAINED)))
    assert said is not None
    [part] = said.parts
    assert (part.finding, part.abnormal_probability, part.reason) == (
        "undetermined", None, "the model is not trained",
    )  # fmt: skip


def test_what_is_no_report_of_ours_says_nothing() -> None:
    """Neither a picture nor a report that is cut short is made to speak."""
    assert said_by_report(radiograph()) is None
    image = radiograph()
    ds = read(report([image], [finding([image], 0.9)]))
    for content in ds.ContentSequence:
        if content.ValueType == "CONTAINER":
            content.ContentSequence = []
    assert said_by_report(ds) is None
