"""The rule of a finding: what may be said of a group of images, and when nothing may."""

from dataclasses import replace

import pytest

from pacs_agent.analyse.finding import Finding, FindingValue, ImageOutcome, ModelIdentity, decide

MODEL = ModelIdentity("net", "1", "ab" * 32, trained=True, calibrated=True, requires_quality_control_subject=False)
DOUBT = "header says hand, picture looks like wrist, 0.97"


def image(probability: float | None, doubt: str | None = None) -> ImageOutcome:
    if probability is None:
        return ImageOutcome("1.2", "1.3", "failed", reason="the stream is broken")
    return ImageOutcome("1.2", "1.3", "analysed", probability, (probability,), doubt=doubt)


def found(*images: ImageOutcome, model: ModelIdentity = MODEL, **changes: object) -> Finding:
    arguments = {"threshold": 0.5, "quality_control_subject": False, **changes}
    return decide("hand", "R", images, model=model, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("probabilities", "finding"),
    [((0.2, 0.4), "normal"), ((0.5,), "normal"), ((0.2, 0.9), "abnormal"), ((0.50001,), "abnormal")],
)
def test_mean_of_the_images_against_the_threshold(probabilities: tuple[float, ...], finding: FindingValue) -> None:
    """Abnormal only when the arithmetic mean is greater than the threshold."""
    result = found(*map(image, probabilities))
    assert result.finding == finding
    assert result.abnormal_probability == pytest.approx(sum(probabilities) / len(probabilities))
    assert (result.image_count, result.images_analysed, result.reason) == (len(probabilities), len(probabilities), None)


def test_calibration_is_applied_to_the_mean() -> None:
    """Once, after averaging; the threshold is for what leaves it."""
    result = found(image(0.2), image(0.4), calibrate=lambda mean: mean**2 + 0.5)
    assert (result.finding, result.abnormal_probability) == ("abnormal", pytest.approx(0.59))
    # Each image's as that of a group of it alone, so that it can be held against the threshold.
    assert [each.abnormal_probability for each in result.images] == [pytest.approx(0.54), pytest.approx(0.66)]


@pytest.mark.parametrize("second", [image(None), image(0.1, DOUBT)])
@pytest.mark.parametrize(("first", "finding"), [(0.2, "undetermined"), (0.9, "abnormal")])
def test_normal_only_of_a_group_seen_whole(second: ImageOutcome, first: float, finding: FindingValue) -> None:
    """An image that failed or is doubted adds nothing to the mean; the rest may be abnormal, else no number."""
    result = found(image(first), second)
    assert (result.finding, result.abnormal_probability) == (finding, first if finding == "abnormal" else None)
    assert result.images_analysed == 1
    assert result.reason == f"1 of 2 images analysed ({second.reason or DOUBT})"


@pytest.mark.parametrize("only", [image(None), image(0.99, DOUBT)])
def test_nothing_counted_is_undetermined(only: ImageOutcome) -> None:
    """No image that counts: no probability, and the reason says what was seen."""
    result = found(only)
    assert (result.finding, result.abnormal_probability, result.images_analysed) == ("undetermined", None, 0)
    assert (only.reason or DOUBT) in (result.reason or "")


@pytest.mark.parametrize(
    ("model", "changes", "reason"),
    [
        (replace(MODEL, trained=False), {}, "not trained"),
        (replace(MODEL, requires_quality_control_subject=True), {}, "phantoms only"),
        (MODEL, {"reason": "BodyPartExamined says hand, AnatomicRegionSequence says wrist"}, "says wrist"),
    ],
)
def test_no_claim(model: ModelIdentity, changes: dict[str, str], reason: str) -> None:
    """An untrained model, one for phantoms before a patient, a doubtful header: undetermined, no probability."""
    result = found(image(0.9), model=model, **changes)
    assert (result.finding, result.abnormal_probability) == ("undetermined", None)
    assert reason in (result.reason or "")


def test_phantom_model_speaks_of_phantoms() -> None:
    """With QualityControlSubject YES on every image it gives its finding."""
    model = replace(MODEL, requires_quality_control_subject=True)
    assert found(image(0.9), model=model, quality_control_subject=True).finding == "abnormal"
