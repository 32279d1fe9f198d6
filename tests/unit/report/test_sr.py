"""The structured report: what it says, what it takes over, and what independent tools say of it."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta, timezone
from io import BytesIO
from pathlib import Path

import highdicom as hd
import pytest
from objects import (
    CASES,
    DCENTVFY,
    DCIODVFY,
    DOUBT,
    DSRDUMP,
    EQUIPMENT,
    IDENTITY,
    MODEL,
    STUDY,
    UNCALIBRATED,
    captured,
    doubted,
    errors,
    finding,
    hostile,
    made_of,
    radiograph,
    references,
    report,
    rich,
    run,
    written,
)  # fmt: skip
from pydicom import dcmread
from pydicom.data import get_charset_files
from pydicom.dataset import Dataset
from pydicom.sr.coding import Code

from pacs_agent.analyse.finding import Finding, LeftOut, ModelIdentity
from pacs_agent.errors import PacsAgentError
from pacs_agent.report import capture, codes
from pacs_agent.report.content import CaptureReference
from pacs_agent.report.header import OPTIONAL, TYPE_2
from pacs_agent.report.sr import SERIES_NUMBER, SR_CLASSES, ReportIdentity, SrClass, encode_part10

SAMPLES = Path(__file__).parents[4] / "shared" / "samples" / "dicom"


def read_back(data: bytes) -> list[tuple[object, ...]]:
    """Part, side, finding, percent, threshold of each group, and the images it names, as highdicom reads them."""
    sr = hd.sr.srread(BytesIO(data))
    parts = {code.value: part for part, code in codes.BODY_PARTS.items()}
    sides = {code.value: side for side, code in codes.LATERALITIES.items()}
    values = {code.value: value for value, code in codes.NORMALITIES.items()}
    found: list[tuple[object, ...]] = []
    for group in sr.content.get_image_measurement_groups():
        sites = group.finding_sites
        side = sites[0].ContentSequence[0].value.value if sites and "ContentSequence" in sites[0] else None
        [normality] = group.get_qualitative_evaluations(name=codes.NORMALITY)
        measurements = group.get_measurements()
        parameters = [i.TextValue for i in group[0].ContentSequence if i.name == codes.ALGORITHM_PARAMETERS]
        found.append(
            (
                parts[sites[0].value.value] if sites else None,
                sides[side] if side else None,
                values[normality.value.value],
                measurements[0].value if measurements else None,
                parameters,
                [image.referenced_sop_instance_uid for image in group.source_images],
            )
        )
    return found


def expected(findings: Sequence[Finding]) -> list[tuple[object, ...]]:
    """The same from the findings themselves."""

    def percent(probability: float | None) -> float | None:
        return None if probability is None else round(100 * probability, 2)

    groups: list[tuple[object, ...]] = []
    for f in findings:
        side = f.laterality if f.body_part else None
        uids = [image.sop_instance_uid for image in f.images]
        groups.append((f.body_part, side, f.finding, percent(f.abnormal_probability), ["threshold=0.5"], uids))
        for image in f.images:
            own = image.counted_probability if f.abnormal_probability is not None else None
            value = "undetermined"
            if own is not None and f.finding != "undetermined":
                value = "abnormal" if own > f.threshold else "normal"
            groups.append((f.body_part, side, value, percent(own), ["threshold=0.5"], [image.sop_instance_uid]))
    return groups


def comments(ds: Dataset) -> list[str]:
    """Every comment of the content tree in its order."""
    found = []
    for child in ds.get("ContentSequence", ()):
        if child.ValueType == "TEXT" and child.ConceptNameCodeSequence[0].CodeValue == codes.COMMENT.value:
            found.append(child.TextValue)
        found += comments(child)
    return found


@pytest.mark.parametrize("sr_class", SR_CLASSES)
@pytest.mark.parametrize("name", CASES)
def test_findings_read_back_equal(name: str, sr_class: SrClass) -> None:
    """What highdicom reads from the file is what the findings said, in every class."""
    sources, findings, model, predecessors = CASES[name]()
    data = encode_part10(report(sources, findings, model, predecessors, sr_class))
    assert dcmread(BytesIO(data)).SOPClassUID == SR_CLASSES[sr_class]
    assert read_back(data) == expected(findings)


@pytest.mark.dcmtk
@pytest.mark.parametrize("sr_class", SR_CLASSES)
@pytest.mark.parametrize("name", CASES)
def test_object_passes_the_validators(name: str, sr_class: SrClass, tmp_path: Path) -> None:
    """No error by dciodvfy, none by dcentvfy that the sources alone do not have, and dsrdump shows it."""
    for tool in (DCIODVFY, DCENTVFY, DSRDUMP):
        if not tool.exists():
            pytest.skip(f"{tool} is not installed")
    sources, findings, model, predecessors = CASES[name]()
    path = tmp_path / "report.dcm"
    path.write_bytes(encode_part10(report(sources, findings, model, predecessors, sr_class)))
    files = []
    for number, source in enumerate(sources):
        files.append(tmp_path / f"source{number}.dcm")
        files[-1].write_bytes(written(source))

    assert errors(run(DCIODVFY, path)[1], tmp_path) == set()
    if name not in ("hostile values", "bytes outside UTF-8"):  # there the report must differ from an illegal source
        alone = errors(run(DCENTVFY, *files)[1], tmp_path)
        assert errors(run(DCENTVFY, path, *files)[1], tmp_path) - alone == set()
    status, shown = run(DSRDUMP, path)
    assert status == 0
    assert '"Imaging Measurement Report"' in shown
    assert shown.count('"Measurement Group"') == sum(1 + f.image_count for f in findings)


@pytest.mark.dcmtk
@pytest.mark.parametrize("sample", ["HAND_kodak_cr500_J2KR", "EXTREMITY_fuji_RG3_J2KI", "EXTREMITY_fuji_RG3_J2KR"])
def test_report_of_a_real_image_passes(sample: str, tmp_path: Path) -> None:
    """The headers of real modalities give a report that the validators accept and that highdicom reads back."""
    file = SAMPLES / f"{sample}.dcm"
    if not file.exists():
        pytest.skip("the sample files are not there")
    if not DCIODVFY.exists() or not DCENTVFY.exists():
        pytest.skip("dicom3tools is not installed")
    source = dcmread(file, stop_before_pixels=True)
    findings = [finding([source], 0.8123, part="hand", side=None)]
    data = encode_part10(report([source], findings))
    path = tmp_path / "report.dcm"
    path.write_bytes(data)
    assert errors(run(DCIODVFY, path)[1], tmp_path) == set()
    assert errors(run(DCENTVFY, path, file)[1], tmp_path) - errors(run(DCENTVFY, file)[1], tmp_path) == set()
    assert read_back(data) == expected(findings)


@pytest.mark.parametrize("name", ["chrJapMulti.dcm", "chrJapMultiExplicitIR6.dcm", "chrKoreanMulti.dcm"])
def test_names_of_real_files_survive(name: str) -> None:
    """A name in a character set with code extensions reads the same from the report, in the same character set."""
    [file] = get_charset_files(name)
    source = dcmread(file, stop_before_pixels=True)
    read = dcmread(BytesIO(encode_part10(report([source], [finding([source], 0.3)]))))
    assert read.PatientName == source.PatientName
    assert read.SpecificCharacterSet == source.SpecificCharacterSet


@pytest.mark.parametrize(
    ("name", "patient", "character_set"),
    [
        ("one view", "Phantom^Paula", None),
        ("Latin-1", "Müller^Zoë", "ISO_IR 100"),
        ("UTF-8", "Łukasiewicz^Żaneta", "ISO_IR 192"),
        ("Japanese", "Yamada^Tarou=山田^太郎=やまだ^たろう", ["", "ISO 2022 IR 87"]),
        ("Korean", "Hong^Gildong=洪^吉洞=홍^길동", ["", "ISO 2022 IR 149"]),
        ("no character set declared", "Bücken^Paula", "ISO_IR 100"),
        ("bytes outside UTF-8", "B?cken^Paula", "ISO_IR 192"),
        ("unknown character set", "Bücken^Paula", "ISO_IR 100"),
        ("no type 2 elements", "", None),
    ],
)
def test_character_set_is_the_sources_where_it_can_be(name: str, patient: str, character_set: object) -> None:
    """The source's character set is kept; where it cannot say the texts, UTF-8 does, and the name is still readable."""
    sources, findings, model, _ = CASES[name]()
    read = dcmread(BytesIO(encode_part10(report(sources, findings, model))))
    assert str(read.PatientName) == patient
    assert read.get("SpecificCharacterSet") == character_set


