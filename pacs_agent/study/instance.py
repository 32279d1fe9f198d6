"""Header facts of an instance, frozen at receipt.

Enters: a pydicom data set without pixel data. Leaves: an `Instance` of plain strings and numbers that can be stored as
JSON. Never raises on a hostile value: what cannot be read is empty.
"""

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import islice
from typing import Any

from pydicom.dataset import Dataset
from pydicom.tag import BaseTag, Tag
from pydicom.uid import KeyObjectSelectionDocumentStorage

from pacs_agent.printable import printable

# Titles of key objects that take images out, PS3.16 CID 7011.
REJECTIONS = {
    "113001": "rejected for quality reasons",
    "113037": "rejected for patient safety reasons",
    "113038": "incorrect modality worklist entry",
    "113039": "data retention policy expired",
}
MAX_REJECTED = 10_000  # references kept of one rejection note
_BREAKS = re.compile("[\0\t\n\f\r]+")  # what a text may hold of controls, PS3.5 6.1.3
_CONTROLS = re.compile("[\x01-\x1f\x7f]")
MAX_TEXT = 1024  # characters kept of one header text; the standard's longest short text (ST) has 1024


@dataclasses.dataclass(frozen=True, slots=True)
class Code:
    """A coded concept as met in a header: value, scheme (`SCT`, `SRT`, `99XYZ`…), meaning; each may be empty."""

    value: str
    scheme: str
    meaning: str


