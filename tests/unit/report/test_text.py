"""The report as plain text: what a person reads in a terminal."""

from dataclasses import replace
from datetime import UTC, datetime
from io import BytesIO

import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import ComputedRadiographyImageStorage

from pacs_agent.analyse.finding import Finding, ImageOutcome, ModelIdentity, decide
from pacs_agent.errors import PacsAgentError
from pacs_agent.report.sr import SR_CLASSES, Equipment, ReportIdentity, SrClass, encode_part10, structured_report
from pacs_agent.report.text import WIDTH, report_text

MODEL = ModelIdentity("demonstration", "1.0.0", "0123456789abcdef" * 4, True, True, False)
UNTRAINED = ModelIdentity("demonstration", "1.0.0", "0123456789abcdef" * 4, False, True, False)


def radiograph(number: int) -> Dataset:
    ds = Dataset()
    ds.SOPClassUID, ds.SOPInstanceUID = ComputedRadiographyImageStorage, f"1.2.3.{number}"
    ds.SeriesInstanceUID, ds.StudyInstanceUID, ds.Modality = "1.2.4", "1.2.5", "CR"
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Phantom^Paula", "P-17", "19700102", "F"
    ds.StudyDate, ds.AccessionNumber, ds.StudyDescription = "20250304", "A-42", "XR wrist"
    ds.QualityControlSubject = "YES"
    ds.ViewPosition = "PA"
    return ds


def finding(
    first: int, *probabilities: float | None, part: str = "wrist", side: str | None = "R", model: ModelIdentity = MODEL
) -> Finding:
    images = tuple(
        ImageOutcome(f"1.2.3.{number}", "1.2.4", "failed", reason="the pixel data ends early")
        if probability is None
        else ImageOutcome(f"1.2.3.{number}", "1.2.4", "analysed", probability)
        for number, probability in enumerate(probabilities, first)
    )
    return decide(part, side, images, 0.5, model, quality_control_subject=True)


def report(*findings: Finding, model: ModelIdentity = MODEL, sr_class: SrClass = "comprehensive3d") -> Dataset:
    count = sum(f.image_count for f in findings)
    return structured_report(
        findings,
        [radiograph(number) for number in range(1, count + 1)],
        model,
        Equipment(device_uid="2.25.7", station_name="PACS_AGENT", software_version="0.1.0"),
        ReportIdentity("2.25.1", "2.25.2", 1, datetime(2025, 3, 4, 9, 30, tzinfo=UTC)),
        sr_class=sr_class,
    )


EXPECTED = """\
AI RESEARCH - UNVERIFIED STRUCTURED REPORT
Unverified result of artificial intelligence. Research software, not for clinical use.

Patient  Phantom, Paula · ID P-17 · born 1970-01-02 · F · phantom
Study    2025-03-04 · XR wrist · accession A-42
Report   revision 1 · 2025-03-04 09:30 · unverified · preliminary · partial: 4 of 5 images analysed
Model    demonstration 1.0.0 (weights 0123456789ab) · threshold 0.5

Wrist, right: ABNORMAL   probability 85.0 %
  Abnormality flagged by the model.
  2 of 3 images analysed (the pixel data ends early).
  image 1   postero-anterior   abnormal      probability 90.0 %
  image 2   postero-anterior   undetermined  Not analysed: the pixel data ends early.
  image 3   postero-anterior   abnormal      probability 80.0 %

Hand: NORMAL   probability 12.3 %
  No abnormality flagged by the model; does not exclude one.
  2 of 2 images analysed.
  image 1   postero-anterior   normal        probability 4.6 %
  image 2   postero-anterior   normal        probability 20.0 %
"""


@pytest.mark.parametrize("sr_class", SR_CLASSES)
def test_whole_text(sr_class: SrClass) -> None:
    """The whole report of two parts, one of them partial, as a person reads it, whatever the class."""
    ds = report(finding(1, 0.9, None, 0.8), finding(4, 0.046, 0.2, part="hand", side=None), sr_class=sr_class)
    assert report_text(ds) == EXPECTED


def test_text_of_the_stored_object_is_the_same() -> None:
    """What `show` reads from the stored bytes is what was said when the report was made."""
    ds = report(finding(1, 0.9, 0.3))
    assert report_text(dcmread(BytesIO(encode_part10(ds)))) == report_text(ds)


def test_untrained_model_shows_no_number() -> None:
    """No percentage stands anywhere in the text of a model that may claim nothing; the reason does."""
    text = report_text(report(finding(1, 0.9, 0.3, model=UNTRAINED), model=UNTRAINED))
    assert "Wrist, right: UNDETERMINED\n" in text
    assert "Reason: the model is not trained." in text
    assert "%" not in text


def test_lines_fit_a_terminal() -> None:
    """A long reason is broken into lines."""
    images = (ImageOutcome("1.2.3.1", "1.2.4", "analysed", 0.9),)
    reason = "BodyPartExamined says hand and " + "SeriesDescription says something else again and " * 6
    unsure = decide(None, None, images, 0.5, MODEL, quality_control_subject=True, reason=reason)
    lines = report_text(report(unsure)).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert any(line.startswith("Body part not determined: UNDETERMINED") for line in lines)


def test_parts_say_their_own_thresholds() -> None:
    """Where they differ each finding has its own, and none stands for all."""
    text = report_text(report(finding(1, 0.9), replace(finding(2, 0.1, part="hand", side=None), threshold=0.25)))
    assert "Wrist, right: ABNORMAL   probability 90.0 %   threshold 0.5\n" in text
    assert "Hand: NORMAL   probability 10.0 %   threshold 0.25\n" in text
    assert text.count("threshold") == 2


def test_long_words_of_an_image_are_broken_into_lines() -> None:
    """What is wrong with an image stays within a terminal too, below its view."""
    long = ImageOutcome("1.2.3.1", "1.2.4", "failed", reason="the pixel data ends early " * 5)
    text = report_text(report(decide("wrist", "R", (long,), 0.5, MODEL, quality_control_subject=True)))
    assert max(map(len, text.splitlines())) <= WIDTH
    assert "\n            " in text


def test_other_objects_are_refused() -> None:
    """An object that is no measurement report is not put into words."""
    with pytest.raises(PacsAgentError, match="TID 1500"):
        report_text(radiograph(1))