def test_own_words_that_the_source_cannot_write_turn_to_utf_8() -> None:
    """A reason in letters the source's character set lacks is not garbled."""
    source = radiograph(SpecificCharacterSet="ISO_IR 100")
    unreadable = finding([source], 0.9, part=None, side=None, reason="SeriesDescription 'Łokieć' and 'hand' disagree")
    read = dcmread(BytesIO(encode_part10(report([source], [unreadable]))))
    assert read.SpecificCharacterSet == "ISO_IR 192"
    assert any("Łokieć" in comment for comment in comments(read))


@pytest.mark.parametrize("name", CASES)
def test_same_arguments_give_the_same_bytes(name: str) -> None:
    """Nothing in the object depends on when, or in which order of sources, it is built."""
    sources, findings, model, predecessors = CASES[name]()
    first = encode_part10(report(sources, findings, model, predecessors))
    assert encode_part10(report(sources[::-1], findings, model, predecessors)) == first


@pytest.mark.parametrize("name", CASES)
def test_sources_are_left_as_they_were(name: str) -> None:
    """The caller's data sets are the same after as before."""
    sources, findings, model, predecessors = CASES[name]()
    before = [written(source) for source in sources]
    report(sources, findings, model, predecessors)
    assert [written(source) for source in sources] == before


