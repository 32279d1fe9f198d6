"""The header of an encoded data set: bytes in, of it what is asked for out, and the place of the pixel data.

Nothing here trusts the sender. A header may tell of a million items or ten thousand depths in a few megabytes, which
pydicom would make into gigabytes of objects; here the bytes are walked over without making any, and only elements that
are asked for are handed to it, within bounds. PS3.5 7.1, 7.5, A.4
"""

import struct
from collections.abc import Collection
from dataclasses import dataclass
from io import BytesIO

from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.filereader import read_dataset
from pydicom.uid import ExplicitVRBigEndian, ImplicitVRLittleEndian
from pydicom.valuerep import EXPLICIT_VR_LENGTH_32

from pacs_agent.errors import NotUnderstoodError

MAX_ENTRIES = 1_000_000
"""Elements and items walked over; those of a sequence of defined length that is not asked for are one."""
MAX_READ_ENTRIES = 50_000
"""Of them, how many are read: some 50 MB of pydicom's objects. A rejection note of 10,000 references has 30,000."""
MAX_READ_BYTES = 4 << 20
MAX_DEPTH = 64
"""Sequences within sequences; in the field they are a handful."""
MAX_VALUE_BYTES = 16_384
"""Of one value that is read; the longest text (LT) has 10,240 characters. What is longer counts as absent."""

_PIXEL_TAGS = frozenset({0x7FE00008, 0x7FE00009, 0x7FE00010})  # float, double float, integer pixel data
_CHARACTER_SET = 0x00080005
_ITEM, _ITEM_END, _SEQUENCE_END = 0xFFFEE000, 0xFFFEE00D, 0xFFFEE0DD
_UNDEFINED_LENGTH = 0xFFFFFFFF
_LONG = frozenset(vr.encode() for vr in EXPLICIT_VR_LENGTH_32)


@dataclass(frozen=True, slots=True)
class Header:
    """What was read.

    Attributes:
        elements: those asked for, as far as they are within bounds.
        end: where the pixel data element begins, or the data set ends.
        has_pixels: which of the two.
    """

    elements: Dataset
    end: int
    has_pixels: bool


def read_header(encoded: memoryview | bytes, transfer_syntax_uid: str, wanted: Collection[int] | None = None) -> Header:
    """Read an encoded data set up to its pixel data.

    Args:
        encoded: without group 0002, not deflated.
        transfer_syntax_uid: how.
        wanted: tags of the elements asked for; None: all.

    Raises:
        NotUnderstoodError: it ends within an element, is no data set, cannot be read, or is beyond a bound.
    """
    walk = _Walk(encoded, transfer_syntax_uid)
    parts, end, has_pixels = walk.top(wanted)
    try:
        elements = read_dataset(BytesIO(b"".join(parts)), walk.is_implicit, walk.order == "<")
    except Exception as error:  # pydicom raises whatever such bytes lead it to
        raise NotUnderstoodError(f"the data set cannot be read: {type(error).__name__}") from error
    return Header(elements, end, has_pixels)


