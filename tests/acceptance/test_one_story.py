"""`show`, dsrdump and the report itself: whatever is odd about a study, they tell one story."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import highdicom as hd
import pytest
from commands import runner
from peers import DaemonProcess, dcmtk, free_port, wait_for, write_config
from pydicom import dcmread
from pydicom.dataset import Dataset, FileDataset
from pydicom.uid import ExplicitVRLittleEndian
from radiographs import cr, hand

from pacs_agent.deliver.files import Peer, send_files
from pacs_agent.demonstration import LESIONS
from pacs_agent.phantom.dataset import study, write_study
from pacs_agent.report import codes

pytestmark = pytest.mark.dcmtk

SAME = ("StudyInstanceUID", "PatientID", "PatientName", "PatientBirthDate", "PatientSex", "AccessionNumber")
"""What makes instances one study of one person."""
WRIST = Dataset()
WRIST.CodeValue, WRIST.CodingSchemeDesignator, WRIST.CodeMeaning = "74670003", "SCT", "Wrist"


def phantom(part: str, seed: int, **more: Any) -> list[FileDataset]:
    """A phantom's study, abnormal where the demonstration's is."""
    return study(
        part, seed=seed, abnormal=part in LESIONS, lesion=LESIONS.get(part), longest_side=512,
        transfer_syntax_uid=ExplicitVRLittleEndian, **more,
    )  # fmt: skip


def together(*instances: FileDataset) -> list[FileDataset]:
    """All of one study: the first's."""
    for ds in instances[1:]:
        for keyword in SAME:
            setattr(ds, keyword, getattr(instances[0], keyword))
    return list(instances)


def cut(ds: FileDataset) -> FileDataset:
    """Its pixel data ends early."""
    ds.PixelData = ds.PixelData[:1000]
    return ds


def quality(make: Callable[..., FileDataset] = hand, **elements: Any) -> FileDataset:
    """An image that a phantoms' model may judge."""
    return make(QualityControlSubject="YES", **elements)


STUDIES: dict[str, Callable[[], list[FileDataset]]] = {
    "normal": lambda: phantom("hand", 3),
    "abnormal": lambda: phantom("elbow", 0),
    "two parts": lambda: together(*phantom("elbow", 10), *phantom("hand", 13)),
    "both sides": lambda: together(*phantom("finger", 21, laterality="R"), *phantom("finger", 22, laterality="L")),
    "stopped by the guard": lambda: together(quality(cr, seed=1), quality(cr, seed=2)),
    "stopped by the guard in part": lambda: together(*phantom("humerus", 34), quality(cr, BodyPartExamined="HUMERUS")),
    "header and picture disagree": lambda: together(quality(BodyPartExamined="ELBOW", seed=1)),
    "abnormal, read in part": lambda: together((images := phantom("forearm", 2))[0], cut(images[1])),
    "not abnormal, read in part": lambda: together(quality(seed=1), cut(quality(seed=2))),
    "nothing read": lambda: together(cut(quality())),
    "sides contradict in one image": lambda: together(quality(seed=1), quality(seed=2, ImageLaterality="L")),
    "header sources contradict": lambda: together(quality(AnatomicRegionSequence=[WRIST])),
    "a foot beside the hand": lambda: together(quality(seed=1), quality(seed=2, BodyPartExamined="FOOT")),
    **{
        f"umlauts in {name}": lambda name=name: together(
            quality(seed=1, SpecificCharacterSet=name, PatientName="Müller^Jörg"),
            quality(seed=2, SpecificCharacterSet=name, BodyPartExamined="", SeriesDescription="Fuß rechts"),
        )
        for name in ("ISO_IR 100", "ISO_IR 192")
    },
    "of a patient": lambda: together(hand(seed=1), hand(seed=2)),
}