def test_series_and_flags() -> None:
    """The report is unverified, preliminary, in a series of its own that says what it is."""
    sources, findings, *_ = CASES["three views"]()
    ds = report(sources, findings)
    assert (ds.VerificationFlag, ds.PreliminaryFlag, ds.CompletionFlag) == ("UNVERIFIED", "PRELIMINARY", "COMPLETE")
    assert "CompletionFlagDescription" not in ds
    assert ds.SeriesDescription.startswith("AI RESEARCH - UNVERIFIED")
    assert len(ds.SeriesDescription) <= 64
    assert (ds.Modality, ds.SeriesNumber, ds.InstanceNumber) == ("SR", SERIES_NUMBER, 2)
    assert (ds.SOPInstanceUID, ds.SeriesInstanceUID) == (IDENTITY.sop_instance_uid, IDENTITY.series_instance_uid)
    assert (str(ds.ContentDate), str(ds.ContentTime)) == ("20250304", "093015.123456")
    assert (str(ds.InstanceCreationDate), str(ds.InstanceCreationTime)) == ("20250304", "093015.123456")


@pytest.mark.parametrize("name", ["partial abnormal", "partial undetermined", "nothing readable"])
def test_partial_is_said_in_flag_and_words(name: str) -> None:
    """Fewer images analysed than there are: CompletionFlag PARTIAL, and how many in words."""
    sources, findings, *_ = CASES[name]()
    ds = report(sources, findings)
    words = f"{findings[0].images_analysed} of {findings[0].image_count} images analysed"
    assert (ds.CompletionFlag, ds.CompletionFlagDescription) == ("PARTIAL", words)
    assert sum(words in comment for comment in comments(ds)) == 1
    assert "Not analysed: the JPEG 2000 stream is broken." in comments(ds)


