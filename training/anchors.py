"""Published figures to set beside one's own, and when the card may be called beaten. Data and one rule; reads nothing.

Image level and study level, and valid and the hidden test set, are not to be compared with one another: each anchor
says where it stands.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, Literal

from training.inspect import PUBLISHED
from training.mura import Image

Level = Literal["image", "study"]


@dataclass(frozen=True, slots=True)
class Anchor:
    """A published figure; None where it was not published."""

    who: str
    level: Level
    data: str
    accuracy: float | None
    kappa: float
    auroc: float | None


ANCHORS: Final = (
    Anchor("this model's card", "image", "MURA valid", 0.8226, 0.6415, None),
    Anchor("same author's V4 (CBAM, EfficientNet-B3 expert)", "image", "MURA valid", 0.8320, 0.6608, None),
    Anchor("best readable single fine-tune (ResNet-50, 224 px)", "study", "MURA valid", 0.849, 0.692, None),
    Anchor("DenseNet-169 ×5, Stanford (2017)", "study", "MURA hidden test", None, 0.705, 0.929),
    Anchor("radiologists, best of three", "study", "MURA hidden test", None, 0.778, None),
    Anchor("leaderboard top (closed)", "study", "MURA hidden test", None, 0.843, None),
)
CARD: Final = ANCHORS[0]

VALID_IMAGES: Final = {
    (part, label): images
    for part, (_, _, *of_label) in PUBLISHED["valid"].items()
    for label, images in enumerate(of_label)
}
"""Images of MURA's official valid by part and label."""

VALID_STUDIES: Final = sum(normal + abnormal for normal, abnormal, _, _ in PUBLISHED["valid"].values())


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the card is beaten; None where the question cannot be asked of these data."""

    beaten: bool | None
    why: str


def is_official_valid(images: Iterable[Image], *, phantoms: bool) -> bool:
    """Whether these are the images of MURA's official valid, by their counts; phantoms never are."""
    listed = list(images)
    counts = Counter((image.part, image.label) for image in listed)
    return not phantoms and counts == VALID_IMAGES and len({image.study for image in listed}) == VALID_STUDIES


def judge(kappa_low: float | None, *, official: bool, phantoms: bool, left_out: int) -> Verdict:
    """Whether the image-level kappa is above the card's, by the lower bound of its 95 % interval.

    Args:
        kappa_low: image level, overall, at the bundle's thresholds.
        official: of `is_official_valid`.
        phantoms: whether the pictures are synthetic.
        left_out: images that could not be read.
    """
    rule = f"lower bound of the image-level kappa above {CARD.kappa} on MURA's official valid"
    if phantoms:
        return Verdict(None, f"phantoms never beat the card ({rule})")
    if not official:
        return Verdict(None, f"these are not the images of MURA's official valid ({rule})")
    if left_out:
        return Verdict(None, f"{left_out} images of MURA's official valid could not be read ({rule})")
    if kappa_low is None:
        return Verdict(None, f"kappa is undefined here ({rule})")
    if kappa_low > CARD.kappa:
        return Verdict(True, f"beats the card: {kappa_low:.4f} is the {rule}")
    return Verdict(False, f"does not beat the card: the bound is {kappa_low:.4f} (asked: {rule})")
