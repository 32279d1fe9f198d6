"""Phantom data sets: complete by the standard's own checker, varied, honest, and of nobody."""

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread

from pacs_agent.analyse.pixels import read_dicom_picture
from pacs_agent.errors import PacsAgentError
from pacs_agent.phantom.dataset import dataset, study, uid, write_study
from pacs_agent.phantom.header import HEADER_STYLES
from pacs_agent.phantom.radiograph import VIEWS, radiograph
from pacs_agent.study.bodypart import BODY_PARTS, map_body_part
from pacs_agent.study.instance import Instance, is_valid_uid

SIDE = 128
needs_dicom3tools = [
    pytest.mark.dcmtk,
    pytest.mark.skipif(shutil.which("dciodvfy") is None, reason="dicom3tools is not installed"),
]


@pytest.fixture(scope="module")
def instances():
    """Studies of every part, many seeds."""
    return [
        ds
        for seed in range(10)
        for part in BODY_PARTS
        for ds in study(part, seed=seed, abnormal=bool(seed % 2), longest_side=SIDE)
    ]


def verified(tool: str, *paths: Path) -> list[str]:
    done = subprocess.run([tool, *map(str, paths)], capture_output=True, text=True, check=False)
    lines = (done.stdout + done.stderr).splitlines()
    return [line for line in lines if line.startswith("Error")]


@pytest.mark.parametrize("kind", ["CR", "DX"])
@pytest.mark.parametrize("style", HEADER_STYLES)
class TestStandard:
    pytestmark = needs_dicom3tools

    def test_no_error(self, kind, style, tmp_path) -> None:
        """dciodvfy finds no error in any style of CR and DX, nor dcentvfy between the instances of a study."""
        part = BODY_PARTS[len(style) % 7]
        made = study(part, seed=8, abnormal=True, header_style=style, kind=kind, longest_side=SIDE)
        paths = write_study(made, tmp_path)
        assert [error for path in paths for error in verified("dciodvfy", path)] == []
        assert verified("dcentvfy", *paths) == []


@pytest.mark.parametrize("style", HEADER_STYLES)
@pytest.mark.parametrize("body_part", BODY_PARTS)
def test_header_tells_part_and_side(style, body_part) -> None:
    """Every style of header leads the mapping to the part and the side that the picture shows."""
    for kind, side in (("CR", "R"), ("DX", "L")):
        (ds,) = study(
            body_part,
            seed=1,
            abnormal=False,
            views=1,
            header_style=style,
            kind=kind,
            laterality=side,
            longest_side=SIDE,
        )
        found = map_body_part(Instance.from_dataset(ds))
        assert (found.body_part, found.laterality, found.conflict) == (body_part, side, None)


def test_phantoms_say_so(instances) -> None:
    """Every instance is marked as a quality control subject of an artificial person."""
    for ds in instances:
        assert ds.QualityControlSubject == "YES"
        assert str(ds.PatientName).startswith("PHANTOM^")
        assert ds.PatientID.startswith("PHANTOM-")


def test_one_person_a_study(instances) -> None:
    """The instances of a study agree on who and when: a study that does not is held."""
    for one, other in zip(instances[::2], instances[1::2], strict=True):
        for keyword in ("PatientID", "PatientBirthDate", "AccessionNumber", "StudyDate", "StudyTime"):
            assert one[keyword].value == other[keyword].value
    assert {bool(ds.PatientBirthDate) for ds in instances} == {True, False}


def test_uids(instances) -> None:
    """UIDs are valid, an instance has its own, and the instances of a study share theirs."""
    assert all(is_valid_uid(ds[key].value) for ds in instances for key in ("SOPInstanceUID", "StudyInstanceUID"))
    assert len({ds.SOPInstanceUID for ds in instances}) == len(instances)
    assert len({ds.StudyInstanceUID for ds in instances}) == len(instances) / 2
    assert uid("a", "b") != uid("ab")


def test_repeatable(tmp_path) -> None:
    """A study made again is the same to the byte."""
    once, again = (
        write_study(study("elbow", seed=12, abnormal=True, longest_side=SIDE), tmp_path / name) for name in "ab"
    )
    assert [path.read_bytes() for path in once] == [path.read_bytes() for path in again]


def test_variety(instances) -> None:
    """Headers, depths, interpretations, classes, signs, sides and syntaxes all vary."""
    assert len({ds.file_meta.TransferSyntaxUID for ds in instances}) == 6
    assert {ds.BitsStored for ds in instances} == {10, 12, 14, 16}
    assert {ds.PhotometricInterpretation for ds in instances} == {"MONOCHROME1", "MONOCHROME2"}
    assert {ds.Modality for ds in instances} == {"CR", "DX"}
    assert {ds.PixelRepresentation for ds in instances} == {0, 1}
    assert len({ds.BodyPartExamined for ds in instances}) > 15
    windows = {("VOILUTSequence" in ds, "WindowCenter" in ds, ds.get("VOILUTFunction", "")) for ds in instances}
    assert windows == {(True, False, ""), (False, True, ""), (False, True, "SIGMOID"), (False, False, "")}
    sides = {("ImageLaterality" in ds, bool(ds.get("Laterality"))) for ds in instances}
    assert sides == {(True, False), (False, True), (False, False)}
    series = [len({ds.SeriesInstanceUID for ds in pair}) for pair in zip(instances[::2], instances[1::2], strict=True)]
    assert set(series) == {1, 2}


def test_header_tells_nothing_of_the_lesion() -> None:
    """A normal and an abnormal study of one seed have the same header, so that no model can read the answer there."""
    normal, abnormal = (study("hand", seed=3, abnormal=flag, longest_side=SIDE) for flag in (False, True))
    for one, other in zip(normal, abnormal, strict=True):
        del one.PixelData, other.PixelData
        assert one == other


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("kind", ["CR", "DX"])
@pytest.mark.parametrize("style", ["standard", "spelled", "older codes", "term only"])
def test_shown_as_made(photometric, kind, style) -> None:
    """However it is stored, bone is shown bright: what a viewer shows is the picture, but for the curve of the LUT."""
    made = radiograph("shoulder", abnormal=False, seed=2, longest_side=SIDE)
    ds = dataset(made, kind=kind, photometric=photometric, style=HEADER_STYLES[style], bits_stored=14)
    shown = read_dicom_picture(ds, max_pixels=SIDE * SIDE) / 255
    assert np.abs(shown - made.picture).mean() < 0.06
    assert np.corrcoef(shown.ravel(), made.picture.ravel())[0, 1] > 0.98


def test_views() -> None:
    """The views of a study are of one side, follow the part's list, and are taken again when more are asked for."""
    made = study("wrist", seed=1, abnormal=True, views=4, header_style="standard", longest_side=SIDE)
    assert [ds.SeriesDescription for ds in made] == ["PA", "lateral", "oblique", "PA"]
    assert len({ds.ImageLaterality for ds in made}) == 1
    assert len(VIEWS["wrist"]) == 3
    assert len({ds.PatientBirthDate for ds in made}) == 1
    assert not np.array_equal(made[0].pixel_array, made[3].pixel_array)


def test_files(tmp_path) -> None:
    """`write_study` makes the folder and writes Part 10 files that pydicom reads without force."""
    paths = write_study(study("finger", seed=1, abnormal=False, longest_side=SIDE), tmp_path / "new" / "folder")
    assert [dcmread(path).InstanceNumber for path in paths] == [1, 2]


def test_unknown_style() -> None:
    """A style that is not there is refused with those that are."""
    with pytest.raises(PacsAgentError, match="standard"):
        study("hand", seed=0, abnormal=False, header_style="martian")