@dataclasses.dataclass(frozen=True, slots=True)
class Region:
    """An item of AnatomicRegionSequence (PS3.3 10.5) with its modifiers."""

    code: Code
    modifiers: tuple[Code, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Reference:
    """An instance that another names."""

    study_instance_uid: str
    sop_instance_uid: str


@dataclasses.dataclass(frozen=True, slots=True)
class Instance:
    """What the stations need to know of an instance without opening its file. Empty string: absent or unreadable."""

    sop_instance_uid: str
    sop_class_uid: str
    series_instance_uid: str
    study_instance_uid: str
    transfer_syntax_uid: str = ""
    # identity
    patient_id: str = ""
    issuer_of_patient_id: str = ""
    patient_birth_date: str = ""
    patient_age: str = ""
    accession_number: str = ""
    study_date: str = ""
    # origin
    modality: str = ""
    station_name: str = ""
    manufacturer: str = ""
    manufacturer_model_name: str = ""
    quality_control_subject: str = ""
    # kind of picture
    image_type: tuple[str, ...] = ()
    presentation_intent_type: str = ""
    rows: int = 0
    columns: int = 0
    number_of_frames: int = 1
    has_pixel_data: bool = False
    # body part and side
    body_part_examined: str = ""
    anatomic_regions: tuple[Region, ...] = ()
    series_description: str = ""
    protocol_name: str = ""
    performed_procedure_step_description: str = ""
    acquisition_device_processing_description: str = ""
    study_description: str = ""
    requested_procedure_description: str = ""
    scheduled_procedure_step_description: str = ""
    procedure_codes: tuple[Code, ...] = ()
    view_position: str = ""
    view_codes: tuple[Code, ...] = ()
    image_laterality: str = ""
    laterality: str = ""
    # a rejection note's title (of `REJECTIONS`), and what it takes out
    rejection: str = ""
    rejects: tuple[Reference, ...] = ()

    def to_json(self) -> str:
        """The facts as one JSON object."""
        # `asdict` for the codes within only: of the whole it would copy every string.
        return json.dumps(
            {name: getattr(self, name) for name in _NAMES}, ensure_ascii=False, default=dataclasses.asdict
        )

    @classmethod
    def from_json(cls, text: str) -> "Instance":
        """The facts that `to_json` wrote; fields of a later version are left out."""
        known = {field.name for field in dataclasses.fields(cls)}
        raw: dict[str, Any] = {key: value for key, value in json.loads(text).items() if key in known}
        for key in ("procedure_codes", "view_codes"):
            raw[key] = tuple(Code(**code) for code in raw.get(key, ()))
        raw["anatomic_regions"] = tuple(
            Region(Code(**region["code"]), tuple(Code(**code) for code in region["modifiers"]))
            for region in raw.get("anatomic_regions", ())
        )
        raw["image_type"] = tuple(raw.get("image_type", ()))
        raw["rejects"] = tuple(Reference(**reference) for reference in raw.get("rejects", ()))
        return cls(**raw)

    @classmethod
    def from_dataset(cls, ds: Dataset, transfer_syntax_uid: str = "", has_pixel_data: bool | None = None) -> "Instance":
        """Read the facts from *ds*.

        Args:
            ds: a data set, with or without its pixel data.
            transfer_syntax_uid: as negotiated or as in group 0002.
            has_pixel_data: whether the instance has pixel data, where *ds* was read without; None: look in *ds*.
        """
        requests = _items(ds, "RequestAttributesSequence")
        rejection = _rejection(ds)
        if has_pixel_data is None:
            has_pixel_data = any(tag in ds for tag in ("PixelData", "FloatPixelData", "DoubleFloatPixelData"))
        return cls(
            sop_instance_uid=_text(ds, "SOPInstanceUID"),
            sop_class_uid=_text(ds, "SOPClassUID"),
            series_instance_uid=_text(ds, "SeriesInstanceUID"),
            study_instance_uid=_text(ds, "StudyInstanceUID"),
            transfer_syntax_uid=transfer_syntax_uid,
            patient_id=_text(ds, "PatientID"),
            issuer_of_patient_id=_text(ds, "IssuerOfPatientID"),
            patient_birth_date=_text(ds, "PatientBirthDate"),
            patient_age=_text(ds, "PatientAge"),
            accession_number=_text(ds, "AccessionNumber"),
            study_date=_text(ds, "StudyDate"),
            modality=_text(ds, "Modality"),
            station_name=_text(ds, "StationName"),
            manufacturer=_text(ds, "Manufacturer"),
            manufacturer_model_name=_text(ds, "ManufacturerModelName"),
            quality_control_subject=_text(ds, "QualityControlSubject"),
            image_type=tuple(part.strip() for part in _text(ds, "ImageType").split("\\") if part.strip()),
            presentation_intent_type=_text(ds, "PresentationIntentType"),
            rows=_number(ds, "Rows"),
            columns=_number(ds, "Columns"),
            number_of_frames=_number(ds, "NumberOfFrames", 1),
            has_pixel_data=has_pixel_data,
            body_part_examined=_text(ds, "BodyPartExamined"),
            anatomic_regions=tuple(
                Region(_code(item), tuple(_code(mod) for mod in _items(item, "AnatomicRegionModifierSequence")))
                for item in _items(ds, "AnatomicRegionSequence")
            ),
            series_description=_text(ds, "SeriesDescription"),
            protocol_name=_text(ds, "ProtocolName"),
            performed_procedure_step_description=_text(ds, "PerformedProcedureStepDescription"),
            acquisition_device_processing_description=_text(ds, "AcquisitionDeviceProcessingDescription"),
            study_description=_text(ds, "StudyDescription"),
            requested_procedure_description=_text(ds, "RequestedProcedureDescription")
            or _first(requests, "RequestedProcedureDescription"),
            scheduled_procedure_step_description=_first(requests, "ScheduledProcedureStepDescription"),
            procedure_codes=tuple(
                _code(code)
                for holder, keyword in (
                    (ds, "ProcedureCodeSequence"),
                    (ds, "PerformedProtocolCodeSequence"),
                    *((item, "RequestedProcedureCodeSequence") for item in requests),
                    *((item, "ScheduledProtocolCodeSequence") for item in requests),
                )
                for code in _items(holder, keyword)
            ),
            view_position=_text(ds, "ViewPosition"),
            view_codes=tuple(_code(item) for item in _items(ds, "ViewCodeSequence")),
            image_laterality=_text(ds, "ImageLaterality"),
            laterality=_text(ds, "Laterality"),
            rejection=rejection,
            rejects=tuple(islice(_evidence(ds), MAX_REJECTED)) if rejection else (),
        )


FACT_TAGS = frozenset(
    int(Tag(keyword))
    for keyword in (
        # PS3.3 C.12.1.1, and what the instance is
        *("SpecificCharacterSet", "SOPInstanceUID", "SOPClassUID", "SeriesInstanceUID", "StudyInstanceUID", "Modality"),
        *("PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientAge", "AccessionNumber", "StudyDate"),
        *("StationName", "Manufacturer", "ManufacturerModelName", "QualityControlSubject", "ImageType"),
        *("PresentationIntentType", "Rows", "Columns", "NumberOfFrames"),
        *("BodyPartExamined", "AnatomicRegionSequence", "SeriesDescription", "ProtocolName", "StudyDescription"),
        *("PerformedProcedureStepDescription", "AcquisitionDeviceProcessingDescription"),
        *("RequestedProcedureDescription", "RequestAttributesSequence", "ProcedureCodeSequence"),
        *("PerformedProtocolCodeSequence", "ViewPosition", "ViewCodeSequence", "ImageLaterality", "Laterality"),
        *("ConceptNameCodeSequence", "CurrentRequestedProcedureEvidenceSequence"),
    )
)
"""The elements that `Instance.from_dataset` looks at; nothing else of a header need be read for it."""

_NAMES = tuple(field.name for field in dataclasses.fields(Instance))


def is_valid_uid(uid: str) -> bool:
    """Whether *uid* is a UID by PS3.5 9.1, leading zeros in components forgiven as the field does."""
    return 0 < len(uid) <= 64 and all(part.isascii() and part.isdigit() for part in uid.split("."))


@cache
def _tag(keyword: str) -> BaseTag:
    return Tag(keyword)


def _value(ds: Dataset, keyword: str) -> Any:
    """The element's value or None; as `ds.get(keyword)`, which takes ten times as long where there is none."""
    tag = _tag(keyword)
    return ds[tag].value if tag in ds else None


def _text(ds: Dataset, keyword: str) -> str:
    """The element's value as text, values joined by a backslash; "" where it is absent or cannot be read."""
    try:
        value = _value(ds, keyword)
    except Exception:  # noqa: BLE001 - pydicom raises whatever a broken value leads it to; an unreadable value is empty
        return ""
    if value is None or (isinstance(value, Sequence) and value and isinstance(value[0], Dataset)):
        return ""
    if isinstance(value, str | int | float) or not isinstance(value, Sequence):
        text = str(value)
    elif isinstance(value, bytes):
        text = value.decode("ascii", "replace")
    else:
        text = "\\".join(str(part) for part in value)
    # A surrogate would break UTF-8 columns further on, controls whatever shows them; breaks, and NUL, part words.
    # Controls beyond ASCII stay: of a wrong character set, they are letters (0x84 is ä in IBM 850).
    text = " ".join(_BREAKS.split(text.rstrip(" \0").encode("utf-8", "replace").decode("utf-8")))
    return _CONTROLS.sub(lambda control: printable(control.group()), text.strip())[:MAX_TEXT]


def _number(ds: Dataset, keyword: str, default: int = 0) -> int:
    try:
        return int(_text(ds, keyword) or default)
    except ValueError:
        return default


def _items(ds: Dataset, keyword: str) -> Iterator[Dataset] | tuple[Dataset, ...]:
    """The items of a sequence; none where it is absent, not a sequence or unreadable."""
    try:
        value = _value(ds, keyword)
        return tuple(item for item in value or () if isinstance(item, Dataset))
    except Exception:  # noqa: BLE001 - as in `_text`
        return ()


def _first(items: Any, keyword: str) -> str:
    return next((text for item in items if (text := _text(item, keyword))), "")


def _rejection(ds: Dataset) -> str:
    """The title of a rejection note, "" of everything else."""
    if _text(ds, "SOPClassUID") != KeyObjectSelectionDocumentStorage:
        return ""
    titles = (_code(item) for item in _items(ds, "ConceptNameCodeSequence"))
    return next((title.value for title in titles if title.scheme == "DCM" and title.value in REJECTIONS), "")


def _evidence(ds: Dataset) -> Iterator[Reference]:
    """What a key object is about, PS3.3 C.17.6.2.1."""
    for study in _items(ds, "CurrentRequestedProcedureEvidenceSequence"):
        for series in _items(study, "ReferencedSeriesSequence"):
            for item in _items(series, "ReferencedSOPSequence"):
                named = Reference(_text(study, "StudyInstanceUID"), _text(item, "ReferencedSOPInstanceUID"))
                if is_valid_uid(named.study_instance_uid) and is_valid_uid(named.sop_instance_uid):
                    yield named


def _code(item: Dataset) -> Code:
    value = _text(item, "CodeValue") or _text(item, "LongCodeValue") or _text(item, "URNCodeValue")
    return Code(value, _text(item, "CodingSchemeDesignator"), _text(item, "CodeMeaning"))