@pytest.mark.parametrize(
    ("probabilities", "words"),
    [
        ((0.6, 0.3), "1 image alone is above the threshold; the finding rests on the mean of all."),
        ((0.3, 0.2), None),
        ((0.9, 0.3), None),
    ],
)
def test_a_normal_finding_says_that_an_image_alone_would_not_be(
    probabilities: tuple[float, float], words: str | None
) -> None:
    """Its image is marked abnormal: that is no contradiction, and is explained."""
    sources = [radiograph(1), radiograph(2)]
    told = comments(report(sources, [finding(sources, *probabilities)]))
    assert [text for text in told if "alone" in text] == ([words] if words else [])


def test_images_that_no_finding_speaks_of_are_told(tmp_path: Path) -> None:
    """Of a part that is analysed they make the report partial; of others it says so and is complete."""
    sources = [radiograph(1), radiograph(2)]
    findings = [finding(sources, 0.2, 0.3)]
    foot = LeftOut(None, 2, "BodyPartExamined 'FOOT' names foot, which is not analysed")
    ds = report(sources, findings, left_out=[foot])
    told = "2 images are not in this report: BodyPartExamined 'FOOT' names foot, which is not analysed."
    assert told in comments(ds)
    assert ds.CompletionFlag == "COMPLETE"
    side = LeftOut("wrist", 1, "ImageLaterality says right, SeriesDescription 'left' says left")
    ds = report(sources, findings, left_out=[foot, side])
    assert (ds.CompletionFlag, ds.CompletionFlagDescription) == ("PARTIAL", "2 of 3 images analysed")
    assert any(text.startswith("1 image of the wrist is not in this report: ImageLaterality") for text in comments(ds))
    if DCIODVFY.exists():
        path = tmp_path / "report.dcm"
        path.write_bytes(encode_part10(ds))
        assert errors(run(DCIODVFY, path)[1], tmp_path) == set()


def test_doubt_is_said_where_it_belongs() -> None:
    """The doubted image has no probability and says why; the group counts the others."""
    sources, findings, *_ = CASES["doubted"]()
    ds = report(sources, findings)
    assert (ds.CompletionFlag, ds.CompletionFlagDescription) == ("PARTIAL", "1 of 2 images analysed")
    assert f"Not counted: {DOUBT}." in comments(ds)
    assert [row[3] for row in read_back(encode_part10(ds))] == [90.0, 90.0, None]


@pytest.mark.parametrize("name", CASES)
def test_every_report_says_what_it_is_and_never_fracture(name: str) -> None:
    """In words: unverified, artificial intelligence, research, not for clinical use; no word of fracture."""
    sources, findings, model, predecessors = CASES[name]()
    texts = comments(report(sources, findings, model, predecessors))
    assert "Unverified result of artificial intelligence. Research software, not for clinical use." in texts
    assert not any("fracture" in text.lower() for text in texts)


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("one view", "No abnormality flagged by the model; does not exclude one."),
        ("three views", "Abnormality flagged by the model."),
        ("untrained", "Reason: the model is not trained."),
        (
            "part undetermined",
            "Reason: header sources disagree: BodyPartExamined says hand, SeriesDescription 'Becken ",
        ),
    ],
)
def test_result_in_words(name: str, sentence: str) -> None:
    """Each finding is said in the agreed sentence, an undetermined one with its reason."""
    sources, findings, model, _ = CASES[name]()
    assert any(text.startswith(sentence) for text in comments(report(sources, findings, model)))


@pytest.mark.parametrize("name", ["untrained", "part undetermined", "nothing readable", "partial undetermined"])
def test_no_claim_means_no_number(name: str) -> None:
    """A finding without a probability leaves none in the report, not in the image groups either."""
    sources, findings, model, _ = CASES[name]()
    content = hd.sr.srread(BytesIO(encode_part10(report(sources, findings, model)))).content
    assert [group.get_measurements() for group in content.get_image_measurement_groups()] == [[]] * (1 + len(sources))


