"""The received data set: whole ones are read in every encoding, cut or hostile ones are one clear error."""

import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
)
from radiographs import cr

from pacs_agent.errors import DataSetMismatchError, NotUnderstoodError
from pacs_agent.receive.dataset import check_request, read_received

NATIVE = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian)
MAX_BYTES = 1 << 20


def encode(ds: Dataset, syntax: str = ExplicitVRLittleEndian) -> bytes:
    buffer = DicomBytesIO()
    buffer.is_little_endian, buffer.is_implicit_VR = syntax != ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
    write_dataset(buffer, ds)
    return bytes(buffer.getvalue())


def with_sequence(*, undefined_length: bool, **elements: object) -> Dataset:
    """An instance without pixel data whose last element is a sequence, as a structured report's is."""
    inner = Dataset()
    inner.CodeValue, inner.CodingSchemeDesignator, inner.CodeMeaning = "1", "99X", "hand"
    outer = Dataset()
    outer.ConceptNameCodeSequence = [inner]
    ds = cr(PixelData=None, ContentSequence=[outer], **elements)
    for holder, keyword, item in ((ds, "ContentSequence", outer), (outer, "ConceptNameCodeSequence", inner)):
        holder[keyword].is_undefined_length = undefined_length
        item.is_undefined_length_sequence_item = undefined_length
    return ds


def boundaries(ds: Dataset, syntax: str) -> Iterator[int]:
    """Where an element ends: a data set cut there cannot be told from a shorter one."""
    shorter = Dataset()
    for element in ds:
        shorter.add(element)
        yield len(encode(shorter, syntax))


@pytest.mark.parametrize("syntax", NATIVE)
@pytest.mark.parametrize("undefined_length", [False, True])
def test_cut_within_an_element_is_refused(syntax: str, undefined_length: bool) -> None:
    """Every cut but one between two elements, in each encoding, with sequences of either length."""
    ds = with_sequence(undefined_length=undefined_length)
    encoded = encode(ds, syntax)
    ends = set(boundaries(ds, syntax))
    assert len(encoded) in ends
    for length in range(len(encoded) + 1):
        try:
            read_received(memoryview(encoded[:length]), syntax, MAX_BYTES)
        except NotUnderstoodError:
            assert length != len(encoded)
        else:
            assert length in ends


@pytest.mark.parametrize("syntax", NATIVE)
def test_cut_within_the_pixels_is_refused(syntax: str) -> None:
    """One byte less than the length says, or a few thousand."""
    encoded = encode(cr(), syntax)
    assert read_received(memoryview(encoded), syntax, MAX_BYTES).facts.has_pixel_data
    for cut in (1, 2, 100, 8191):
        with pytest.raises(NotUnderstoodError, match="within its pixel data"):
            read_received(memoryview(encoded[:-cut]), syntax, MAX_BYTES)


def test_cut_within_encapsulated_pixels_is_refused() -> None:
    """The closing delimitation item must be there; elements after it may be."""
    ds = cr()
    ds.compress(RLELossless, generate_instance_uid=False)
    encoded = encode(ds)
    padding = b"\xfc\xff\xfc\xffOB\0\0\x04\0\0\0\0\0\0\0"
    assert read_received(memoryview(encoded + padding), RLELossless, MAX_BYTES).facts.has_pixel_data
    for cut in (8, 200):
        with pytest.raises(NotUnderstoodError, match="within its encapsulated pixel data"):
            read_received(memoryview(encoded[:-cut]), RLELossless, MAX_BYTES)


def test_pixels_are_found_where_they_lie() -> None:
    """Pixel data and all after it, not one byte of the header."""
    encoded = encode(cr())
    pixels = read_received(memoryview(encoded), ExplicitVRLittleEndian, MAX_BYTES).pixels
    assert bytes(pixels[:4]) == b"\xe0\x7f\x10\x00"
    assert encoded.endswith(bytes(pixels))


