"""Values that may be written again, and the UIDs and codes of a report."""

import struct
from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread, dcmwrite
from pydicom.datadict import dictionary_VR, tag_for_keyword
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sr.coding import Code
from pydicom.uid import ExplicitVRLittleEndian

from pacs_agent.analyse.finding import FindingValue
from pacs_agent.identity import IMPLEMENTATION_CLASS_UID
from pacs_agent.report import codes
from pacs_agent.report.header import OPTIONAL, TYPE_2, character_set, copy_patient_and_study, settle_character_set
from pacs_agent.report.legal import legal_items, legal_value
from pacs_agent.report.uids import derived_uid, new_uid


@pytest.mark.parametrize(
    ("keyword", "value", "legal"),
    [
        ("PatientSex", "F ", "F"),
        ("PatientSex", "f", None),
        ("PatientBirthDate", "1970.01.02", "19700102"),
        ("PatientBirthDate", "19701302", None),
        ("StudyTime", "08:15:30", "081530"),
        ("StudyTime", "081530.1234567", None),
        ("PatientAge", "055Y", "055Y"),
        ("PatientWeight", "+70.5", "+70.5"),
        ("StudyDescription", "two\x00 \x1blines", "two lines"),
        ("StudyDescription", "x" * 65, None),
        ("PatientID", "x" * 65, "x" * 65),
        ("PatientComments", "two\r\nlines", "two\r\nlines"),
        ("StudyDescription", "", None),
        ("PatientName", "M\ufffdller^Zoe", "M?ller^Zoe"),
    ],
)
def test_value(keyword: str, value: str, legal: str | None) -> None:
    """Each VR's form decides; what does not fit is left out, only an identity is never judged by its length."""
    ds = Dataset()
    ds.add(DataElement(keyword, dictionary_VR(keyword), value, validation_mode=0))
    assert legal_value(ds, keyword) == legal


def test_incomplete_code_is_left_out() -> None:
    """A code without value, scheme or meaning is no code (PS3.3 Table 8.8-1)."""
    whole = {"CodeValue": "24889-8", "CodingSchemeDesignator": "LN", "CodeMeaning": "XR Wrist Views"}
    ds = Dataset()
    ds.ProcedureCodeSequence = []
    for missing in (None, *whole):
        item = Dataset()
        for keyword, value in whole.items():
            if keyword != missing:
                setattr(item, keyword, value)
        ds.ProcedureCodeSequence.append(item)
    assert legal_items(ds, "ProcedureCodeSequence") == [ds.ProcedureCodeSequence[0]]


BYTES = st.binary(max_size=80) | st.text(max_size=80).map(lambda text: text.encode("utf-8", "ignore"))
PLAIN = [keyword for keyword in (*TYPE_2, *OPTIONAL) if dictionary_VR(keyword) not in ("SQ", "US")]


@given(
    st.dictionaries(st.sampled_from(PLAIN), BYTES),
    st.sampled_from([b"", b"ISO_IR 100", b"ISO_IR 13", b"ISO_IR 192", b"ISO_IR 9", b"\\ISO 2022 IR 87", b"GB18030"]),
)
def test_any_bytes_give_a_header_that_reads_back(values: dict[str, bytes], terms: bytes) -> None:
    """Whatever a header holds, copying never raises, and what was copied is read from the file as it was written."""
    data = BytesIO()
    for tag, vr, value in [
        (0x00080005, "CS", terms),
        *sorted((tag_for_keyword(keyword), dictionary_VR(keyword), value) for keyword, value in values.items()),
    ]:
        value += b" " * (len(value) % 2)  # noqa: PLW2901
        data.write(struct.pack("<HH2sH", tag >> 16, tag & 0xFFFF, vr.encode(), len(value)) + value)
    data.seek(0)
    source = dcmread(data, force=True)
    ds = Dataset()
    copy_patient_and_study(ds, [source])
    settle_character_set(ds, character_set([source]))
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds.SOPClassUID, ds.SOPInstanceUID = "1.2.3", "1.2.4"
    buffer = BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    buffer.seek(0)
    read = dcmread(buffer)
    assert all(keyword in read for keyword in TYPE_2)
    for element in ds:
        assert str(read[element.tag].value).strip() == str(element.value).strip(), element.keyword


def test_uids() -> None:
    """Under 2.25, at most 64 characters, new ones all different, derived ones a function of parent and name."""
    uids = [new_uid(), new_uid(), derived_uid("1.2", "a"), derived_uid("1.2", "b"), derived_uid("1.3", "a")]
    assert len({*uids, IMPLEMENTATION_CLASS_UID}) == 6
    for uid in (*uids, IMPLEMENTATION_CLASS_UID):
        root, _, number = uid.rpartition(".")
        assert root == "2.25"
        assert 0 < int(number) < 2**128
        assert str(int(number)) == number
    assert derived_uid("1.2", "a") == uids[2]


def test_codes_cover_our_words() -> None:
    """Every part, side and finding that the agent can say has one code of its own."""
    assert set(codes.BODY_PARTS) == {"elbow", "finger", "forearm", "hand", "humerus", "shoulder", "wrist"}
    assert set(codes.LATERALITIES) == {"L", "R", "B"}
    assert set(codes.NORMALITIES) == set(FindingValue.__args__)
    for table in (codes.BODY_PARTS, codes.LATERALITIES, codes.NORMALITIES):
        assert len({code.value for code in table.values()}) == len(table)


def test_codes_are_legal() -> None:
    """Values of at most 16 characters (SH), meanings of at most 64 (LO)."""
    found = [value for value in vars(codes).values() if isinstance(value, Code)]
    assert len(found) > 20
    for code in found:
        assert 0 < len(code.value) <= 16
        assert 0 < len(code.meaning) <= 64