@pytest.mark.parametrize(
    ("model", "name"), [(MODEL, codes.PROBABILITY), (UNCALIBRATED, codes.CERTAINTY_OF_FINDING)], ids=["cal", "uncal"]
)
def test_only_a_calibrated_model_states_a_probability(model: ModelIdentity, name: Code) -> None:
    """The number is called Probability of a calibrated model, else Certainty of Finding, in percent."""
    source = radiograph()
    data = encode_part10(report([source], [finding([source], 0.73456, model=model)], model))
    for group in hd.sr.srread(BytesIO(data)).content.get_image_measurement_groups():
        [measurement] = group.get_measurements()
        assert (measurement.name, measurement.value, measurement.unit) == (name, 73.46, codes.PERCENT)


def test_algorithm_is_identified_in_every_group() -> None:
    """Name, version with the start of the weights' hash, threshold; tracking UIDs differ from group to group."""
    sources, findings, *_ = CASES["two parts"]()
    groups = hd.sr.srread(BytesIO(encode_part10(report(sources, findings)))).content.get_image_measurement_groups()
    assert len({group.tracking_uid for group in groups}) == len(groups) == 6
    assert len({group.tracking_identifier for group in groups}) == 6
    for group in groups:
        texts = {i.name.value: i.TextValue for i in group[0].ContentSequence if i.ValueType == "TEXT"}
        assert texts[codes.ALGORITHM_NAME.value] == "demonstration"
        assert texts[codes.ALGORITHM_VERSION.value] == "1.0.0 (weights 0123456789ab)"
        assert texts[codes.ALGORITHM_PARAMETERS.value] == "threshold=0.5"


def test_evidence_names_every_image() -> None:
    """CurrentRequestedProcedureEvidenceSequence holds each source once, failed ones too."""
    sources, findings, *_ = CASES["partial abnormal"]()
    [study] = report(sources, findings).CurrentRequestedProcedureEvidenceSequence
    [series] = study.ReferencedSeriesSequence
    assert [i.ReferencedSOPInstanceUID for i in series.ReferencedSOPSequence] == [s.SOPInstanceUID for s in sources]


def test_predecessor_is_declared() -> None:
    """A later revision names the report it replaces."""
    sources, findings, model, predecessors = CASES["predecessor"]()
    [study] = report(sources, findings, model, predecessors).PredecessorDocumentsSequence
    [series] = study.ReferencedSeriesSequence
    [reference] = series.ReferencedSOPSequence
    assert (study.StudyInstanceUID, series.SeriesInstanceUID) == (STUDY, "2.25.901")
    assert reference.ReferencedSOPInstanceUID == "2.25.900"
    assert reference.ReferencedSOPClassUID == SR_CLASSES["comprehensive3d"]
    assert "PredecessorDocumentsSequence" not in report(sources, findings)


def test_patient_study_and_request_are_taken_over() -> None:
    """Patient and Study modules, the performed step, the request and the procedure come from the source."""
    source = rich()
    ds = report([source], [finding([source], 0.2)])
    for keyword in (*TYPE_2, *OPTIONAL):
        if keyword in source:
            assert ds[keyword].value == source[keyword].value, keyword
    assert ds.ReferencedPerformedProcedureStepSequence == source.ReferencedPerformedProcedureStepSequence
    [request] = ds.ReferencedRequestSequence
    assert (request.RequestedProcedureID, request.AccessionNumber, request.StudyInstanceUID) == ("RP1", "A-42", STUDY)
    assert request.RequestedProcedureCodeSequence == source.ProcedureCodeSequence
    [procedure] = [i for i in ds.ContentSequence if i.ConceptNameCodeSequence[0].CodeValue == "121058"]
    assert procedure.ConceptCodeSequence[0].CodeValue == "24889-8"