def test_deflated_is_read_within_its_bound() -> None:
    """PS3.5 A.5; a byte of padding after the stream is forgiven, a missing end and a larger content are not."""
    encoded = encode(cr())
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    deflated = deflater.compress(encoded) + deflater.flush()
    for content in (deflated, deflated + b"\0"):
        assert read_received(memoryview(content), DeflatedExplicitVRLittleEndian, MAX_BYTES).facts.has_pixel_data
    for content, bound in ((deflated[:-1], MAX_BYTES), (b"x" * 100, MAX_BYTES), (deflated, len(encoded) - 1)):
        with pytest.raises(NotUnderstoodError, match="deflated"):
            read_received(memoryview(content), DeflatedExplicitVRLittleEndian, bound)


def deflate(encoded: bytes) -> bytes:
    """PS3.5 A.5"""
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    return deflater.compress(encoded) + deflater.flush()


def test_deflated_pixels_are_told_apart() -> None:
    """Pixels that had to be inflated are the same or not by all their bytes, the last beyond what is kept in memory."""
    ds = cr(side=2000)
    encoded = encode(ds)
    other = bytes([*encoded[:-1], encoded[-1] ^ 1])
    one, again, changed = (
        read_received(memoryview(deflate(each)), DeflatedExplicitVRLittleEndian, 1 << 24)
        for each in (encoded, encoded, other)
    )
    assert one.pixels == again.pixels
    assert one.pixels != changed.pixels
    with pytest.raises(NotUnderstoodError, match="within its pixel data"):
        read_received(memoryview(deflate(encoded[:-2])), DeflatedExplicitVRLittleEndian, 1 << 24)


@pytest.mark.parametrize(
    "bomb",
    [b"\0" * (1 << 28), encode(cr(PixelData=b"\0" * (1 << 28))), encode(cr(PixelData=None, TextValue="x" * (1 << 26)))],
    ids=["nothing but zeros", "in the pixels", "in the header"],
)
def test_deflate_bomb_costs_little_memory(bomb: bytes) -> None:
    """Some 300 KB that inflate to 256 MB: whatever comes of them, a few tens of MB at the most are held."""
    deflated = memoryview(deflate(bomb))
    tracemalloc.start()
    try:
        with suppress(NotUnderstoodError):
            read_received(deflated, DeflatedExplicitVRLittleEndian, 1 << 29)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 32 << 20


# The UIDs are fixed, so that an example is the same each time.
WHOLE = [
    encode(
        with_sequence(
            undefined_length=choice, SOPInstanceUID="1.2.3", StudyInstanceUID="1.2.4", SeriesInstanceUID="1.2.5"
        )
    )
    for choice in (False, True)
]


@settings(max_examples=300)
@given(st.data())
def test_any_bytes_are_read_or_refused(data: st.DataObject) -> None:
    """Nothing but NotUnderstoodError comes out, whatever comes in."""
    syntax = data.draw(st.sampled_from((*NATIVE, DeflatedExplicitVRLittleEndian, RLELossless)))
    encoded = bytearray(data.draw(st.sampled_from(WHOLE)))
    for _ in range(data.draw(st.integers(0, 6))):
        encoded[data.draw(st.integers(0, len(encoded) - 1))] = data.draw(st.integers(0, 255))
    try:
        facts = read_received(memoryview(bytes(encoded)), syntax, MAX_BYTES).facts
    except NotUnderstoodError:
        return
    assert ".." not in facts.sop_instance_uid
    assert "/" not in facts.study_instance_uid


def test_request_must_be_of_this_instance() -> None:
    """Each of the two UIDs of the request is compared. PS3.4 B.2.3"""
    facts = read_received(memoryview(encode(cr())), ExplicitVRLittleEndian, MAX_BYTES).facts
    check_request(facts, facts.sop_class_uid, facts.sop_instance_uid)
    with pytest.raises(DataSetMismatchError, match="SOPClassUID"):
        check_request(facts, "1.2", facts.sop_instance_uid)
    with pytest.raises(DataSetMismatchError, match="SOPInstanceUID"):
        check_request(facts, facts.sop_class_uid, "1.2")
