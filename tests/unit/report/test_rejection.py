"""The rejection note of our own objects: what it names, whose it is, and what independent tools say of it."""

import subprocess
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path

import highdicom as hd
import pytest
from peers import dcmtk
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import SecondaryCaptureImageStorage
from radiographs import cr

from pacs_agent.analyse.finding import ImageOutcome, ModelIdentity, decide
from pacs_agent.errors import PacsAgentError
from pacs_agent.phantom.dataset import study
from pacs_agent.report.capture import secondary_capture
from pacs_agent.report.content import CaptureReference, Equipment
from pacs_agent.report.header import TYPE_2
from pacs_agent.report.rejection import SERIES_NUMBER, Rejected, rejection_note
from pacs_agent.report.signature import ReportIdentity, encode_part10
from pacs_agent.report.sr import structured_report
from pacs_agent.study.eligibility import EligibilityRules, assess
from pacs_agent.study.instance import Instance

MODEL = ModelIdentity("net", "1", "0123456789abcdef" * 4, True, True, False)
EQUIPMENT = Equipment(device_uid="2.25.7", station_name="PACS_AGENT", software_version="0.1.0")
MADE_AT = datetime(2025, 3, 4, 9, 30, 15, 123456, tzinfo=UTC)
IDENTITY = ReportIdentity("2.25.2001", "2.25.2002", 3, datetime(2025, 3, 5, 8, 0, 1, 500, tzinfo=UTC))


def _request() -> Dataset:
    request = Dataset()
    request.RequestedProcedureID, request.AccessionNumber = "RP-1", "ACC1"
    return request


