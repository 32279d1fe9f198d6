"""What of a received element may be written again: values and items that are legal for their VR.

Enters: a received data set and a keyword. Leaves: a value or copies of items that PS3.5 6.2 allows, or nothing. Never
changes the received data set, never shortens or repairs an identity, never fails on a hostile value.
"""

import re
import struct
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydicom.datadict import dictionary_VM, dictionary_VR, tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

# An identity cut short is another identity: these are taken as received, even where too long for their VR.
IDENTITY = frozenset({"PatientName", "PatientID", "IssuerOfPatientID", "AccessionNumber", "StudyID"})
TEXT_VRS = frozenset({"SH", "LO", "PN", "ST", "LT", "UT", "UC"})  # those the character set governs, PS3.5 6.1.2.2

_LONGEST = {"SH": 16, "CS": 16, "LO": 64, "PN": 194, "ST": 1024, "LT": 10240, "DS": 16, "IS": 12, "UI": 64}
_FORMS = {
    "CS": re.compile(r"[A-Z0-9 _]+"),
    "DA": re.compile(r"\d{4}(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])"),
    "TM": re.compile(r"([01]\d|2[0-3])([0-5]\d([0-5]\d(\.\d{1,6})?)?)?"),
    "AS": re.compile(r"\d{3}[DWMY]"),
    "DS": re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?"),
    "IS": re.compile(r"[+-]?\d+"),
    "US": re.compile(r"\d{1,4}"),
    "UI": re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*))+"),
    "UR": re.compile(r"[!-~]+"),
}
_ENUMERATED: Mapping[str, tuple[str, ...]] = {
    "PatientSex": ("M", "F", "O"),
    "QualityControlSubject": ("YES", "NO"),
    "PatientIdentityRemoved": ("YES", "NO"),
    "SmokingStatus": ("YES", "NO", "UNKNOWN"),
    "PregnancyStatus": ("1", "2", "3", "4"),
    "TypeOfPatientID": ("TEXT", "RFID", "BARCODE"),
    "UniversalEntityIDType": ("DNS", "EUI64", "ISO", "URI", "UUID", "X400", "X500"),
}
# Control characters; those a text of several lines may hold are CR, LF, FF and TAB (PS3.5 6.1.3).
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f]")
_CONTROLS_OF_LINES = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f]")

# What pydicom may raise when a broken value is looked at
_UNREADABLE = (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RuntimeError, OSError, struct.error)

_CODE_VALUES = ("CodeValue", "LongCodeValue", "URNCodeValue")
_CODE = (*_CODE_VALUES, "CodingSchemeDesignator", "CodingSchemeVersion", "CodeMeaning")  # PS3.3 Table 8.8-1
_REFERENCE = ("ReferencedSOPClassUID", "ReferencedSOPInstanceUID")  # PS3.3 Table 10-11
_ISSUER = ("LocalNamespaceEntityID", "UniversalEntityID", "UniversalEntityIDType")  # PS3.3 Table 10-17
_ITEMS: Mapping[str, tuple[str, ...]] = {
    "AnatomicRegionSequence": _CODE,
    "DeidentificationMethodCodeSequence": _CODE,
    "IssuerOfAccessionNumberSequence": _ISSUER,
    "IssuerOfAdmissionIDSequence": _ISSUER,
    "OtherPatientIDsSequence": ("PatientID", "IssuerOfPatientID", "TypeOfPatientID"),
    "ProcedureCodeSequence": _CODE,
    "ReasonForPerformedProcedureCodeSequence": _CODE,
    "ReferencedPatientSequence": _REFERENCE,
    "ReferencedPerformedProcedureStepSequence": _REFERENCE,
    "ReferencedStudySequence": _REFERENCE,
    "RequestedProcedureCodeSequence": _CODE,
    "ViewCodeSequence": _CODE,
}


def legal_value(source: Dataset, keyword: str) -> Any:
    """The value of *keyword* in *source*, several as a list; None where it is absent, empty or not legal for its VR.

    An identity is taken whatever its length; bytes that the character set does not know are `?` in any text.
    """
    value = received(source, keyword)
    parts = list(value) if isinstance(value, MultiValue) else [value]
    if dictionary_VM(keyword) == "1" and len(parts) > 1 and keyword not in IDENTITY:
        return None
    legal = [part for raw in parts if (part := _legal(raw, dictionary_VR(keyword), keyword)) is not None]
    if not legal or len(legal) < len(parts):
        return None
    return legal if len(legal) > 1 else legal[0]


def legal_items(source: Dataset, keyword: str) -> list[Dataset]:
    """Copies of those items of a sequence that hold what the standard demands of them, with its elements only."""
    copies = []
    for item in items(source, keyword):
        copy = Dataset()
        for name in _ITEMS[keyword]:
            if (value := legal_value(item, name)) is not None:
                setattr(copy, name, value)
        if _is_complete(copy, _ITEMS[keyword]):
            copies.append(copy)
    return copies


def received(source: Dataset, keyword: str) -> Any:
    """The decoded value as it is; None where it is absent or cannot be read."""
    try:
        # By tag: it gives the element, and a broken one raises here rather than at a later look.
        element = source.get(tag_for_keyword(keyword) or 0)
        return None if element is None else element.value
    except _UNREADABLE:
        return None


def items(source: Dataset, keyword: str) -> Iterator[Dataset]:
    """The items of a sequence; none where it is absent, unreadable or no sequence."""
    value = received(source, keyword)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        yield from (item for item in value if isinstance(item, Dataset))


def _legal(value: Any, vr: str, keyword: str) -> Any:
    text = str(value if value is not None else "").rstrip(" \0")
    if vr in TEXT_VRS:
        controls = _CONTROLS_OF_LINES if vr in ("ST", "LT", "UT") else _CONTROLS
        clean = controls.sub("", text).replace("\ufffd", "?")  # U+FFFD: what a decoder could not read
        if not clean or (len(clean) > _LONGEST.get(vr, len(clean)) and keyword not in IDENTITY):
            return None
        return clean
    text = text.strip()
    if vr == "DA":
        text = text.replace(".", "")  # as ACR-NEMA wrote it, PS3.5 6.2
    elif vr == "TM":
        text = text.replace(":", "")
    if not _FORMS[vr].fullmatch(text) or len(text) > _LONGEST.get(vr, len(text)):
        return None
    if text not in _ENUMERATED.get(keyword, (text,)):
        return None
    return int(text) if vr == "US" else text


def _is_complete(item: Dataset, keywords: tuple[str, ...]) -> bool:
    """Whether *item* holds the type 1 elements of the macro that has these *keywords*."""
    if keywords is _CODE:
        scheme = "CodingSchemeDesignator" in item or "URNCodeValue" in item
        return scheme and "CodeMeaning" in item and any(name in item for name in _CODE_VALUES)
    if keywords is _ISSUER:
        return "LocalNamespaceEntityID" in item or ("UniversalEntityID" in item and "UniversalEntityIDType" in item)
    if keywords is _REFERENCE:
        return all(name in item for name in _REFERENCE)
    return "PatientID" in item and "TypeOfPatientID" in item  # OtherPatientIDsSequence, PS3.3 C.7.1.1