@pytest.fixture(scope="module")
def studies() -> dict[str, list[FileDataset]]:
    """Each made once."""
    return {name: make() for name, make in STUDIES.items()}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory, studies: dict[str, list[FileDataset]]) -> Iterator[DaemonProcess]:
    """A daemon without a destination that has analysed them all."""
    port = free_port()
    running = DaemonProcess(write_config(tmp_path_factory.mktemp("agent"), port), port)
    running.start()
    folder = tmp_path_factory.mktemp("modality")
    for name, instances in studies.items():
        write_study(instances, folder / name)
    sent = send_files([folder], Peer("PACS_AGENT", "127.0.0.1", port), "XR1")
    assert [problem for *_, problem in sent if problem] == []
    sql = "SELECT COUNT(DISTINCT study_instance_uid) AS n FROM results WHERE status = 'held'"
    wait_for(lambda: running.sql(sql)[0]["n"] == len(studies), 120, "every study's report")
    yield running
    assert running.stop() == 0


NAMES = {
    codes.FINDING_SITE.meaning: "part",
    codes.LATERALITY.meaning: "side",
    codes.NORMALITY.meaning: "finding",
    codes.PROBABILITY.meaning: "percent",
    codes.ALGORITHM_PARAMETERS.meaning: "threshold",
    codes.TRACKING_IDENTIFIER.meaning: "name",
}
"""What a group says once, by the concept's meaning."""
Group = dict[str, Any]
LINE = re.compile(r'^(?P<indent> *)<[a-z ]+ (?P<type>[A-Z]+):\(,,"(?P<name>[^"]+)"\)=(?P<value>.*)>$')


def as_dumped(path: Path) -> tuple[list[Group], list[str]]:
    """The groups, and what is said of the report as a whole, as dsrdump prints them."""
    shown = subprocess.run([dcmtk("dsrdump"), "+Pl", "+U8", path], check=True, capture_output=True, encoding="utf-8")
    groups: list[Group] = []
    whole: list[str] = []
    place: Group | None = None
    for line in shown.stdout.splitlines():
        if not (match := LINE.match(line)):
            continue
        name, value = match["name"], match["value"]
        if name == codes.MEASUREMENT_GROUP.meaning:
            place = {"comments": [], "images": 0, "heat maps": 0}
            groups.append(place)
        elif name == codes.QUALITATIVE_EVALUATIONS.meaning:
            place = None
        quoted = re.findall(r'"((?:[^"\\]|\\.)*)"', value)
        if name == codes.COMMENT.meaning:
            (whole if place is None else place["comments"]).append(quoted[0])
        elif place is not None and name == codes.VISUAL_EXPLANATION.meaning:
            place["heat maps"] += 1
        elif place is not None and match["type"] == "IMAGE":
            place["images"] += 1
        elif place is not None and name in NAMES:
            place[NAMES[name]] = float(quoted[0]) if match["type"] == "NUM" else quoted[0]
    return groups, whole


def as_read(path: Path) -> tuple[list[Group], list[str]]:
    """The same as highdicom reads it."""

    def walk(items: Sequence[Any], group: Group) -> Group:
        for item in items:
            name = item.name.meaning
            if name == codes.COMMENT.meaning:
                group["comments"].append(item.value)
            elif name == codes.VISUAL_EXPLANATION.meaning:
                group["heat maps"] += 1
            elif item.ValueType == "IMAGE":
                group["images"] += 1
            elif name in NAMES:
                value = item.value
                group[NAMES[name]] = getattr(value, "meaning", value)
            walk(item.get("ContentSequence", ()), group)
        return group

    content = hd.sr.srread(path).content
    groups = [
        walk(group[0].ContentSequence, {"comments": [], "images": 0, "heat maps": 0})
        for group in content.get_image_measurement_groups()
    ]
    evaluations = [item for item in content[0].ContentSequence if item.name == codes.QUALITATIVE_EVALUATIONS]
    return groups, [item.value for item in evaluations[0].ContentSequence]


