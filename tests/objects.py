"""Every object of every kind: studies as findings of synthetic headers, what is made of them, and who judges it."""

import copy
import itertools
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from functools import partial
from io import BytesIO
from pathlib import Path

from pydicom import dcmread, dcmwrite
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

from pacs_agent.analyse.finding import Finding, ImageOutcome, LeftOut, ModelIdentity, decide
from pacs_agent.report import capture
from pacs_agent.report.content import CaptureReference
from pacs_agent.report.header import TYPE_2
from pacs_agent.report.sr import SR_CLASSES, Equipment, Predecessor, ReportIdentity, SrClass, structured_report

DCIODVFY, DCENTVFY, DSRDUMP = (Path("/usr/bin") / tool for tool in ("dciodvfy", "dcentvfy", "dsrdump"))
STUDY = "1.2.826.0.1.3680043.10.1.1"
MODEL = ModelIdentity("demonstration", "1.0.0", "0123456789abcdef" * 4, True, True, False)
UNTRAINED = ModelIdentity("demonstration", "1.0.0", "0123456789abcdef" * 4, False, False, True)
UNCALIBRATED = ModelIdentity("demonstration", "1.0.0", "0123456789abcdef" * 4, True, False, False)
EQUIPMENT = Equipment(device_uid="2.25.7", station_name="PACS_AGENT", software_version="0.1.0")
IDENTITY = ReportIdentity("2.25.1001", "2.25.1002", 2, datetime(2025, 3, 4, 9, 30, 15, 123456, tzinfo=UTC))
DOUBT = "header says wrist, picture looks like hand, 0.97"
PREDECESSOR = Predecessor(SR_CLASSES["comprehensive3d"], "2.25.900", "2.25.901", STUDY)


def radiograph(number: int = 1, *, modality: str = "DX", **elements: object) -> Dataset:
    """The header of a synthetic radiograph."""
    ds = Dataset()
    ds.SOPClassUID = ComputedRadiographyImageStorage if modality == "CR" else DigitalXRayImageStorageForPresentation
    ds.SOPInstanceUID = f"{STUDY}.2.{number}"
    ds.SeriesInstanceUID = f"{STUDY}.3"
    ds.StudyInstanceUID = STUDY
    ds.Modality = modality
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "Phantom^Paula", "P-17", "19700102", "F"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20250304", "081500", "S1", "A-42"
    ds.ReferringPhysicianName = "Reed^Ria"
    ds.StudyDescription = "XR wrist"
    ds.SeriesNumber, ds.InstanceNumber = 1, number
    ds.Manufacturer = "Phantom"
    ds.ViewPosition = "PA" if number % 2 else "LL"
    ds.Rows, ds.Columns = 2500, 2048
    for keyword, value in elements.items():
        if value is None:
            del ds[keyword]
        else:
            setattr(ds, keyword, value)
    return ds


def item(**elements: object) -> Dataset:
    """An item of a sequence."""
    ds = Dataset()
    for keyword, value in elements.items():
        setattr(ds, keyword, value)
    return ds


def written(ds: Dataset, replace: tuple[bytes, bytes] | None = None) -> bytes:
    """The bytes of *ds* as a file, as a modality would have sent it; with bytes of the same length exchanged."""
    ds = copy.deepcopy(ds)
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    buffer = BytesIO()
    dcmwrite(buffer, ds, enforce_file_format=True)
    data = buffer.getvalue()
    if replace:
        assert data.count(replace[0]) == 1
        assert len(replace[0]) == len(replace[1])
        data = data.replace(*replace)
    return data


def broken(replacement: bytes, **elements: object) -> Dataset:
    """A radiograph read from a file whose patient name holds *replacement* instead of `B#cken`."""
    ds = radiograph(PatientName="B#cken^Paula", **elements)
    return dcmread(BytesIO(written(ds, (b"B#cken", replacement))))


def outcomes(sources: Sequence[Dataset], *probabilities: float | None) -> tuple[ImageOutcome, ...]:
    """One outcome for each source; None: it could not be read."""
    return tuple(
        ImageOutcome(source.SOPInstanceUID, source.SeriesInstanceUID, "failed", reason="the JPEG 2000 stream is broken")
        if probability is None
        else ImageOutcome(source.SOPInstanceUID, source.SeriesInstanceUID, "analysed", probability)
        for source, probability in zip(sources, probabilities, strict=True)
    )


def finding(
    sources: Sequence[Dataset],
    *probabilities: float | None,
    part: str | None = "wrist",
    side: str | None = "R",
    model: ModelIdentity = MODEL,
    reason: str | None = None,
) -> Finding:
    """One finding of all the sources."""
    images = outcomes(sources, *probabilities)
    return decide(part, side, images, 0.5, model, quality_control_subject=False, reason=reason)


