"""Which data sets are rejection notes, and what they name; made by highdicom, read as the listener reads them."""

import pytest
from keyobjects import REJECTED_FOR_QUALITY, key_object
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian

from pacs_agent.phantom.dataset import study
from pacs_agent.receive.dataset import read_received
from pacs_agent.study.eligibility import EligibilityRules, assess
from pacs_agent.study.instance import Instance, Reference

IMAGES = study("hand", seed=1, abnormal=False, views=2, longest_side=64)


def facts(ds: Dataset) -> Instance:
    """As the listener reads them."""
    buffer = DicomBytesIO()
    buffer.is_implicit_VR, buffer.is_little_endian = False, True
    write_dataset(buffer, ds)
    return read_received(memoryview(buffer.getvalue()), ExplicitVRLittleEndian, 1 << 20).facts


@pytest.mark.parametrize("value", ["113001", "113037", "113038", "113039"])
def test_the_four_titles_take_out_what_the_evidence_names(value: str) -> None:
    """Every instance of the evidence, in its study; the note itself is ignored by the analysis."""
    read = facts(key_object(Code(value, "DCM", "a title"), IMAGES))
    assert read.rejection == value
    assert set(read.rejects) == {Reference(image.StudyInstanceUID, image.SOPInstanceUID) for image in IMAGES}
    assert Instance.from_json(read.to_json()) == read
    assert assess(read, EligibilityRules(), None).status == "ignored"  # type: ignore[arg-type]


@pytest.mark.parametrize("title", [Code("113000", "DCM", "Of Interest"), Code("113001", "99X", "of another scheme")])
def test_other_key_objects_take_nothing_out(title: Code) -> None:
    """A teaching file is no rejection."""
    read = facts(key_object(title, IMAGES))
    assert (read.rejection, read.rejects) == ("", ())


def test_an_image_with_such_a_title_takes_nothing_out() -> None:
    """Only a key object document speaks of others."""
    image = IMAGES[0].copy()
    note = key_object(REJECTED_FOR_QUALITY, IMAGES)
    image.ConceptNameCodeSequence = note.ConceptNameCodeSequence
    image.CurrentRequestedProcedureEvidenceSequence = note.CurrentRequestedProcedureEvidenceSequence
    assert Instance.from_dataset(image).rejects == ()


def test_a_note_with_broken_evidence_names_what_can_be_read() -> None:
    """Never an error: the listener reads whatever comes."""
    note = key_object(REJECTED_FOR_QUALITY, IMAGES)
    del note.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence
    assert facts(note).rejects == ()