def test_time_is_in_the_zone_of_the_sources() -> None:
    """Where the sources name their zone the report's time is in it; else in that of the time given."""
    source = rich()
    ds = report([source], [finding([source], 0.2)])
    assert (ds.TimezoneOffsetFromUTC, str(ds.ContentTime)) == ("+0100", "103015.123456")
    local = datetime(2025, 3, 4, 20, 0, tzinfo=timezone(timedelta(hours=-5)))
    identity = ReportIdentity("2.25.1001", "2.25.1002", 1, local)
    plain = radiograph()
    ds = report([plain], [finding([plain], 0.2)], identity=identity)
    assert (str(ds.ContentDate), str(ds.ContentTime)) == ("20250304", "200000")
    assert "TimezoneOffsetFromUTC" not in ds
    assert str(ds.ContributingEquipmentSequence[0].ContributionDateTime) == "20250304200000.000000-0500"


def test_hostile_values_are_left_out() -> None:
    """A value that is not legal for its VR never reaches the report; what can be read of it does."""
    source = hostile()
    ds = report([source], [finding([source], 0.2)])
    assert (ds.PatientSex, ds.PatientBirthDate, ds.StudyTime) == ("", "19700102", "0815")
    for keyword in (
        "StudyDescription",
        "PatientWeight",
        "PatientAge",
        "QualityControlSubject",
        "ProcedureCodeSequence",
    ):
        assert keyword not in ds
    assert ds.ReferencedPerformedProcedureStepSequence == []


def test_identity_is_never_cut_short() -> None:
    """An accession number or patient ID too long for its VR is taken as received: shortened it would be another's."""
    source = radiograph(AccessionNumber="2008050417172310-7/B", PatientID="P" * 70)
    read = dcmread(BytesIO(encode_part10(report([source], [finding([source], 0.2)]))))
    assert (read.AccessionNumber, read.PatientID) == ("2008050417172310-7/B", "P" * 70)


def test_a_second_source_fills_what_the_first_lacks() -> None:
    """The description that only the second image has still reaches the report."""
    sources = [radiograph(1, StudyDescription=None), radiograph(2)]
    assert report(sources, [finding(sources, 0.2, 0.3)]).StudyDescription == "XR wrist"


def test_equipment_is_ours() -> None:
    """Processing Equipment with manufacturer, model, version, DeviceUID; no other library's name in the object."""
    sources, findings, *_ = CASES["one view"]()
    ds = report(sources, findings)
    [contribution] = ds.ContributingEquipmentSequence
    assert contribution.PurposeOfReferenceCodeSequence[0].CodeValue == "109102"
    assert (contribution.Manufacturer, contribution.ManufacturerModelName) == ("pacs-agent", "pacs-agent")
    assert (contribution.SoftwareVersions, contribution.DeviceUID) == ("0.1.0", "2.25.7")
    assert ds.file_meta.ImplementationVersionName == "PACS_AGENT 0.1.0"
    assert b"highdicom" not in encode_part10(ds)


@pytest.mark.parametrize(
    "sources",
    [[], [radiograph(1)], [radiograph(1), radiograph(2), radiograph(3)], [radiograph(1), radiograph(3)]],
    ids=["none", "too few", "too many", "others"],
)
def test_sources_must_be_those_of_the_findings(sources: list[Dataset]) -> None:
    """Evidence that the findings do not name, or lack of it, is refused."""
    named = [radiograph(1), radiograph(2)]
    with pytest.raises(PacsAgentError, match="not the images"):
        report(sources, [finding(named, 0.2, 0.3)])


def test_sources_of_two_studies_are_refused() -> None:
    """One report is of one study."""
    sources = [radiograph(1), radiograph(2, StudyInstanceUID="1.2.3")]
    with pytest.raises(PacsAgentError, match="one study"):
        report(sources, [finding(sources, 0.2, 0.3)])


def test_time_without_zone_is_refused() -> None:
    """A time that could be any is not written."""
    source = radiograph()
    naive = ReportIdentity("2.25.1", "2.25.2", 1, datetime(2025, 3, 4))  # noqa: DTZ001 - that is the point
    with pytest.raises(PacsAgentError, match="zone"):
        report([source], [finding([source], 0.2)], identity=naive)


