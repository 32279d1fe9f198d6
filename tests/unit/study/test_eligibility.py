"""Eligibility: which instances are analysed, and the reason where they are not."""

import dataclasses
from datetime import date

import pytest
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DigitalXRayImageStorageForPresentation,
    DigitalXRayImageStorageForProcessing,
    EnhancedSRStorage,
)

from pacs_agent.study.eligibility import EligibilityRules, age_years, assess
from pacs_agent.study.instance import Instance

TODAY = date(2026, 1, 10)
CR = Instance(
    "1.2", ComputedRadiographyImageStorage, "1.3", "1.4", modality="CR", has_pixel_data=True, study_date="20260105",
    image_type=("ORIGINAL", "PRIMARY"), patient_birth_date="19700101",
)  # fmt: skip
DX = dataclasses.replace(CR, sop_class_uid=DigitalXRayImageStorageForPresentation, modality="DX")


@pytest.mark.parametrize(
    "facts", [CR, DX, dataclasses.replace(DX, presentation_intent_type="FOR PRESENTATION"),
              dataclasses.replace(CR, image_type=("DERIVED", "PRIMARY")), dataclasses.replace(CR, image_type=())]
)  # fmt: skip
def test_projection_radiographs_are_eligible(facts: Instance) -> None:
    """CR, and DX for presentation."""
    assert assess(facts, EligibilityRules(), TODAY).is_eligible
    assert assess(facts, EligibilityRules(), TODAY).reason is None


@pytest.mark.parametrize(
    ("changes", "status", "reason"),
    [
        ({"sop_class_uid": CTImageStorage, "modality": "CT"}, "ignored", "not a CR or DX image (CT)"),
        ({"sop_class_uid": EnhancedSRStorage, "modality": "SR"}, "ignored", "not a CR or DX image (SR)"),
        ({"sop_class_uid": CTImageStorage, "modality": ""}, "ignored", "not a CR or DX image (no modality)"),
        ({"modality": "IO"}, "ignored", "modality IO is not among those analysed"),
        ({"modality": ""}, "ignored", "modality absent is not among those analysed"),
        ({"image_type": ("DERIVED", "SECONDARY", "OTHER")}, "ignored", r"a DERIVED\SECONDARY picture"),
        ({"has_pixel_data": False}, "unsupported", "no pixel data"),
        ({"number_of_frames": 2}, "unsupported", "multi-frame (2 frames)"),
        ({"presentation_intent_type": "FOR PROCESSING"}, "unsupported", "FOR PROCESSING"),
        ({"sop_class_uid": DigitalXRayImageStorageForProcessing, "modality": "DX"}, "unsupported", "FOR PROCESSING"),
    ],
)
def test_others_are_not_and_say_why(changes: dict[str, object], status: str, reason: str) -> None:
    """Each kind has its status and its reason."""
    found = assess(dataclasses.replace(CR, **changes), EligibilityRules(), TODAY)  # type: ignore[arg-type]
    assert found.status == status
    assert reason in str(found.reason)
    assert not found.is_eligible


@pytest.mark.parametrize(
    ("study_date", "status"),
    [("20260105", "received"), ("20260103", "received"), ("20260102", "ignored"), ("", "received"), ("x", "received")],
)
def test_prefetched_priors_are_ignored(study_date: str, status: str) -> None:
    """With a limit of 7 days an older study is ignored; a study without a readable date is not old."""
    rules = EligibilityRules(max_study_age_days=7)
    assert assess(dataclasses.replace(CR, study_date=study_date), rules, TODAY).status == status
    assert assess(dataclasses.replace(CR, study_date="19990101"), EligibilityRules(), TODAY).status == "received"


@pytest.mark.parametrize(
    ("born", "age", "status"),
    [
        ("20080101", "", "received"),
        ("20080201", "", "ignored"),
        ("", "018Y", "received"),
        ("", "017Y", "ignored"),
        ("", "030M", "ignored"),
        ("", "", "ignored"),
        ("", "18", "ignored"),
        ("20080201", "040Y", "ignored"),
    ],
)
def test_minimum_age(born: str, age: str, status: str) -> None:
    """By birth date on the day of the study, else by PatientAge; where a minimum is set an unknown age is too low."""
    facts = dataclasses.replace(CR, patient_birth_date=born, patient_age=age)
    assert assess(facts, EligibilityRules(min_age_years=18), TODAY).status == status
    assert assess(facts, EligibilityRules(), TODAY).status == "received"


@pytest.mark.parametrize(("age", "years"), [("012Y", 12), ("006M", 0.5), ("052W", 0.997), ("365D", 0.999)])
def test_units_of_age(age: str, years: float) -> None:
    """PS3.5 6.2, VR AS."""
    assert age_years(dataclasses.replace(CR, patient_birth_date="", patient_age=age), TODAY) == pytest.approx(
        years, abs=0.001
    )
