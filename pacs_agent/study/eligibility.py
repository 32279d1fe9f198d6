"""Which instances are analysed: header facts in, a status with its reason out. Pure."""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Literal

from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
)

from pacs_agent.study.instance import Instance

_SOP_CLASSES = (ComputedRadiographyImageStorage, DigitalXRayImageStorageForPresentation)
# PS3.5 6.2, VR AS: nnnD, nnnW, nnnM, nnnY
_YEARS_PER_UNIT = {"D": 1 / 365.25, "W": 7 / 365.25, "M": 1 / 12, "Y": 1.0}


@dataclass(frozen=True, slots=True)
class Eligibility:
    """`received`: waits for its analysis; `ignored` or `unsupported`: never analysed, for this reason."""

    status: Literal["received", "ignored", "unsupported"]
    reason: str | None = None

    @property
    def is_eligible(self) -> bool:
        """Whether the instance is to be analysed."""
        return self.status == "received"


@dataclass(frozen=True, slots=True)
class EligibilityRules:
    """The settings' section [eligibility]."""

    modalities: tuple[str, ...] = ("CR", "DX")
    max_study_age_days: int = 0
    min_age_years: int = 0


def assess(facts: Instance, rules: EligibilityRules, today: date) -> Eligibility:
    """Whether an instance is analysed.

    Args:
        facts: its header facts.
        rules: the site's limits.
        today: the day of receipt, for the age of the study.
    """
    if (
        facts.sop_class_uid == DigitalXRayImageStorageForProcessing
        or facts.presentation_intent_type == "FOR PROCESSING"
    ):
        return Eligibility("unsupported", "FOR PROCESSING: not a picture for viewing")
    if facts.sop_class_uid not in _SOP_CLASSES:
        return Eligibility("ignored", f"not a CR or DX image ({facts.modality or 'no modality'})")
    if facts.modality not in rules.modalities:
        return Eligibility("ignored", f"modality {facts.modality or 'absent'} is not among those analysed")
    # PS3.3 C.7.6.1.1.2; our own heat maps are such pictures, and come back from the PACS.
    if facts.image_type[:2] == ("DERIVED", "SECONDARY"):
        return Eligibility("ignored", r"a DERIVED\SECONDARY picture")
    return _by_picture(facts) or _by_age(facts, rules, today)


def _by_picture(facts: Instance) -> Eligibility | None:
    if not facts.has_pixel_data:
        return Eligibility("unsupported", "no pixel data")
    if facts.number_of_frames > 1:
        return Eligibility("unsupported", f"multi-frame ({facts.number_of_frames} frames)")
    return None


def _by_age(facts: Instance, rules: EligibilityRules, today: date) -> Eligibility:
    study_date = _date(facts.study_date)
    if rules.max_study_age_days and study_date and (today - study_date).days > rules.max_study_age_days:
        return Eligibility("ignored", f"study is older than {rules.max_study_age_days} days")
    if rules.min_age_years:
        age = age_years(facts, study_date or today)
        if age is None:
            return Eligibility("ignored", "the patient's age is unknown")
        if age < rules.min_age_years:
            return Eligibility("ignored", f"the patient is younger than {rules.min_age_years} years")
    return Eligibility("received")


def age_years(facts: Instance, on: date) -> float | None:
    """The patient's age on a day, in years: by birth date, else by PatientAge, else None."""
    if born := _date(facts.patient_birth_date):
        return (on - born).days / 365.25
    age = facts.patient_age
    if len(age) == 4 and age[:3].isdigit() and age[3] in _YEARS_PER_UNIT:
        return int(age[:3]) * _YEARS_PER_UNIT[age[3]]
    return None


def _date(text: str) -> date | None:
    try:
        return datetime.strptime(text, "%Y%m%d").date()  # noqa: DTZ007 - a DICOM date has no zone
    except ValueError:
        return None
