"""The bounded reading of headers: what pydicom reads is read the same, and no bytes cost more than bounds allow."""

import struct
import tracemalloc
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_dataset
from pydicom.filewriter import write_dataset
from pydicom.tag import Tag
from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian
from radiographs import cr

from pacs_agent.errors import NotUnderstoodError
from pacs_agent.receive.part10 import read_part10
from pacs_agent.study import header as header_module
from pacs_agent.study import instance
from pacs_agent.study.header import MAX_DEPTH, read_header
from pacs_agent.study.instance import FACT_TAGS, Instance

NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
ITEM, ITEM_END, SEQUENCE_END = (struct.pack("<HH", 0xFFFE, number) for number in (0xE000, 0xE00D, 0xE0DD))
UNDEFINED = b"\xff\xff\xff\xff"
REGION = struct.pack("<HH", 0x0008, 0x2218)  # AnatomicRegionSequence, which is read
ICON = struct.pack("<HH", 0x0088, 0x0200)  # IconImageSequence, which is not
MODALITY = b"\x08\x00\x60\x00CS\x02\x00CR"


def encode(ds: Dataset, syntax: str) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = syntax != ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
    write_dataset(buffer, ds)
    return bytes(buffer.getvalue())


def item(**elements: object) -> Dataset:
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def many_sided(undefined_length: bool) -> Dataset:
    """Every fact, sequences within sequences, private elements, a compressed icon, no pixels of its own."""
    code = {"CodeValue": "85562004", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Hand"}
    region = item(**code, AnatomicRegionModifierSequence=[item(**code)])
    request = item(RequestedProcedureDescription="wrist", RequestedProcedureCodeSequence=[item(**code), item(**code)])
    icon = item(Rows=8, Columns=8, PixelData=b"\xfe\xff\x00\xe0\0\0\0\0\xfe\xff\x00\xe0\x04\0\0\0abcd")
    icon["PixelData"].VR, icon["PixelData"].is_undefined_length = "OB", True
    ds = cr(
        PixelData=None,
        SpecificCharacterSet="ISO_IR 192",
        PatientID="Größe",
        AnatomicRegionSequence=[region],
        RequestAttributesSequence=[request, Dataset()],
        IconImageSequence=[icon],
        ImageType=["ORIGINAL", "PRIMARY"],
    )
    ds.private_block(0x0011, "SOMEBODY", create=True).add_new(1, "SQ", [item(PatientComments="private")])
    for holder in (ds, region, request):
        for element in holder:
            if element.VR == "SQ":
                element.is_undefined_length = undefined_length
                for each in element.value:
                    each.is_undefined_length_sequence_item = undefined_length
    return ds


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize("undefined_length", [False, True])
def test_all_that_pydicom_reads_is_read(syntax: str, undefined_length: bool) -> None:
    """Every element, and the same facts where the facts alone are asked for; nothing more is read for those."""
    ds = many_sided(undefined_length)
    if syntax != ExplicitVRLittleEndian:
        del ds.IconImageSequence  # compressed pixels are explicit and little endian
    encoded = encode(ds, syntax)
    reference = read_dataset(BytesIO(encoded), syntax == ImplicitVRLittleEndian, syntax != ExplicitVRBigEndian)
    header = read_header(encoded, syntax)
    assert (header.elements, header.end, header.has_pixels) == (reference, len(encoded), False)
    chosen = read_header(encoded, syntax, FACT_TAGS).elements
    assert Instance.from_dataset(chosen, syntax, False) == Instance.from_dataset(reference, syntax, False)
    assert set(chosen.keys()) < set(reference.keys())


def test_explicit_under_an_implicit_agreement_is_read() -> None:
    """Some senders do; and the other way round."""
    for syntax, said in ((ExplicitVRLittleEndian, ImplicitVRLittleEndian), (ImplicitVRLittleEndian, NATIVE[0])):
        header = read_header(encode(cr(PatientID="P1"), syntax), said)
        assert (header.elements.PatientID, header.has_pixels) == ("P1", True)


def test_real_headers_are_read_as_pydicom_reads_them(samples: Path) -> None:
    """CR of Fuji and Kodak, with their private elements."""
    for path in (samples / "dicom").glob("*.dcm"):
        kept = read_part10(path)
        encoded = kept.encoded
        header = read_header(encoded, kept.transfer_syntax_uid)
        assert header.has_pixels
        assert bytes(encoded[header.end : header.end + 4]) == b"\xe0\x7f\x10\x00"
        reference = dcmread(path, stop_before_pixels=True)
        small = [each for each in reference if len(str(each.value)) < 4_000]
        assert all(header.elements[each.tag] == each for each in small)
        assert len(small) > 50


def test_facts_look_at_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    """`FACT_TAGS` are those that `from_dataset` asks a data set for."""
    ds = many_sided(False)
    ds.SOPClassUID = "1.2.840.10008.5.1.4.1.1.88.59"
    ds.ConceptNameCodeSequence = [item(CodeValue="113001", CodingSchemeDesignator="DCM", CodeMeaning="Rejected")]
    asked: set[int] = set()
    read = instance._value

    def spy(holder: Dataset, keyword: str) -> object:
        if holder is ds:
            asked.add(int(Tag(keyword)))
        return read(holder, keyword)

    monkeypatch.setattr(instance, "_value", spy)
    Instance.from_dataset(ds, "", False)
    assert asked == FACT_TAGS - {0x00080005}


def nested(tag: bytes, depth: int) -> bytes:
    return (tag + b"SQ\0\0" + UNDEFINED + ITEM + UNDEFINED) * depth + (
        ITEM_END + b"\0" * 4 + SEQUENCE_END + b"\0" * 4
    ) * depth


def nested_defined(tag: bytes, depth: int) -> bytes:
    encoded = b""
    for _ in range(depth):
        inside = ITEM + struct.pack("<L", len(encoded)) + encoded
        encoded = tag + b"SQ\0\0" + struct.pack("<L", len(inside)) + inside
    return encoded


def sequence(tag: bytes, content: bytes, vr: bytes = b"SQ") -> bytes:
    return tag + vr + b"\0\0" + UNDEFINED + content + SEQUENCE_END + b"\0" * 4


MANY = 100_000
REFUSED: dict[str, Callable[[], bytes]] = {
    "10,000 deep": lambda: nested(ICON, 10_000),
    "10,000 deep, read": lambda: nested(REGION, 10_000),
    "3,000 deep, defined lengths, read": lambda: nested_defined(REGION, 3_000),
    "just too deep": lambda: nested(ICON, MAX_DEPTH + 1),
    "items without end": lambda: sequence(ICON, (ITEM + b"\0" * 4) * MANY),
    "items without end, read": lambda: sequence(REGION, (ITEM + b"\0" * 4) * MANY),
    "items without end, UN": lambda: sequence(REGION, (ITEM + b"\0" * 4) * MANY, b"UN"),
    "elements without end": lambda: (b"\x09\x00\x10\x00LO\0\0") * MANY,
    "elements without end in an item": lambda: sequence(ICON, ITEM + UNDEFINED + b"\x09\x00\x10\x00LO\0\0" * MANY),
    "fragments without end": lambda: ICON[:2] + b"\x01\x02OB\0\0" + UNDEFINED + (ITEM + b"\0" * 4) * MANY,
    "4 GB said": lambda: MODALITY + b"\x10\x00\x00\x40UT\0\0\xfe\xff\xff\xff",
    "4 GB said in an item": lambda: sequence(REGION, ITEM + b"\xfe\xff\xff\xff" + MODALITY),
    "a sequence that never ends": lambda: REGION + b"SQ\0\0" + UNDEFINED + ITEM + UNDEFINED + MODALITY,
    "no items": lambda: sequence(REGION, MODALITY),
    "an item by itself": lambda: ITEM + b"\0" * 4,
    "the same element for ever": lambda: (b"\x08\x00\x60\x00CS\x02\x00CR") * 60_000,
}  # fmt: skip


@pytest.mark.parametrize("make", REFUSED.values(), ids=REFUSED.keys())
def test_what_is_beyond_the_bounds_is_refused_at_little_cost(
    make: Callable[[], bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One clear error, whatever follows the header, and no more memory than a few times what may be read."""
    monkeypatch.setattr(header_module, "MAX_ENTRIES", 60_000)  # the true bound takes longer to be reached
    encoded = MODALITY + make() + MODALITY
    tracemalloc.start()
    try:
        with pytest.raises(NotUnderstoodError):
            read_header(encoded, ExplicitVRLittleEndian, FACT_TAGS)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 8 << 20


LONG = b"\x10\x00\x20\x00UT\0\0" + struct.pack("<L", 1 << 20) + b"x" * (1 << 20)
ENDS = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
LEFT_OUT: dict[str, bytes] = {
    "a long patient ID": LONG,
    "a broken sequence of defined length": REGION + b"SQ\0\0\x0a\0\0\0" + MODALITY,
    "a long value within a sequence": REGION + b"SQ\0\0\xff\xff\xff\xff" + ITEM + b"\xff\xff\xff\xff" + LONG + ENDS,
    "a long value within a sequence of defined length": REGION
    + b"SQ\0\0"
    + struct.pack("<L", len(LONG) + 8)
    + ITEM
    + struct.pack("<L", len(LONG))
    + LONG,
    "a sequence cut within itself": REGION + b"SQ\0\0\x10\0\0\0" + ITEM + b"\xff\0\0\0" + MODALITY[:8],
}


@pytest.mark.parametrize("odd", LEFT_OUT.values(), ids=LEFT_OUT.keys())
def test_one_odd_element_costs_itself_alone(odd: bytes) -> None:
    """It counts as absent; all others are read."""
    header = read_header(odd + MODALITY, ExplicitVRLittleEndian, FACT_TAGS)
    assert [str(each.tag) for each in header.elements] == ["(0008,0060)"]
    assert header.end == len(odd + MODALITY)


def test_as_deep_as_is_allowed() -> None:
    """The bound itself is read, which needs no deep stack."""
    assert "AnatomicRegionSequence" in read_header(nested(REGION, MAX_DEPTH), ExplicitVRLittleEndian).elements


WHOLE = [encode(many_sided(choice), ExplicitVRLittleEndian) for choice in (False, True)]


@given(st.data())
def test_any_bytes_are_read_or_refused(data: st.DataObject) -> None:
    """Nothing but NotUnderstoodError comes out."""
    encoded = bytearray(data.draw(st.sampled_from(WHOLE)))
    for _ in range(data.draw(st.integers(1, 6))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        header = read_header(bytes(encoded), data.draw(st.sampled_from(NATIVE)), FACT_TAGS)
    except NotUnderstoodError:
        return
    Instance.from_dataset(header.elements)