@pytest.mark.dcmtk
@pytest.mark.parametrize("sr_class", SR_CLASSES)
@pytest.mark.parametrize("name", CASES)
def test_every_object_passes_the_validators(name: str, sr_class: SrClass, tmp_path: Path) -> None:
    """No error by dciodvfy in any object of a study, none by dcentvfy that the sources lack, and all read back."""
    for tool in (DCIODVFY, DCENTVFY, DSRDUMP):
        if not tool.exists():
            pytest.skip(f"{tool} is not installed")
    case = CASES[name]()
    sources, findings, *_ = case
    explained = sum(len(each.explained) for each in findings)
    objects, files = [], []
    for number, each in enumerate(made_of(case, sr_class)):
        objects.append(tmp_path / f"object{number}.dcm")
        objects[-1].write_bytes(encode_part10(each))
        assert errors(run(DCIODVFY, objects[-1])[1], tmp_path) == set()
    for number, source in enumerate(sources):
        files.append(tmp_path / f"source{number}.dcm")
        files[-1].write_bytes(written(source))
    if name not in ("hostile values", "bytes outside UTF-8"):  # there the objects must differ from an illegal source
        alone = errors(run(DCENTVFY, *files)[1], tmp_path)
        assert errors(run(DCENTVFY, *objects, *files)[1], tmp_path) - alone == set()
    status, shown = run(DSRDUMP, objects[-1])
    assert status == 0
    assert shown.count('"Visual explanation"') == shown.count('"Gradient-weighted class activation"') == explained
    assert read_back(objects[-1].read_bytes()) == expected(findings)
    pictures = [path for path in objects if dcmread(path).SOPClassUID == capture.CAPTURE_CLASS]
    assert len(pictures) == explained
    for path in pictures:
        assert hd.imread(path).pixel_array.tobytes() == bytes(range(63))


@pytest.mark.parametrize("modality", ["CR", "DX"])
def test_a_capture_reads_back(modality: str, tmp_path: Path) -> None:
    """highdicom reads pixels, source, derivation and side; nothing claims an orientation or a scale."""
    source = radiograph(modality=modality, PatientOrientation=["P", "F"], ImagerPixelSpacing=["0.1", "0.1"])
    (made,) = captured([source], [finding([source], 0.9)], MODEL)
    path = tmp_path / "capture.dcm"
    path.write_bytes(encode_part10(made))
    image = hd.imread(path)
    assert bytes(image.pixel_array.tobytes()) == bytes(range(63))
    assert image.ImageType == ["DERIVED", "SECONDARY"]
    assert (image.BurnedInAnnotation, image.Laterality, image.BodyPartExamined) == ("YES", "R", "WRIST")
    assert image.SeriesDescription.startswith("AI RESEARCH - UNVERIFIED")
    assert (image.SeriesNumber, image.InstanceNumber) == (9002, 1)
    (named,) = image.SourceImageSequence
    assert (named.ReferencedSOPClassUID, named.ReferencedSOPInstanceUID) == (source.SOPClassUID, source.SOPInstanceUID)
    assert [item.CodeValue for item in image.DerivationCodeSequence] == ["113085", "113042"]
    assert image.PatientOrientation == ["P", "F"]  # the picture was not turned
    assert "ImagerPixelSpacing" not in image
    assert "PixelSpacing" not in image
    assert image.ContributingEquipmentSequence[0].DeviceUID == EQUIPMENT.device_uid


def test_what_a_capture_does_not_know_it_does_not_say() -> None:
    """Without an orientation, or with one that is none, it is empty; a side that is not one side is empty."""
    for orientation in (None, "A", ["x", "y", "z"]):
        source = radiograph(PatientOrientation=orientation) if orientation else radiograph()
        (made,) = captured([source], [finding([source], 0.9, side="B")], MODEL)
        assert not made.PatientOrientation
        assert made.Laterality == ""