CASES: dict[str, Callable[[], Sequence[Dataset]]] = {
    "CR": lambda: study("hand", seed=1, abnormal=True, views=1, kind="CR", longest_side=64),
    "three DX": lambda: study("wrist", seed=2, abnormal=True, views=3, kind="DX", longest_side=64),
    "no type 2 elements": lambda: [cr(**dict.fromkeys(TYPE_2))],
    "request and zone": lambda: [cr(RequestAttributesSequence=[_request()], TimezoneOffsetFromUTC="+0930")],
    "Latin-1": lambda: [cr(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Zoë")],
    "UTF-8": lambda: [cr(SpecificCharacterSet="ISO_IR 192", PatientName="Łukasiewicz^Żaneta")],
    "Japanese": lambda: [
        cr(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう")
    ],
}


def objects(name: str) -> tuple[Sequence[Dataset], list[Dataset]]:
    """The images of a case, and our objects of an abnormal finding in them, the report last, as the outbox has them."""
    sources = CASES[name]()
    outcomes = [
        ImageOutcome(str(ds.SOPInstanceUID), str(ds.SeriesInstanceUID), "analysed", 0.9, attention=3.0)
        for ds in sources
    ]
    finding = decide("hand", "R", outcomes, 0.5, MODEL, quality_control_subject=True)
    captures = [
        secondary_capture(
            finding, outcome, ds, (7, 3, bytes(63)), MODEL, EQUIPMENT,
            ReportIdentity(f"2.25.30{number}", "2.25.300", 1, MADE_AT),
        )
        for number, (outcome, ds) in enumerate(zip(outcomes, sources, strict=True), 1)
    ]  # fmt: skip
    named: dict[str, CaptureReference | str] = {
        str(ds.SOPInstanceUID): CaptureReference(str(made.SOPInstanceUID), "2.25.300")
        for ds, made in zip(sources, captures, strict=True)
    }
    report = structured_report(
        [finding], sources, MODEL, EQUIPMENT, ReportIdentity("2.25.1001", "2.25.1002", 1, MADE_AT), captures=named
    )
    return sources, [dcmread(BytesIO(encode_part10(each))) for each in (*captures, report)]


def said(tool: str, *files: Path) -> set[str]:
    """The error lines of a validator, without the names of files."""
    done = subprocess.run([dcmtk(tool), *map(str, files)], capture_output=True, check=False)
    lines = (done.stdout + done.stderr).decode("latin-1").replace(str(files[0].parent), "").splitlines()
    return {line.split(" for file ")[0] for line in lines if "Error" in line}


def note(sent: list[Dataset], reason: str = "wrong patient") -> Dataset:
    """A note of those objects."""
    rejected = [Rejected(str(ds.SOPClassUID), str(ds.SOPInstanceUID), str(ds.SeriesInstanceUID)) for ds in sent]
    return rejection_note(rejected, sent[-1], reason, EQUIPMENT, IDENTITY)


@pytest.mark.dcmtk
@pytest.mark.parametrize("name", CASES)
def test_note_passes_the_validators(name: str, tmp_path: Path) -> None:
    """No error by dciodvfy, none by dcentvfy beside our objects that the sources lack, and dsrdump shows it."""
    sources, sent = objects(name)
    path, *others = files = [tmp_path / f"object{number}.dcm" for number in range(len(sent) + 1)]
    images = [tmp_path / f"source{number}.dcm" for number in range(len(sources))]
    path.write_bytes(encode_part10(note(sent)))
    for file, ds in zip((*others, *images), (*sent, *sources), strict=True):
        ds.save_as(file, enforce_file_format=True)
    assert said("dciodvfy", path) == set()
    assert said("dcentvfy", *files, *images) - said("dcentvfy", *images) == set()
    shown = subprocess.run([dcmtk("dsrdump"), str(path)], capture_output=True, check=True).stdout
    assert b'"Rejected for Quality Reasons"' in shown


@pytest.mark.parametrize("name", CASES)
def test_note_reads_back(name: str) -> None:
    """highdicom and our own listener find in it exactly the objects, pictures as pictures, and the reason in words."""
    _, sent = objects(name)
    read = hd.ko.KeyObjectSelectionDocument.from_dataset(dcmread(BytesIO(encode_part10(note(sent)))))
    uids = [str(ds.SOPInstanceUID) for ds in sent]
    found = read.content.get_references()
    assert [item.referenced_sop_instance_uid for item in found] == uids
    assert [item.value_type.value == "IMAGE" for item in found] == [
        ds.SOPClassUID == SecondaryCaptureImageStorage for ds in sent
    ]
    for ds in sent:
        assert read.resolve_reference(ds.SOPInstanceUID) == (
            ds.StudyInstanceUID, ds.SeriesInstanceUID, ds.SOPInstanceUID,
        )  # fmt: skip
    [description] = [item for item in read.content[0].ContentSequence if item.name.value == "113012"]
    assert description.TextValue == "AI result withdrawn: wrong patient"
    facts = Instance.from_dataset(read)
    assert facts.rejection == "113001"
    assert sorted(each.sop_instance_uid for each in facts.rejects) == sorted(uids)
    assert assess(facts, EligibilityRules(), datetime(2025, 3, 5, tzinfo=UTC).date()).status == "ignored"


@pytest.mark.parametrize("name", CASES)
def test_note_is_of_the_patient_that_its_objects_are_of(name: str) -> None:
    """Patient, study, request and character set are those of the report that it names; the equipment is ours."""
    _, sent = objects(name)
    made, of = dcmread(BytesIO(encode_part10(note(sent)))), sent[-1]
    for keyword in (
        *("PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate", "PatientSex", "StudyInstanceUID"),
        *("StudyDate", "StudyTime", "AccessionNumber", "ReferringPhysicianName", "StudyID", "StudyDescription"),
        *("SpecificCharacterSet", "ReferencedRequestSequence", "ReferencedPerformedProcedureStepSequence"),
        *("Manufacturer", "ManufacturerModelName", "StationName", "SoftwareVersions", "TimezoneOffsetFromUTC"),
    ):
        assert made.get(keyword) == of.get(keyword), keyword
    [equipment], [theirs] = made.ContributingEquipmentSequence, of.ContributingEquipmentSequence
    assert equipment.DeviceUID == theirs.DeviceUID
    assert equipment.PurposeOfReferenceCodeSequence == theirs.PurposeOfReferenceCodeSequence
    assert (made.Modality, made.SeriesNumber, made.InstanceNumber) == ("KO", SERIES_NUMBER, 3)
    assert (made.SeriesInstanceUID, made.SOPInstanceUID) == ("2.25.2002", "2.25.2001")


def test_same_arguments_give_the_same_bytes() -> None:
    """And the header that was given is as it was."""
    _, sent = objects("three DX")
    before = encode_part10(sent[-1])
    assert encode_part10(note(sent)) == encode_part10(note(sent))
    assert encode_part10(sent[-1]) == before


def test_reason_of_any_letters() -> None:
    """It is written in a character set that has them; what cannot be printed is a blank."""
    _, sent = objects("CR")
    made = dcmread(BytesIO(encode_part10(note(sent, "ошибка\x1b[31m\n\ud800 患者"))))
    [text] = [item.TextValue for item in made.ContentSequence if "TextValue" in item and "AI result" in item.TextValue]
    assert text == "AI result withdrawn: ошибка [31m 患者"
    assert made.SpecificCharacterSet == "ISO_IR 192"


def test_header_of_an_image_will_do() -> None:
    """Where our own objects are gone: patient, study and request come from the image."""
    [source] = CASES["request and zone"]()
    made = rejection_note([Rejected("1.2", "2.25.1", "2.25.2")], source, "wrong side", EQUIPMENT, IDENTITY)
    assert (made.PatientID, made.AccessionNumber) == ("PHANTOM-1", "ACC1")
    assert made.ReferencedRequestSequence[0].RequestedProcedureID == "RP-1"
    assert str(made.ContentTime).startswith("1730")


def test_note_of_nothing_is_refused() -> None:
    """It would take back nothing."""
    with pytest.raises(PacsAgentError, match="names nothing"):
        rejection_note([], cr(), "wrong side", EQUIPMENT, IDENTITY)