def report(
    sources: Sequence[Dataset],
    findings: Sequence[Finding],
    model: ModelIdentity = MODEL,
    predecessors: Sequence[Predecessor] = (),
    sr_class: SrClass = "comprehensive3d",
    identity: ReportIdentity = IDENTITY,
    captures: dict[str, CaptureReference | str] | None = None,
    left_out: Sequence[LeftOut] = (),
) -> Dataset:
    """The report of these findings."""
    return structured_report(
        findings,
        sources,
        model,
        EQUIPMENT,
        identity,
        predecessors=predecessors,
        captures=captures,
        left_out=left_out,
        sr_class=sr_class,
    )


def captured(sources: Sequence[Dataset], findings: Sequence[Finding], model: ModelIdentity) -> list[Dataset]:
    """The captures of what is abnormal: seven rows and three columns, an odd number of bytes."""
    headers = {source.SOPInstanceUID: source for source in sources}
    return [
        capture.secondary_capture(
            each,
            image,
            headers[image.sop_instance_uid],
            (7, 3, bytes(range(63))),
            model,
            EQUIPMENT,
            ReportIdentity(f"2.25.20{number}{place}", f"2.25.30{number}", 2, IDENTITY.created_at),
            series_number=capture.FIRST_SERIES_NUMBER + number,
        )
        for number, each in enumerate(findings)
        for place, image in enumerate(each.explained)
    ]


def references(made: Sequence[Dataset]) -> dict[str, CaptureReference | str]:
    """The captures as the report names them."""
    return {
        ds.SourceImageSequence[0].ReferencedSOPInstanceUID: CaptureReference(ds.SOPInstanceUID, ds.SeriesInstanceUID)
        for ds in made
    }


def made_of(case: "Case", sr_class: SrClass) -> list[Dataset]:
    """Every object that is made of a case, the report last of all: a further kind of object joins here."""
    sources, findings, model, predecessors = case
    captures = captured(sources, findings, model)
    return [
        *captures,
        report(sources, findings, model, predecessors, sr_class, captures=references(captures)),
    ]


Case = tuple[list[Dataset], list[Finding], ModelIdentity, tuple[Predecessor, ...]]


def _views(count: int, *probabilities: float | None, **elements: object) -> Case:
    sources = [radiograph(number, **elements) for number in range(1, count + 1)]
    return sources, [finding(sources, *probabilities)], MODEL, ()


def _groups(*groups: tuple[str, str | None]) -> Case:
    sources = [radiograph(number, modality="CR") for number in range(1, 2 * len(groups) + 1)]
    findings = [
        finding(sources[2 * index : 2 * index + 2], 0.2, 0.9 - index / 2, part=part, side=side)
        for index, (part, side) in enumerate(groups)
    ]
    return sources, findings, MODEL, ()


def _disagreeing() -> Case:
    sources = [radiograph(SpecificCharacterSet="ISO_IR 100")]
    reason = "header sources disagree: BodyPartExamined says hand, SeriesDescription 'Becken groß' says nothing known"
    return sources, [finding(sources, 0.9, part=None, side=None, reason=reason)], MODEL, ()


def doubted() -> Case:
    """Of two images the guard stops one."""
    sources = [radiograph(number) for number in (1, 2)]
    first, second = outcomes(sources, 0.9, 0.8)
    images = (first, replace(second, doubt=DOUBT))
    return sources, [decide("wrist", "R", images, 0.5, MODEL, quality_control_subject=False)], MODEL, ()


def _model(model: ModelIdentity) -> Case:
    sources = [radiograph(1), radiograph(2)]
    return sources, [finding(sources, 0.9, 0.4, model=model)], model, ()


def _from(*sources: Dataset) -> Case:
    return list(sources), [finding(sources, *[0.7] * len(sources))], MODEL, ()


def rich() -> Dataset:
    """A header with every module that is taken over."""
    procedure = item(CodeValue="24889-8", CodingSchemeDesignator="LN", CodeMeaning="XR Wrist Views")
    step = item(ReferencedSOPClassUID="1.2.840.10008.3.1.2.3.3", ReferencedSOPInstanceUID="1.2.3.4")
    request = item(
        RequestedProcedureID="RP1",
        RequestedProcedureDescription="Handgelenk in 2 Ebenen",
        AccessionNumber="A-42",
        RequestedProcedureCodeSequence=[procedure],
        ScheduledProcedureStepID="SPS1",
    )
    return radiograph(
        IssuerOfPatientID="HOSPITAL",
        QualityControlSubject="YES",
        PatientAge="055Y",
        PatientWeight="70.5",
        OtherPatientIDsSequence=[item(PatientID="X9", TypeOfPatientID="TEXT", IssuerOfPatientID="OTHER")],
        ProcedureCodeSequence=[procedure],
        ReferencedPerformedProcedureStepSequence=[step],
        RequestAttributesSequence=[request],
        IssuerOfAccessionNumberSequence=[item(LocalNamespaceEntityID="RIS")],
        TimezoneOffsetFromUTC="+0100",
        ImageLaterality="R",
        ViewCodeSequence=[item(CodeValue="399348003", CodingSchemeDesignator="SCT", CodeMeaning="antero-posterior")],
    )


