"""The images of train in, three patient-disjoint roles out: to fit, to choose by, to calibrate on.

Enters: images, two shares and a seed. Leaves: a role for each patient. A patient with several parts goes whole into one
role, and each role gets its share of every part and label. The order of the images makes no difference.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, Literal

import numpy as np

from training.errors import TrainingError
from training.mura import LABELS, Image

Role = Literal["fit", "choose", "calibrate"]
ROLES: Final[tuple[Role, ...]] = ("fit", "choose", "calibrate")

Stratum = tuple[str, int]


def hold_out(images: Sequence[Image], choose: float, calibrate: float, seed: int) -> dict[str, Role]:
    """The role of each patient.

    Patients are dealt in a random order, those with most studies first; each goes where its strata (part and label)
    lack most of their share.

    Args:
        images: of train.
        choose: share of the studies to choose epochs and gates by.
        calibrate: share of the studies to fit calibration, thresholds and the guard on.
        seed: of the order.

    Raises:
        TrainingError: a part has no picture of one of the labels, or too few patients for three roles.
    """
    strata: dict[str, Counter[Stratum]] = {}
    for patient, stratum in {i.study: (i.patient, (i.part, i.label)) for i in images}.values():
        strata.setdefault(patient, Counter())[stratum] += 1
    total: Counter[Stratum] = sum(strata.values(), Counter())
    _refuse_one_class(total)
    shares: Mapping[Role, float] = {"fit": 1 - choose - calibrate, "choose": choose, "calibrate": calibrate}
    given: dict[Role, Counter[Stratum]] = {role: Counter() for role in ROLES}
    patients = sorted(strata)
    np.random.default_rng(seed).shuffle(patients)
    patients.sort(key=lambda patient: -strata[patient].total())
    roles: dict[str, Role] = {}
    for patient in patients:
        mine = strata[patient]
        # How full a role is of this patient's strata; the emptiest takes it, the rarest stratum counts most.
        full = {
            role: sum(given[role][s] / (shares[role] * total[s]) / total[s] * count for s, count in mine.items())
            for role in ROLES
        }
        role = min(ROLES, key=lambda role: (full[role], -shares[role]))
        roles[patient] = role
        given[role].update(mine)
    for role in ROLES:
        for part, label in sorted(total):
            if not given[role][part, label]:
                raise TrainingError(
                    f"{part}: its {total[part, label]} {LABELS[label]} studies are of too few patients for three parts "
                    f"of train (none is left for {role!r})"
                )
    return roles


def _refuse_one_class(total: Mapping[Stratum, int]) -> None:
    for part in sorted({part for part, _ in total}):
        for label, name in enumerate(LABELS):
            if not total.get((part, label)):
                raise TrainingError(f"{part}: no {name} study in train, so there is nothing to tell apart")
