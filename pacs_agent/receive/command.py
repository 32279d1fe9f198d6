"""Command sets of C-STORE, read and written in a tenth of the time that a pydicom data set takes. PS3.7 6.3, 9.3.1

Only the plain ones, as nearly all are: whatever else comes or goes is left to pynetdicom, which says None here.
"""

import struct

from pynetdicom.dimse_primitives import C_STORE

_REQUEST, _RESPONSE = 0x0001, 0x8001
_NO_DATA_SET = 0x0101
_GROUP_LENGTH, _CLASS, _FIELD, _ID, _RESPONDED_TO = 0x0000, 0x0002, 0x0100, 0x0110, 0x0120
_PRIORITY, _DATA_SET_TYPE, _STATUS, _INSTANCE = 0x0700, 0x0800, 0x0900, 0x1000
_OF_REQUEST = (_GROUP_LENGTH, _CLASS, _FIELD, _ID, _PRIORITY, _DATA_SET_TYPE, _INSTANCE)
_ELEMENT = struct.Struct("<HHL")  # group, element, length: implicit VR little endian
_SHORT = struct.Struct("<HHLH")  # with a value of VR US


def read_store_request(encoded: bytes) -> C_STORE | None:
    """The request of a whole command set; its data set is still to come."""
    elements = _elements(encoded)
    if elements is None or any(len(elements[each]) != 2 for each in (_FIELD, _ID, _PRIORITY, _DATA_SET_TYPE)):
        return None
    if _short(elements[_FIELD]) != _REQUEST or _short(elements[_DATA_SET_TYPE]) == _NO_DATA_SET:
        return None
    sop_class_uid, sop_instance_uid = _uid(elements[_CLASS]), _uid(elements[_INSTANCE])
    if not sop_class_uid or not sop_instance_uid or _short(elements[_PRIORITY]) > 2:
        return None
    request = C_STORE()
    request.MessageID = _short(elements[_ID])
    request.AffectedSOPClassUID = sop_class_uid
    request.AffectedSOPInstanceUID = sop_instance_uid
    request.Priority = _short(elements[_PRIORITY])
    return request


def write_store_response(response: C_STORE) -> bytes | None:
    """The command set of a response with a status and no more to say."""
    if (
        response.MessageIDBeingRespondedTo is None
        or response.Status is None
        or not response.AffectedSOPClassUID
        or not response.AffectedSOPInstanceUID
        or not (response.AffectedSOPClassUID + response.AffectedSOPInstanceUID).isascii()
        or response.ErrorComment is not None
        or response.OffendingElement is not None
    ):
        return None
    elements = b"".join(
        (
            _encoded_uid(_CLASS, response.AffectedSOPClassUID),
            _SHORT.pack(0, _FIELD, 2, _RESPONSE),
            _SHORT.pack(0, _RESPONDED_TO, 2, response.MessageIDBeingRespondedTo),
            _SHORT.pack(0, _DATA_SET_TYPE, 2, _NO_DATA_SET),
            _SHORT.pack(0, _STATUS, 2, response.Status),
            _encoded_uid(_INSTANCE, response.AffectedSOPInstanceUID),
        )
    )
    return _ELEMENT.pack(0, _GROUP_LENGTH, 4) + len(elements).to_bytes(4, "little") + elements


def _elements(encoded: bytes) -> dict[int, bytes] | None:
    """The values by element number: just those of a request, each once."""
    elements: dict[int, bytes] = {}
    offset = 0
    for expected in _OF_REQUEST:
        if offset + _ELEMENT.size > len(encoded):
            return None
        group, number, length = _ELEMENT.unpack_from(encoded, offset)
        if group or number != expected:
            return None
        offset += _ELEMENT.size + length
        elements[number] = encoded[offset - length : offset]
    return elements if offset == len(encoded) else None


def _short(value: bytes) -> int:
    return int.from_bytes(value, "little")


def _uid(value: bytes) -> str:
    """A UID of digits and dots; else "", and pynetdicom is to judge it."""
    text = value.rstrip(b"\0")
    return text.decode() if len(text) <= 64 and text.replace(b".", b"").isdigit() else ""


def _encoded_uid(number: int, uid: str) -> bytes:
    value = uid.encode("ascii")
    value += b"\0" * (len(value) % 2)
    return _ELEMENT.pack(0, number, len(value)) + value