def hostile() -> Dataset:
    """A header whose values are not legal."""
    ds = radiograph(
        PatientSex="W",
        PatientBirthDate="1970.01.02",
        StudyTime="08:15",
        StudyDescription="x" * 80,
        PatientWeight="70.5",
        PatientAge="55",
        QualityControlSubject="MAYBE",
        PatientIdentityRemoved="YES",
        ProcedureCodeSequence=[item(CodeValue="1234", CodingSchemeDesignator="99LOCAL")],
        ReferencedStudySequence=[Dataset()],
        ReferencedPerformedProcedureStepSequence=[Dataset()],
        RequestAttributesSequence=[Dataset()],
        OtherPatientIDsSequence=[item(PatientID="X9")],
    )
    return dcmread(BytesIO(written(ds, (b"70.5", b"much"))))


def _combined(modality: str, views: int, parts: int) -> Case:
    """*views* images of each of *parts* body parts, the first abnormal, as this modality sends them."""
    sources = [radiograph(number, modality=modality) for number in range(1, views * parts + 1)]
    findings = [
        finding(sources[index * views : (index + 1) * views], *[0.9 - index / 2] * views, part=part, side=side)
        for index, (part, side) in enumerate([("wrist", "R"), ("hand", None)][:parts])
    ]
    return sources, findings, MODEL, ()


def _bare(modality: str) -> Dataset:
    """A header with what makes an image and nothing that describes it."""
    absent = ("StudyDescription", "SeriesNumber", "InstanceNumber", "Manufacturer", "ViewPosition", "Rows", "Columns")
    return radiograph(modality=modality, **dict.fromkeys((*TYPE_2, *absent)))


CASES: dict[str, Callable[[], Case]] = {
    **{
        f"{modality}, {views} by {parts}": partial(_combined, modality, views, parts)
        for modality, views, parts in itertools.product(("CR", "DX"), (1, 3), (1, 2))
    },
    "bare CR": lambda: _from(_bare("CR")),
    "bare DX": lambda: _from(_bare("DX")),
    "one view": lambda: _views(1, 0.12),
    "three views": lambda: _views(3, 0.9, 0.2, 0.6, modality="CR"),
    "two parts": lambda: _groups(("wrist", "L"), ("hand", "L")),
    "two sides": lambda: _groups(("elbow", "R"), ("elbow", "L")),
    "both sides": lambda: _groups(("shoulder", "B")),
    "no side": lambda: _groups(("humerus", None)),
    "part undetermined": _disagreeing,
    "partial abnormal": lambda: _views(3, 0.9, None, 0.8),
    "partial undetermined": lambda: _views(3, 0.1, 0.2, None),
    "nothing readable": lambda: _views(2, None, None),
    "doubted": doubted,
    "untrained": lambda: _model(UNTRAINED),
    "uncalibrated": lambda: _model(UNCALIBRATED),
    "no type 2 elements": lambda: _from(radiograph(**dict.fromkeys(TYPE_2))),
    "every module": lambda: _from(rich()),
    "hostile values": lambda: _from(hostile()),
    "Latin-1": lambda: _from(radiograph(SpecificCharacterSet="ISO_IR 100", PatientName="Müller^Zoë")),
    "UTF-8": lambda: _from(radiograph(SpecificCharacterSet="ISO_IR 192", PatientName="Łukasiewicz^Żaneta")),
    "Japanese": lambda: _from(
        radiograph(SpecificCharacterSet=["", "ISO 2022 IR 87"], PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう")
    ),
    "Korean": lambda: _from(
        radiograph(SpecificCharacterSet=["", "ISO 2022 IR 149"], PatientName="Hong^Gildong=洪^吉洞=홍^길동")
    ),
    "no character set declared": lambda: _from(broken(b"B\xfccken")),
    "bytes outside UTF-8": lambda: _from(broken(b"B\xfccken", SpecificCharacterSet="ISO_IR 192")),
    "unknown character set": lambda: _from(broken(b"B\xfccken", SpecificCharacterSet="ISO_IR 999")),
    "predecessor": lambda: (*_views(1, 0.9)[:3], (PREDECESSOR,)),
}


def run(*command: Path) -> tuple[int, str]:
    """Exit status and all that a program says."""
    done = subprocess.run([str(part) for part in command], capture_output=True, check=False)
    return done.returncode, (done.stdout + done.stderr).decode("latin-1")


def errors(output: str, directory: Path) -> set[str]:
    """The error lines, without the names of files."""
    return {line.split(" for file ")[0] for line in output.replace(str(directory), "").splitlines() if "Error" in line}
