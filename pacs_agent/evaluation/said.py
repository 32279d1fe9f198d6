"""What a model said of a finding, and which model that is. Pure: frozen values and how a person names them."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pacs_agent.errors import PacsAgentError

CLAIMS = ("normal", "abnormal")
SHOWN_HASH = 12  # characters; enough to tell bundles apart
MIN_PREFIX = 4


@dataclass(frozen=True, slots=True)
class ModelName:
    """A model as the record knows it."""

    name: str
    version: str
    bundle_hash: str

    def __str__(self) -> str:
        return f"{self.name}@{self.version} ({self.bundle_hash[:SHOWN_HASH]})"


@dataclass(frozen=True, slots=True)
class Said:
    """A model's latest word on one part and side of a study.

    Attributes:
        patient_id: with its issuer; empty where no instance has one. Never shown: it says what belongs together.
        finding: `normal`, `abnormal` or `undetermined`.
        abnormal_probability: None where no claim is made.
        reason: why it is undetermined or partial.
    """

    study_instance_uid: str
    accession_number: str
    patient_id: str
    station_name: str
    calling_ae_title: str
    body_part: str
    laterality: str | None
    finding: str
    abnormal_probability: float | None
    threshold: float
    reason: str | None

    @property
    def key(self) -> tuple[str, str, str | None]:
        """Study, part and side: one finding."""
        return self.study_instance_uid, self.body_part, self.laterality

    @property
    def is_claim(self) -> bool:
        """Whether it says normal or abnormal, with a probability."""
        return self.finding in CLAIMS and self.abnormal_probability is not None

    @property
    def probability(self) -> float:
        """The probability of a claim."""
        if self.abnormal_probability is None:
            raise ValueError("no claim, no probability")
        return self.abnormal_probability


def chosen_model(text: str, known: Sequence[ModelName]) -> ModelName:
    """The one model that a person names.

    Args:
        text: a name, `name@version`, or the beginning of a bundle's hash.
        known: every model that has said anything.

    Raises:
        PacsAgentError: one line: none is called so, or several are.
    """
    given = text.strip()
    found = [each for each in known if given in (each.name, f"{each.name}@{each.version}", str(each))]
    if not found and len(given) >= MIN_PREFIX:
        found = [each for each in known if each.bundle_hash.startswith(given.lower())]
    if len(found) == 1:
        return found[0]
    if found:
        raise PacsAgentError(f"{given!r} is the name of several: {_listed(found)}; give name@version or the hash")
    raise PacsAgentError(f"no model called {given!r} has analysed anything: {_listed(known) or 'none has'}")


def _listed(models: Sequence[ModelName]) -> str:
    return ", ".join(map(str, models))


def patients_of(said: Sequence[Said]) -> tuple[NDArray[np.int64], int]:
    """int64 (N,), the patient of each, and how many there are; a study without a patient's ID is its own patient."""
    numbers: dict[str, int] = {}
    of = [
        numbers.setdefault((each.patient_id and f"patient {each.patient_id}") or each.study_instance_uid, len(numbers))
        for each in said
    ]
    return np.array(of, dtype=np.int64), len(numbers)
