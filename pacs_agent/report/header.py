"""What an object of ours takes over from its sources: Patient and Study modules, the request, the character set.

Enters: the headers of the source images. Leaves: elements of a new data set. Never changes a source and never invents
a value: what cannot be read is left out, or empty where the standard demands the element (type 2).
"""

import re
from collections.abc import Iterator, Sequence
from datetime import timedelta, timezone
from typing import Any

from pydicom import charset
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset
from pydicom.multival import MultiValue

from pacs_agent.report.legal import TEXT_VRS, items, legal_items, legal_value, received

UTF_8 = "ISO_IR 192"
LATIN_1 = "ISO_IR 100"

# Type 2 of the Patient and General Study modules (PS3.3 C.7.1.1, C.7.2.1): there, and empty where unknown.
TYPE_2 = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex"),
    *("StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID", "AccessionNumber"),
)
OPTIONAL = (
    # PS3.3 C.7.1.1 Patient
    *("IssuerOfPatientID", "TypeOfPatientID", "IssuerOfPatientIDQualifiersSequence", "PatientBirthTime"),
    *("QualityControlSubject", "OtherPatientIDsSequence", "OtherPatientNames", "EthnicGroup", "PatientComments"),
    *("ReferencedPatientSequence", "PatientIdentityRemoved", "DeidentificationMethod"),
    "DeidentificationMethodCodeSequence",
    # PS3.3 C.7.2.1 General Study
    *("StudyDescription", "IssuerOfAccessionNumberSequence", "ConsultingPhysicianName", "PhysiciansOfRecord"),
    *("NameOfPhysiciansReadingStudy", "RequestingService", "ReferencedStudySequence", "ProcedureCodeSequence"),
    "ReasonForPerformedProcedureCodeSequence",
    # PS3.3 C.7.2.2 Patient Study
    *("AdmittingDiagnosesDescription", "PatientAge", "PatientSize", "PatientWeight", "MedicalAlerts", "Allergies"),
    *("SmokingStatus", "PregnancyStatus", "LastMenstrualDate", "Occupation", "AdditionalPatientHistory"),
    *("AdmissionID", "IssuerOfAdmissionIDSequence", "ServiceEpisodeID", "ServiceEpisodeDescription"),
    # the zone of StudyTime (PS3.3 C.12.1.1.8)
    "TimezoneOffsetFromUTC",
)
_OF_REQUEST = (
    *("PlacerOrderNumberImagingServiceRequest", "FillerOrderNumberImagingServiceRequest"),
    *("RequestedProcedureID", "RequestedProcedureDescription"),
)
_DEFAULT_REPERTOIRE = ("", "ISO_IR 6", "ISO 2022 IR 6")
_SEVERAL_BYTES = ("ISO_IR 192", "GB18030", "GBK")
_ZONE = re.compile(r"[+-](0\d|1[0-4])[0-5]\d")


def copy_patient_and_study(ds: Dataset, sources: Sequence[Dataset]) -> None:
    """Copy the Patient, General Study and Patient Study modules into *ds*; of several sources the first that knows."""
    for keyword in TYPE_2:
        setattr(ds, keyword, _first(sources, keyword) or "")
    for keyword in OPTIONAL:
        if value := _first(sources, keyword):
            setattr(ds, keyword, value)
    # Type 1C (PS3.3 C.7.1.1): who says that the identity was removed says how.
    how = "DeidentificationMethod" in ds or "DeidentificationMethodCodeSequence" in ds
    if ds.get("PatientIdentityRemoved") == "YES" and not how:
        del ds.PatientIdentityRemoved


def performed_procedure_steps(sources: Sequence[Dataset]) -> list[Dataset]:
    """Items of ReferencedPerformedProcedureStepSequence (type 2, PS3.3 C.17.1): the sources' steps, each once."""
    found: dict[str, Dataset] = {}
    for source in sources:
        for item in legal_items(source, "ReferencedPerformedProcedureStepSequence"):
            found.setdefault(item.ReferencedSOPInstanceUID, item)
    return list(found.values())


