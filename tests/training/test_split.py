"""Hold-outs share no patient, have their share of every part and label, and depend on the seed alone."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from training.errors import TrainingError
from training.mura import PARTS, Image
from training.split import ROLES, hold_out


def images(patients: int = 60) -> list[Image]:
    """Patients with one or two parts, one to three studies each."""
    random = np.random.default_rng(5)
    found = []
    for number in range(patients * len(PARTS)):
        for part in {PARTS[number % 7], PARTS[int(random.integers(7))] if number % 4 == 0 else PARTS[number % 7]}:
            for study in range(int(random.integers(1, 4))):
                label = int(random.random() < 0.4)
                key = f"{part}/patient{number:05}/study{study}"
                found += [Image(Path(f"{key}/{view}"), part, f"patient{number:05}", key, label) for view in range(2)]
    return found


def test_shares_of_every_part_and_label() -> None:
    """Each role's share of the studies of each part and label is within two studies and a tenth of what was asked."""
    data = images()
    roles = hold_out(data, 0.1, 0.15, seed=3)
    studies = {(image.study, image.part, image.label, roles[image.patient]) for image in data}
    total = Counter((part, label) for _, part, label, _ in studies)
    for role, share in zip(ROLES, (0.75, 0.1, 0.15), strict=True):
        mine = Counter((part, label) for _, part, label, found in studies if found == role)
        for stratum, count in total.items():
            assert abs(mine[stratum] - share * count) <= 2 + 0.1 * share * count, (role, stratum)


def test_a_seed_decides_and_order_does_not() -> None:
    """The same seed gives the same roles for images in any order; another seed gives others."""
    data = images()
    assert hold_out(data, 0.1, 0.1, 1) == hold_out(data[::-1], 0.1, 0.1, 1)
    assert hold_out(data, 0.1, 0.1, 1) != hold_out(data, 0.1, 0.1, 2)
    assert set(hold_out(data, 0.1, 0.1, 1)) == {image.patient for image in data}


@pytest.mark.parametrize(
    ("keep", "tells"),
    [
        (lambda image: image.part != "hand" or image.label == 0, "hand: no abnormal study"),
        (lambda image: image.part != "hand" or image.label == 1, "hand: no normal study"),
    ],
)
def test_one_class_is_refused(keep: object, tells: str) -> None:
    """A part with one label only is told by name."""
    assert callable(keep)
    with pytest.raises(TrainingError, match=tells):
        hold_out([image for image in images() if keep(image)], 0.1, 0.1, 1)


def test_too_few_patients_are_refused() -> None:
    """Two patients of a part and label cannot be in three roles."""
    few = [i for i in images() if i.part != "hand" or i.label == 0 or i.patient <= "patient00010"]
    assert {i.label for i in few if i.part == "hand"} == {0, 1}
    with pytest.raises(TrainingError, match=r"hand: its \d+ abnormal studies are of too few patients"):
        hold_out(few, 0.1, 0.1, 1)