def test_what_was_lost_stays_lost() -> None:
    """The capture of a picture that was compressed with loss says so."""
    source = radiograph(LossyImageCompression="01")
    (made,) = captured([source], [finding([source], 0.9)], MODEL)
    assert made.LossyImageCompression == "01"
    (made,) = captured([radiograph()], [finding([radiograph()], 0.9)], MODEL)
    assert "LossyImageCompression" not in made


def test_only_what_an_abnormal_finding_rests_on_is_explained() -> None:
    """Neither a normal finding nor an image that did not count has a heat map."""
    sources = [radiograph(number) for number in (1, 2, 3)]
    assert finding(sources, 0.1, 0.2, 0.1).explained == ()
    partial = finding(sources, 0.9, None, 0.8)
    assert [image.sop_instance_uid for image in partial.explained] == [
        sources[0].SOPInstanceUID,
        sources[2].SOPInstanceUID,
    ]
    images, (abnormal,) = doubted()[:2]
    assert [image.sop_instance_uid for image in abnormal.explained] == [images[0].SOPInstanceUID]


def _explains(item: Dataset) -> bool:
    return item.ConceptNameCodeSequence[0].CodeValue == codes.VISUAL_EXPLANATION.value


def test_report_names_each_heat_map_in_its_image_group() -> None:
    """The picture stands in the group of its image and in the evidence; what could not be made is said in words."""
    sources = [radiograph(number) for number in (1, 2)]
    findings = [finding(sources, 0.9, 0.8)]
    first, _ = captured(sources, findings, MODEL)
    named: dict[str, CaptureReference | str] = {**references([first]), sources[1].SOPInstanceUID: "it is cut short"}
    ds = report(sources, findings, captures=named)
    _, one, other = hd.sr.srread(BytesIO(encode_part10(ds))).content.get_image_measurement_groups()
    maps = [
        [i.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for i in group[0].ContentSequence if _explains(i)]
        for group in (one, other)
    ]
    assert maps == [[first.SOPInstanceUID], []]
    assert "No heat map: it is cut short." in comments(ds)
    (study,) = ds.CurrentRequestedProcedureEvidenceSequence
    evidence = {
        reference.ReferencedSOPInstanceUID
        for series in study.ReferencedSeriesSequence
        for reference in series.ReferencedSOPSequence
    }
    assert evidence == {first.SOPInstanceUID, *(source.SOPInstanceUID for source in sources)}


@pytest.mark.parametrize(("model", "word"), [(MODEL, "probability"), (UNCALIBRATED, "certainty of finding")])
def test_footer_says_what_a_reader_must_know(model: ModelIdentity, word: str) -> None:
    """Part, side, which image, what number it is, the model with its weights; attention is no location."""
    sources = [radiograph(number) for number in (1, 2)]
    abnormal = finding(sources, 0.95, 0.75, model=model)
    seen = replace(abnormal.images[1], attention=3.5)
    abnormal = replace(abnormal, images=(abnormal.images[0], seen))
    lines = capture.caption(abnormal, seen, model, EQUIPMENT)
    assert lines == (
        "Shows model attention, not lesion location.",
        f"Wrist, right · image 2 of 2: {word} 75.0 % · finding: abnormal, {word} 85.0 %, threshold 50.0 %",
        "demonstration 1.0.0 (weights 0123456789ab) · pacs-agent 0.1.0",
    )
    nothing = capture.caption(abnormal, abnormal.images[0], model, EQUIPMENT)
    assert "Nothing in this image spoke for an abnormality." in nothing
    assert capture.full_scale(abnormal) == 3.5
    assert "UNVERIFIED" in capture.TITLE


def test_a_picture_that_is_not_the_images_is_refused() -> None:
    """Too few bytes, or another image's header, make no object."""
    sources = [radiograph(number) for number in (1, 2)]
    abnormal = finding(sources, 0.9, 0.8)
    for source, rgb in ((sources[1], bytes(63)), (sources[0], bytes(62))):
        with pytest.raises(PacsAgentError, match="not that of its image"):
            capture.secondary_capture(abnormal, abnormal.images[0], source, (7, 3, rgb), MODEL, EQUIPMENT, IDENTITY)