class _Walk:
    """One way through an encoded data set, from element to element."""

    def __init__(self, encoded: memoryview | bytes, transfer_syntax_uid: str) -> None:
        self._encoded = encoded
        self._size = len(encoded)
        self.order = ">" if transfer_syntax_uid == ExplicitVRBigEndian else "<"
        self._tag = struct.Struct(f"{self.order}HH").unpack_from
        self._short = struct.Struct(f"{self.order}H").unpack_from
        self._long = struct.Struct(f"{self.order}L").unpack_from
        # Some send the other one of the two than was agreed.
        self.is_implicit = not self._shows_vr(0, transfer_syntax_uid != ImplicitVRLittleEndian)
        self._entries = 0
        self._is_long = False  # whether the element in hand has, in its items, a value that is too long to be read

    def _shows_vr(self, at: int, otherwise: bool = False) -> bool:
        """Whether the element there has a VR; *otherwise* where there is none."""
        vr = bytes(self._encoded[at + 4 : at + 6])
        return vr.isalpha() and vr.isupper() if len(vr) == 2 else otherwise

    def top(self, wanted: Collection[int] | None) -> tuple[list[bytes], int, bool]:
        """The wanted elements' bytes, where the pixel data begins or all ends, and which of the two."""
        encoded, size = self._encoded, self._size
        parts: list[bytes] = []
        read_bytes = read_entries = at = 0
        while at < size:
            tag, vr, value, length = self._element(at, size, self.is_implicit)
            if tag in _PIXEL_TAGS:
                return parts, at, True
            if tag >> 16 == _ITEM >> 16:
                raise NotUnderstoodError("an item outside of a sequence")
            self._count()
            before, self._is_long = self._entries, False
            is_read = wanted is None or tag in wanted or tag == _CHARACTER_SET
            if length == _UNDEFINED_LENGTH:
                is_sequence = _is_sequence(tag, vr, is_undefined=True)
                end = self._nested(value, None, self.is_implicit) if is_sequence else self._fragments(value)
            elif (end := value + length) > size:
                raise _cut(size)
            elif is_read and length:
                is_read = self._is_readable(tag, vr, value, end)
            if is_read and not self._is_long:
                parts.append(bytes(encoded[at:end]))
                read_bytes += end - at
                read_entries += 1 + self._entries - before
                if read_bytes > MAX_READ_BYTES or read_entries > MAX_READ_ENTRIES:
                    raise NotUnderstoodError(
                        f"the header has more than {MAX_READ_BYTES >> 20} MB or {MAX_READ_ENTRIES} elements to be read"
                    )
            at = end
        return parts, at, False

    def _is_readable(self, tag: int, vr: bytes | None, value: int, end: int) -> bool:
        """Whether pydicom may have this element of defined length; a sequence is walked through for that."""
        if _is_sequence(tag, vr):
            try:
                self._nested(value, end, self.is_implicit)
            except _BrokenError:
                return False
            return True
        return end - value <= MAX_VALUE_BYTES

    def _fragments(self, at: int) -> int:
        """Where encapsulated data ends whose first item is there. PS3.5 A.4"""
        while (found := self._tag_at(at, self._size)) == _ITEM:
            self._count()
            at += 8 + int(self._long(self._encoded, at + 4)[0])
        if found != _SEQUENCE_END:
            raise _cut(self._size)
        return at + 8

    def _nested(self, at: int, end: int | None, is_implicit: bool) -> int:
        """Walk through a sequence, however deep; where it ends.

        Args:
            at: where its value begins.
            end: where that ends; None: undefined length.
            is_implicit: the encoding around it. Within, an item may be implicit in an explicit data set. PS3.5 6.2.2
        """
        # Of each level: whether items or elements come, where it ends, where what is around it ends, and its encoding.
        levels = [(True, end, self._size if end is None else end, is_implicit)]
        while levels:
            of_items, end, limit, is_implicit = levels[-1]
            if end is not None and at >= end:
                levels.pop()
                continue
            tag = self._tag_at(at, limit)
            if tag is None:
                raise _cut(self._size)
            if tag == (_SEQUENCE_END if of_items else _ITEM_END):
                levels.pop()
                at += 8
                continue
            self._count()
            if of_items:
                if tag != _ITEM:
                    raise _BrokenError("a sequence holds what is no item")
                at, length = at + 8, int(self._long(self._encoded, at + 4)[0])
                is_implicit = is_implicit or not self._shows_vr(at, True)
            else:
                tag, vr, at, length = self._element(at, limit, is_implicit)
                if not _is_sequence(tag, vr, is_undefined=length == _UNDEFINED_LENGTH):
                    self._is_long |= MAX_VALUE_BYTES < length < _UNDEFINED_LENGTH
                    at = self._fragments(at) if length == _UNDEFINED_LENGTH else at + length
                    if at > limit:
                        raise _cut(self._size)
                    continue
            within = None if length == _UNDEFINED_LENGTH else at + length
            if within is not None and within > limit:
                raise _cut(self._size)
            levels.append((not of_items, within, limit if within is None else within, is_implicit))
            if len(levels) > 2 * MAX_DEPTH:
                raise NotUnderstoodError(f"sequences are nested more than {MAX_DEPTH} deep")
        return at

    def _element(self, at: int, limit: int, is_implicit: bool) -> tuple[int, bytes | None, int, int]:
        """Tag, VR (None: implicit), where the value begins and its length."""
        if at + 8 > limit:
            raise _cut(self._size)
        encoded = self._encoded
        group, number = self._tag(encoded, at)
        if not is_implicit:
            vr = bytes(encoded[at + 4 : at + 6])
            if vr in _LONG:
                if at + 12 > limit:
                    raise _cut(self._size)
                return group << 16 | number, vr, at + 12, self._long(encoded, at + 8)[0]
            if b"AA" <= vr <= b"ZZ":
                return group << 16 | number, vr, at + 8, self._short(encoded, at + 6)[0]
        # No VR where one must be: implicit, as some write in sequences; pydicom takes it so too.
        return group << 16 | number, None, at + 8, self._long(encoded, at + 4)[0]

    def _tag_at(self, at: int, limit: int) -> int | None:
        """The tag there; None where it does not fit."""
        if at + 8 > limit:
            return None
        group, number = self._tag(self._encoded, at)
        return int(group << 16 | number)

    def _count(self) -> None:
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise NotUnderstoodError(f"the header has more than {MAX_ENTRIES} elements and items")


class _BrokenError(NotUnderstoodError):
    """A sequence is broken."""


def _cut(size: int) -> _BrokenError:
    return _BrokenError(f"the data set ends within an element, {size} bytes")


def _is_sequence(tag: int, vr: bytes | None, *, is_undefined: bool = False) -> bool:
    """Whether the value is items of elements: by its VR, or by the dictionary where that is not said.

    Args:
        tag: of the element.
        vr: as it was said; None: implicit.
        is_undefined: its length is; then UN is a sequence, PS3.5 6.2.2, and so is an unknown tag without a VR.
    """
    if vr == b"SQ" or (is_undefined and vr == b"UN"):
        return True
    if vr not in (b"UN", None):
        return False
    try:
        return bool(dictionary_VR(tag) == "SQ")
    except KeyError:
        return is_undefined
