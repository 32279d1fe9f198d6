"""Images' probabilities in, findings out: the rule of the bundle, and when to say `undetermined`. Pure.

A study's probability is the arithmetic mean of its images'; abnormal when greater than the threshold (MURA's rule).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from pacs_agent.study.bodypart import BODY_PARTS

FindingValue = Literal["normal", "abnormal", "undetermined"]


@dataclass(frozen=True, slots=True)
class ImageOutcome:
    """What the analysis says of one instance.

    Attributes:
        status: `analysed`; `failed` (eligible, but could not be read).
        abnormal_probability: 0 to 1, None unless analysed. What the network said; in a finding, calibrated as a group
            of this one image would be, so that it stands beside the group's and the threshold.
        member_probabilities: one for each network of the ensemble, 0 to 1.
        reason: why it failed, for a person.
        doubt: why its probability does not count, for a person: the picture is not what the model knows, or not of
            the part that the header says.
        attention: the highest value of its heat map; 0 where nothing in it spoke for abnormal, None unless analysed.
    """

    sop_instance_uid: str
    series_instance_uid: str
    status: Literal["analysed", "failed"]
    abnormal_probability: float | None = None
    member_probabilities: tuple[float, ...] = ()
    reason: str | None = None
    doubt: str | None = None
    attention: float | None = None

    @property
    def counted_probability(self) -> float | None:
        """What it adds to its group's mean; None where nothing."""
        return None if self.doubt else self.abnormal_probability


@dataclass(frozen=True, slots=True)
class ModelIdentity:
    """Which model spoke, as records and reports name it, and what it may claim.

    Attributes:
        bundle_hash: SHA-256 of the weights, hex.
        trained: false: every finding is `undetermined`.
        calibrated: whether its probabilities may be called so in a report.
        requires_quality_control_subject: findings only for phantoms (QualityControlSubject YES).
        body_parts: those that it was made for; of any other every finding is `undetermined`.
    """

    name: str
    version: str
    bundle_hash: str
    trained: bool
    calibrated: bool
    requires_quality_control_subject: bool
    body_parts: tuple[str, ...] = BODY_PARTS

    @property
    def key(self) -> tuple[str, str, str]:
        """Name, version and hash of the weights: by these the record tells models apart."""
        return self.name, self.version, self.bundle_hash


@dataclass(frozen=True, slots=True)
class Finding:
    """The result for one body part and side of a study.

    Attributes:
        body_part: one of the seven, or None where sources of one rank disagree (then `undetermined`).
        laterality: `L`, `R`, `B` or None.
        abnormal_probability: mean over the analysed images; None where no claim may be made.
        image_count: eligible images of the group; `images` holds one outcome for each.
        reason: in words, why it is undetermined or partial.
    """

    body_part: str | None
    laterality: str | None
    finding: FindingValue
    abnormal_probability: float | None
    threshold: float
    images: tuple[ImageOutcome, ...]
    reason: str | None = None

    @property
    def explained(self) -> tuple[ImageOutcome, ...]:
        """The images with a heat map: those that an abnormal finding rests on."""
        if self.finding != "abnormal":
            return ()
        return tuple(image for image in self.images if image.counted_probability is not None)

    @property
    def image_count(self) -> int:
        """Eligible images of the group."""
        return len(self.images)

    @property
    def images_analysed(self) -> int:
        """Images whose probability counts."""
        return sum(image.counted_probability is not None for image in self.images)


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Images of a study that none of its findings speaks of.

    Attributes:
        body_part: that they are of, one of the seven: without them the study is read in part. None: nothing to read.
        image_count: at least one.
        reason: for a person.
    """

    body_part: str | None
    image_count: int
    reason: str


def decide(
    body_part: str | None,
    laterality: str | None,
    images: Sequence[ImageOutcome],
    threshold: float,
    model: ModelIdentity,
    *,
    quality_control_subject: bool,
    calibrate: Callable[[float], float] = lambda mean: mean,
    reason: str | None = None,
) -> Finding:
    """The finding of one group.

    Args:
        body_part: the group's part; None together with *reason* when its header sources disagree.
        laterality: the group's side.
        images: one outcome for each eligible image, at least one.
        threshold: abnormal when the mean is greater.
        model: what the model may claim.
        quality_control_subject: whether every image of the group is of a phantom.
        calibrate: the bundle's calibration of the mean.
        reason: a reason known beforehand for which no claim may be made.
    """
    analysed = [each for image in images if (each := image.counted_probability) is not None]
    mean = calibrate(sum(analysed) / len(analysed)) if analysed else None
    calibrated = tuple(
        image
        if image.abnormal_probability is None
        else replace(image, abnormal_probability=calibrate(image.abnormal_probability))
        for image in images
    )

    def finding(value: FindingValue, probability: float | None, *reasons: str | None) -> Finding:
        text = "; ".join(part for part in reasons if part) or None
        return Finding(body_part, laterality, value, probability, threshold, calibrated, text)

    if body_part is not None and body_part not in model.body_parts:
        reason = reason or f"the model was not made for {body_part}"
    partial = None
    if len(analysed) < len(images):
        why = next((text for image in images if (text := image.reason or image.doubt)), None)
        partial = f"{len(analysed)} of {len(images)} images analysed" + (f" ({why})" if why and why != reason else "")
    if body_part is None or reason:
        return finding("undetermined", None, reason, partial)
    if not model.trained:
        return finding("undetermined", None, "the model is not trained", partial)
    if model.requires_quality_control_subject and not quality_control_subject:
        return finding(
            "undetermined", None, "the model is for phantoms only (QualityControlSubject is not YES)", partial
        )
    if mean is None:
        return finding("undetermined", None, partial)
    if mean > threshold:
        return finding("abnormal", mean, partial)
    # "No abnormality" may be said only of a group that was seen whole; a low number without the word would say it too.
    return finding("undetermined", None, partial) if partial else finding("normal", mean)
