"""An encoded data set as received: bytes in, header facts and the place of the pixel data out. Never decodes pixels.

Nothing here trusts the sender: a deflated data set is inflated with a bound, a broken one is one clear error.
"""

import zlib
from dataclasses import dataclass
from io import BytesIO
from typing import Literal

from pydicom.filereader import read_dataset
from pydicom.tag import BaseTag
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from pacs_agent.errors import DataSetMismatchError, NotUnderstoodError
from pacs_agent.study.instance import Instance, is_valid_uid

_PIXEL_TAGS = (0x7FE00008, 0x7FE00009, 0x7FE00010)  # float, double float, integer pixel data
_UNDEFINED_LENGTH = 0xFFFFFFFF
_SEQUENCE_DELIMITATIONS = (b"\xfe\xff\xdd\xe0\0\0\0\0", b"\xff\xfe\xe0\xdd\0\0\0\0")  # little, big endian


@dataclass(frozen=True, slots=True)
class ReceivedDataSet:
    """Header facts, and the encoded pixel data with all that follows it (empty where there is none)."""

    facts: Instance
    pixels: memoryview


def read_received(encoded: BytesIO | memoryview, transfer_syntax_uid: str, max_bytes: int) -> ReceivedDataSet:
    """Read the header of an encoded data set.

    Args:
        encoded: the data set as transferred, without group 0002; read where it lies if it is a `BytesIO`.
        transfer_syntax_uid: the accepted transfer syntax.
        max_bytes: bound of the inflated size of a deflated one.

    Raises:
        NotUnderstoodError: it cannot be read, or lacks a usable UID.
    """
    if transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        encoded = memoryview(_inflate(encoded.getbuffer() if isinstance(encoded, BytesIO) else encoded, max_bytes))
    stream = encoded if isinstance(encoded, BytesIO) else BytesIO(encoded)
    stream.seek(0)
    encoded = stream.getbuffer()
    found_pixels = False
    last_end: int | None = None  # where the latest element says that it ends; None: undefined length

    def at_pixels(tag: BaseTag, _vr: str | None, length: int) -> bool:
        nonlocal found_pixels, last_end
        found_pixels = tag in _PIXEL_TAGS
        last_end = None if length == _UNDEFINED_LENGTH else stream.tell() + length
        return found_pixels

    try:
        ds = read_dataset(
            stream,
            is_implicit_VR=transfer_syntax_uid == ImplicitVRLittleEndian,
            is_little_endian=transfer_syntax_uid != ExplicitVRBigEndian,
            stop_when=at_pixels,
        )
        end = stream.tell()
        facts = Instance.from_dataset(ds, transfer_syntax_uid, has_pixel_data=found_pixels)
    except Exception as error:
        raise NotUnderstoodError(f"the data set cannot be read: {type(error).__name__}") from error
    if not found_pixels:
        _check_ended(encoded, end, last_end)
    for name, uid in (
        ("SOPInstanceUID", facts.sop_instance_uid),
        ("SOPClassUID", facts.sop_class_uid),
        ("StudyInstanceUID", facts.study_instance_uid),
        ("SeriesInstanceUID", facts.series_instance_uid),
    ):
        if not is_valid_uid(uid):
            raise NotUnderstoodError(f"{name} is absent or not a UID")
    pixels = encoded[end:]
    if found_pixels:
        _check_whole(pixels, transfer_syntax_uid)
    return ReceivedDataSet(facts, pixels)


def check_request(facts: Instance, affected_sop_class_uid: str, affected_sop_instance_uid: str) -> None:
    """Raise `DataSetMismatchError` where the data set is not what the C-STORE request says. PS3.4 B.2.3"""
    if facts.sop_class_uid != affected_sop_class_uid:
        raise DataSetMismatchError("SOPClassUID differs from the request's Affected SOP Class UID")
    if facts.sop_instance_uid != affected_sop_instance_uid:
        raise DataSetMismatchError("SOPInstanceUID differs from the request's Affected SOP Instance UID")


def _check_ended(encoded: memoryview, end: int, last_end: int | None) -> None:
    """Refuse a data set cut within an element: pydicom gives what is left of a value without a word."""
    if last_end is None:
        # PS3.5 7.5.2: closed by a sequence delimitation item.
        is_whole = end == len(encoded) and bytes(encoded[-8:]) in _SEQUENCE_DELIMITATIONS
    else:
        is_whole = last_end == len(encoded)
    if not is_whole:
        raise NotUnderstoodError(f"the data set ends within an element, {len(encoded)} bytes")


def _check_whole(pixels: memoryview, transfer_syntax_uid: str) -> None:
    """Refuse a data set cut within its native pixel data. PS3.5 7.1"""
    order: Literal["big", "little"] = "big" if transfer_syntax_uid == ExplicitVRBigEndian else "little"
    if transfer_syntax_uid == ImplicitVRLittleEndian:
        header, length = 8, int.from_bytes(pixels[4:8], "little")
    else:  # OB, OW, OF, OD: two reserved bytes, then a 32-bit length
        header, length = 12, int.from_bytes(pixels[8:12], order)
    if length == _UNDEFINED_LENGTH:
        # Encapsulated: closed by a sequence delimitation item, PS3.5 A.4. Trailing elements may follow it.
        if b"\xfe\xff\xdd\xe0" not in bytes(pixels[-4096:]):
            raise NotUnderstoodError("the data set ends within its encapsulated pixel data")
    elif len(pixels) < header + length:
        raise NotUnderstoodError(f"the data set ends within its pixel data: {len(pixels) - header} of {length} bytes")


def _inflate(encoded: memoryview, max_bytes: int) -> bytes:
    """PS3.5 A.5: a raw deflate stream."""
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        inflated = inflater.decompress(encoded, max_bytes)
    except zlib.error as error:
        raise NotUnderstoodError("the deflated data set cannot be inflated") from error
    if len(inflated) >= max_bytes:
        raise NotUnderstoodError(f"the deflated data set is larger than {max_bytes >> 20} MB")
    if not inflater.eof:
        raise NotUnderstoodError("the deflated data set ends before its end")
    return inflated
