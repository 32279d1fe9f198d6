"""An encoded data set as received: bytes in, header facts and the place of the pixel data out. Never decodes pixels.

Nothing here trusts the sender: of a deflated data set no more than the header is kept in memory, a broken one is one
clear error.
"""

import hashlib
import zlib
from dataclasses import dataclass
from typing import Literal

from pydicom.dataset import Dataset
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian, ImplicitVRLittleEndian

from pacs_agent.errors import DataSetMismatchError, NotUnderstoodError
from pacs_agent.study.header import read_header
from pacs_agent.study.instance import FACT_TAGS, Instance, is_valid_uid

_MAX_INFLATED_HEADER_BYTES = 4 << 20  # of others the sender had to send every byte
_INFLATED_CHUNK_BYTES = 1 << 20
_UNDEFINED_LENGTH = 0xFFFFFFFF
_TAIL_BYTES = 4096  # where the end of encapsulated pixel data is looked for


@dataclass(frozen=True, slots=True)
class ReceivedDataSet:
    """Header facts, and the encoded pixel data with all that follows it.

    `pixels` is empty where there are none, and their SHA-256 where they had to be inflated.
    """

    facts: Instance
    pixels: memoryview


def read_received(encoded: memoryview, transfer_syntax_uid: str, max_bytes: int) -> ReceivedDataSet:
    """Read the header of an encoded data set.

    Args:
        encoded: the data set as transferred, without group 0002.
        transfer_syntax_uid: the accepted transfer syntax.
        max_bytes: bound of the inflated size of a deflated one.

    Raises:
        NotUnderstoodError: it cannot be read, or lacks a usable UID.
    """
    rest: _Inflation | None = None
    if transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        rest = _Inflation(encoded, max_bytes)
        encoded = memoryview(rest.read(_MAX_INFLATED_HEADER_BYTES))
    try:
        header = read_header(encoded, transfer_syntax_uid, FACT_TAGS)
    except NotUnderstoodError:
        if rest and not rest.is_finished:
            raise NotUnderstoodError("the deflated data set's header is too large") from None
        raise
    if rest and not (header.has_pixels or rest.is_finished):
        raise NotUnderstoodError("the deflated data set's header is too large")
    facts = Instance.from_dataset(header.elements, transfer_syntax_uid, has_pixel_data=header.has_pixels)
    for name, uid in (
        ("SOPInstanceUID", facts.sop_instance_uid),
        ("SOPClassUID", facts.sop_class_uid),
        ("StudyInstanceUID", facts.study_instance_uid),
        ("SeriesInstanceUID", facts.series_instance_uid),
    ):
        if not is_valid_uid(uid):
            raise NotUnderstoodError(f"{name} is absent or not a UID")
    pixels = encoded[header.end :]
    if header.has_pixels and rest:
        length, digest, tail = rest.drain(pixels)
        _check_whole(bytes(pixels[:12]), length, tail, transfer_syntax_uid)
        return ReceivedDataSet(facts, memoryview(digest))
    if header.has_pixels:
        _check_whole(bytes(pixels[:12]), len(pixels), pixels[-_TAIL_BYTES:], transfer_syntax_uid)
    return ReceivedDataSet(facts, pixels)


def read_kept_header(encoded: memoryview, transfer_syntax_uid: str) -> Dataset:
    """All of the header of a data set that was kept, but values beyond the bounds of `study.header`.

    Raises:
        NotUnderstoodError: it is more than may be read, or spoilt.
    """
    if transfer_syntax_uid == DeflatedExplicitVRLittleEndian:
        encoded = memoryview(_Inflation(encoded, _MAX_INFLATED_HEADER_BYTES + 1).read(_MAX_INFLATED_HEADER_BYTES))
    return read_header(encoded, transfer_syntax_uid).elements


def check_request(facts: Instance, affected_sop_class_uid: str, affected_sop_instance_uid: str) -> None:
    """Raise `DataSetMismatchError` where the data set is not what the C-STORE request says. PS3.4 B.2.3"""
    if facts.sop_class_uid != affected_sop_class_uid:
        raise DataSetMismatchError("SOPClassUID differs from the request's Affected SOP Class UID")
    if facts.sop_instance_uid != affected_sop_instance_uid:
        raise DataSetMismatchError("SOPInstanceUID differs from the request's Affected SOP Instance UID")


def _check_whole(head: bytes, received: int, tail: memoryview, transfer_syntax_uid: str) -> None:
    """Refuse a data set cut within its native pixel data. PS3.5 7.1

    Args:
        head: the first twelve bytes of the pixel data element.
        received: bytes from there to the end of the data set.
        tail: the last of them.
        transfer_syntax_uid: how they are encoded.
    """
    order: Literal["big", "little"] = "big" if transfer_syntax_uid == ExplicitVRBigEndian else "little"
    if transfer_syntax_uid == ImplicitVRLittleEndian:
        header, length = 8, int.from_bytes(head[4:8], "little")
    else:  # OB, OW, OF, OD: two reserved bytes, then a 32-bit length
        header, length = 12, int.from_bytes(head[8:12], order)
    if length == _UNDEFINED_LENGTH:
        # Encapsulated: closed by a sequence delimitation item, PS3.5 A.4. Trailing elements may follow it.
        if b"\xfe\xff\xdd\xe0" not in bytes(tail):
            raise NotUnderstoodError("the data set ends within its encapsulated pixel data")
    elif received < header + length:
        raise NotUnderstoodError(f"the data set ends within its pixel data: {received - header} of {length} bytes")


class _Inflation:
    """A raw deflate stream (PS3.5 A.5), inflated piece by piece up to a bound.

    Raises:
        NotUnderstoodError: from every method, where the stream is broken, cut, or larger than *max_bytes*.
    """

    def __init__(self, deflated: memoryview, max_bytes: int) -> None:
        self._inflater = zlib.decompressobj(-zlib.MAX_WBITS)
        self._left: memoryview | bytes = deflated
        self._max_bytes = max_bytes
        self._done = 0

    @property
    def is_finished(self) -> bool:
        """Whether the stream's end was reached."""
        return self._inflater.eof

    def read(self, count: int) -> bytes:
        """The next bytes, at most *count*; fewer only at the end."""
        try:
            inflated = self._inflater.decompress(self._left, count)
            self._left = self._inflater.unconsumed_tail
        except zlib.error as error:
            raise NotUnderstoodError("the deflated data set cannot be inflated") from error
        self._done += len(inflated)
        if self._done >= self._max_bytes:
            raise NotUnderstoodError(f"the deflated data set is larger than {self._max_bytes >> 20} MB")
        if not self.is_finished and len(inflated) < count:
            raise NotUnderstoodError("the deflated data set ends before its end")
        return inflated

    def drain(self, begun: memoryview) -> tuple[int, bytes, memoryview]:
        """Inflate the rest and throw it away: length, SHA-256 and last bytes of *begun* and all that follows."""
        digest, length, tail = hashlib.sha256(begun), len(begun), bytes(begun[-_TAIL_BYTES:])
        while not self.is_finished:
            chunk = self.read(_INFLATED_CHUNK_BYTES)
            digest.update(chunk)
            length += len(chunk)
            tail = (tail + chunk[-_TAIL_BYTES:])[-_TAIL_BYTES:]
        return length, digest.digest(), memoryview(tail)