@pytest.mark.parametrize("name", STUDIES)
def test_they_tell_one_story(
    name: str, daemon: DaemonProcess, studies: dict[str, list[FileDataset]], capsys: pytest.CaptureFixture[str]
) -> None:
    """Findings, probabilities, reasons and counts of images are the same in the SR, dsrdump and all of `show`."""
    uid = str(studies[name][0].StudyInstanceUID)
    run = runner(capsys)
    config = ("--config", str(daemon.config))
    [story] = json.loads(run("show", uid, "--json", *config)[1])
    text = " ".join(run("show", uid, *config)[1].split())
    sql = f"SELECT report_sop_instance_uid AS uid FROM results WHERE study_instance_uid = '{uid}'"
    path = daemon.config.parent / "data" / "outbox" / f"{daemon.sql(sql)[0]['uid']}.dcm"

    groups, whole = as_read(path)
    assert as_dumped(path) == (groups, whole)

    findings = [group for group in groups if ": image " not in group["name"]]
    images = [group for group in groups if ": image " in group["name"]]
    told = {(row["body_part"], row["laterality"]): row for row in story["results"]}
    parts = {code.meaning: part for part, code in codes.BODY_PARTS.items()}
    sides = {code.meaning: side for side, code in codes.LATERALITIES.items()}
    values = {code.meaning: value for value, code in codes.NORMALITIES.items()}
    for group in findings:
        # A side without a part cannot be coded; its name in the report says it.
        side = sides.get(group.get("side"), "R" if group["name"].endswith(", right") else None)
        row = told.pop((parts.get(group.get("part")), side))
        assert values[group["finding"]] == row["finding"]
        probability = row["abnormal_probability"]
        assert group.get("percent") == (None if probability is None else round(100 * probability, 2))
        assert group["threshold"] == f"threshold={row['threshold']:g}"
        assert group["images"] == row["image_count"]
        said = f"{group['name'][:1].upper()}{group['name'][1:]}: {row['finding'].upper()}"
        if probability is not None:
            said += f" probability {group['percent']:.1f} %"
        assert said in text
        if row["images_analysed"] < row["image_count"] or row["finding"] == "undetermined":
            reason = row["reason"].removesuffix("; no destination was there for it")
            assert any(reason.lower() in comment.lower() for comment in group["comments"])
        assert any(f"{row['images_analysed']} of {row['image_count']} images" in each for each in group["comments"])
    # What is left has no finding: its images are told of as a whole.
    for row in told.values():
        assert row["finding"] is None
        [comment] = [each for each in whole if row["reason"] in each]
        assert comment.startswith(f"{row['image_count']} image of the {row['body_part']} is not in this report")
    for comment in (*whole, *(each for group in groups for each in group["comments"])):
        assert comment in text
    assert text.count(" image 1 ") == len(findings)

    ds = dcmread(path)
    shown = {row["sop_instance_uid"]: row for row in story["instances"]}
    named = [item.ReferencedSOPInstanceUID for item in _sources(ds) if item.ReferencedSOPInstanceUID in shown]
    assert len(named) == len(images)
    for sop_instance_uid, group in zip(named, images, strict=True):
        row = shown.pop(sop_instance_uid)
        if row["reason"]:
            assert any(row["reason"] in comment for comment in group["comments"])
            assert "percent" not in group
        elif "percent" in group:
            assert group["percent"] == round(100 * row["abnormal_probability"], 2)
    for row in shown.values():
        assert any(row["reason"] in comment for comment in whole)
    captures = [row for row in story["deliveries"] if row["object"] == "capture"]
    assert len(captures) == sum(group["heat maps"] for group in groups) == story["report"].count("heat map")
    is_partial = any(row["images_analysed"] < row["image_count"] for row in story["results"])
    assert ds.CompletionFlag == ("PARTIAL" if is_partial else "COMPLETE")