def requests(sources: Sequence[Dataset]) -> list[Dataset]:
    """Items of ReferencedRequestSequence (PS3.3 C.17.2) from the sources' RequestAttributesSequence, each once."""
    found: dict[tuple[str, str], Dataset] = {}
    for source in sources:
        for request in items(source, "RequestAttributesSequence"):
            item = Dataset()
            item.StudyInstanceUID = legal_value(request, "StudyInstanceUID") or source.StudyInstanceUID
            item.AccessionNumber = legal_value(request, "AccessionNumber") or _first(sources, "AccessionNumber") or ""
            for keyword in _OF_REQUEST:
                setattr(item, keyword, legal_value(request, keyword) or "")
            for keyword in ("ReferencedStudySequence", "RequestedProcedureCodeSequence"):
                setattr(item, keyword, legal_items(request, keyword))
            found.setdefault((item.StudyInstanceUID, item.RequestedProcedureID), item)
    return list(found.values())


def time_zone(sources: Sequence[Dataset]) -> timezone | None:
    """The zone that the sources' times are in, where they say so (TimezoneOffsetFromUTC, PS3.3 C.12.1.1.8)."""
    text = _first(sources, "TimezoneOffsetFromUTC")
    if text is None:
        return None
    offset = timedelta(hours=int(text[1:3]), minutes=int(text[3:]))
    return timezone(-offset if text[0] == "-" else offset)


def character_set(sources: Sequence[Dataset]) -> str | list[str] | None:
    """SpecificCharacterSet of the first source where its terms are defined ones (PS3.3 C.12.1.1.2), else None."""
    value = received(sources[0], "SpecificCharacterSet")
    terms = [str(term or "").strip() for term in (value if isinstance(value, MultiValue) else [value])]
    if not any(terms) or any(term not in charset.python_encoding for term in terms):
        return None
    return terms if len(terms) > 1 else terms[0]


def settle_character_set(ds: Dataset, wanted: str | list[str] | None) -> None:
    """Give *ds* the character set *wanted* where all its texts can be written in it, else UTF-8.

    Where none is wanted and the texts need one, Latin-1 is tried first: it is what undeclared bytes were read as.
    """
    texts = set(_texts(ds))
    for candidate in (wanted,) if wanted else (None, LATIN_1):
        if all(
            _can_be_written(text, candidate if isinstance(candidate, list) else [candidate or ""]) for text in texts
        ):
            if candidate:
                ds.SpecificCharacterSet = candidate
            elif "SpecificCharacterSet" in ds:
                del ds.SpecificCharacterSet
            return
    ds.SpecificCharacterSet = UTF_8


def _first(sources: Sequence[Dataset], keyword: str) -> Any:
    """The value or items of the first source that has a legal one; None where none has."""
    for source in sources:
        value = legal_items(source, keyword) if dictionary_VR(keyword) == "SQ" else legal_value(source, keyword)
        if keyword == "TimezoneOffsetFromUTC" and not _ZONE.fullmatch(str(value)):
            continue
        if value:
            return value
    return None


def _texts(ds: Dataset) -> Iterator[str]:
    """Every text of the data set, at any depth, that the character set governs (PS3.5 6.1.2.2)."""
    for element in ds:
        if element.VR == "SQ":
            for item in element.value:
                yield from _texts(item)
        elif element.VR in TEXT_VRS and element.value is not None:
            yield from (str(part) for part in (element.value if element.VM > 1 else [element.value]))


def _can_be_written(text: str, terms: Sequence[str]) -> bool:
    if text.isascii():
        return True
    if terms[0] in _DEFAULT_REPERTOIRE and any("\x80" <= character <= "\xff" for character in text):
        return False  # pydicom takes the default repertoire for Latin-1; written so it would not be legal
    # pydicom warns of the very thing that is asked here; `logs.configure` has silenced it, `catch_warnings` is not
    # thread safe.
    encodings = charset.convert_encodings(list(terms))
    written = charset.encode_string(text, encodings)
    if len(encodings) == 1 and terms[0] not in _SEVERAL_BYTES and len(written) != len(text):
        return False  # ISO_IR 13: Python's codec knows more than the standard's term allows
    return charset.decode_bytes(written, encodings, set()) == text