def _sources(ds: Dataset) -> Iterator[Dataset]:
    """What the image groups refer to, in their order."""
    for item in ds.get("ContentSequence", ()):
        name = item.ConceptNameCodeSequence[0].CodeValue
        if name == codes.MEASUREMENT_GROUP.value:
            found = [each for each in item.ContentSequence if each.ValueType == "IMAGE"]
            texts = [each.TextValue for each in item.ContentSequence if each.ValueType == "TEXT"]
            if any(": image " in text for text in texts):
                yield found[0].ReferencedSOPSequence[0]
        else:
            yield from _sources(item)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("stopped by the guard", "unlike those that the model was trained on"),
        ("header and picture disagree", "header says elbow, picture looks like hand"),
        ("abnormal, read in part", "1 of 2 images analysed"),
        ("not abnormal, read in part", "1 of 2 images analysed"),
        ("nothing read", "0 of 1 images analysed"),
        ("header sources contradict", "BodyPartExamined 'HAND' names hand, but"),
        ("sides contradict in one image", "1 image of the hand is not in this report: ImageLaterality says left"),
        ("a foot beside the hand", "1 image is not in this report: BodyPartExamined 'FOOT' names foot"),
        ("umlauts in ISO_IR 100", "SeriesDescription 'Fuß rechts' names foot"),
        ("umlauts in ISO_IR 192", "SeriesDescription 'Fuß rechts' names foot"),
        ("of a patient", "the model is for phantoms only"),
    ],
)
def test_what_is_odd_is_said_in_words(
    name: str, words: str, daemon: DaemonProcess, studies: dict[str, list[FileDataset]]
) -> None:
    """The report itself says it, once for the study and not over and over."""
    uid = str(studies[name][0].StudyInstanceUID)
    [row] = daemon.sql(
        f"SELECT DISTINCT report_sop_instance_uid AS uid FROM results WHERE study_instance_uid = '{uid}'"
        " AND finding IS NOT NULL"
    )
    groups, whole = as_read(daemon.config.parent / "data" / "outbox" / f"{row['uid']}.dcm")
    said = [comment for group in groups if ": image " not in group["name"] for comment in group["comments"]] + whole
    assert sum(comment.count(words) for comment in said) == 1


def test_several_findings_have_a_group_each(daemon: DaemonProcess, studies: dict[str, list[FileDataset]]) -> None:
    """Two parts, and both sides of one: a group each, with its own images and threshold."""
    for name, expected in (("two parts", {"elbow", "hand"}), ("both sides", {"finger"})):
        uid = str(studies[name][0].StudyInstanceUID)
        rows = daemon.sql(f"SELECT * FROM results WHERE study_instance_uid = '{uid}'")
        assert {row["body_part"] for row in rows} == expected
        path = daemon.config.parent / "data" / "outbox" / f"{rows[0]['report_sop_instance_uid']}.dcm"
        groups = [group for group in as_read(path)[0] if ": image " not in group["name"]]
        assert len(groups) == len(rows) == 2
        assert [group["images"] for group in groups] == [2, 2]


def test_show_says_that_a_report_is_of_an_earlier_revision(daemon: DaemonProcess, tmp_path: Path) -> None:
    """A modality corrects its only hand to a foot: the report on it is not taken for what stands now."""
    image = quality(seed=3)
    sql = f"SELECT * FROM results WHERE study_instance_uid = '{image.StudyInstanceUID}' AND "
    for revision, part, state in ((1, "HAND", "held"), (2, "FOOT", "unsupported")):
        image.BodyPartExamined = part
        write_study([image], tmp_path)
        list(send_files([tmp_path], Peer("PACS_AGENT", "127.0.0.1", daemon.port), "XR1"))
        wait_for(lambda now=(revision, state): daemon.sql(sql + "revision = {} AND status = '{}'".format(*now)))
        told = daemon.run("show", str(image.StudyInstanceUID)).stdout
        assert ("This is of revision 1; revision 2 has no report.\n" in told) == (revision == 2)
        assert "Hand, right: NORMAL" in told
