"""MURA's CSVs in every form that copies come in, and what `inspect` says where they do not fit."""

import json
from pathlib import Path

import pytest
from trees import make_tree

from training.cli import main
from training.errors import TrainingError
from training.inspect import PUBLISHED, compare, inspect
from training.mura import read_split, scan_split


def run(*arguments: str) -> int:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    return ended.value.code if isinstance(ended.value.code, int) else -1


@pytest.mark.parametrize("first", ["MURA-v1.1/", "", "another/"])
@pytest.mark.parametrize("header", [False, True])
def test_copies_read_alike(tmp_path: Path, first: str, header: bool) -> None:
    """With or without a header row, with any first path component or none: the same images."""
    root = make_tree(tmp_path / "data", patients=1, parts=("hand", "shoulder"), first=first, header=header)
    images = read_split(root, "train")
    assert [image.path.relative_to(root).as_posix() for image in images[:2]] == [
        "train/XR_HAND/patient00001/study1_negative/image1.png",
        "train/XR_HAND/patient00001/study1_negative/image2.png",
    ]
    assert [(image.part, image.patient, image.study, image.label) for image in images[2::2]] == [
        ("hand", "patient00002", "hand/patient00002/study1", 1),
        ("shoulder", "patient00003", "shoulder/patient00003/study1", 0),
        ("shoulder", "patient00004", "shoulder/patient00004/study1", 1),
    ]


def test_the_folder_above_will_do(tmp_path: Path) -> None:
    """The folder that holds MURA-v1.1 is as good as MURA-v1.1."""
    make_tree(tmp_path / "MURA-v1.1", patients=1, parts=("hand",))
    assert len(read_split(tmp_path, "train")) == 4


def test_dot_files_and_repeated_rows_are_skipped(tmp_path: Path) -> None:
    """Rows of dot files and rows twice there add nothing; dot files in folders are no unlisted pictures."""
    root = make_tree(tmp_path / "data", patients=1, parts=("hand",))
    rows = (root / "train_image_paths.csv").read_text()
    study = "train/XR_HAND/patient00001/study1_negative"
    (root / "train_image_paths.csv").write_text(f"{rows}MURA-v1.1/{study}/._image1.png\n\n{rows}")
    (root / study / "._image1.png").write_bytes(b"resource fork")
    (root / study / "image9.png").write_bytes(b"not listed")
    reading = scan_split(root, "train")
    assert len(reading.images) == 4
    assert reading.unlisted == (f"{study}/image9.png",)
    assert reading.conflicts == reading.missing == ()


def test_disagreements_are_told_and_stop_training(tmp_path: Path) -> None:
    """A CSV label against its folder's name, a listed picture missing: `inspect` exit 1, `read_split` one line."""
    root = make_tree(tmp_path / "data", patients=2, parts=("hand",))
    labels = (root / "train_labeled_studies.csv").read_text().splitlines()
    labels[0] = labels[0].replace(",0", ",1")
    (root / "train_labeled_studies.csv").write_text("\n".join(labels))
    with pytest.raises(TrainingError, match=r"1 labels disagree in train.*the CSV says abnormal, its folder negative"):
        read_split(root, "train")
    image = scan_split(root, "train").images[-1].path
    image.unlink()
    facts = inspect(root).splits["train"]
    assert len(facts.conflicts) == 1
    assert facts.missing == (image.relative_to(root).as_posix(),)
    assert run("inspect", str(root)) == 1


@pytest.mark.parametrize(
    ("name", "content", "tells"),
    [
        ("train_image_paths.csv", None, "holds no train_image_paths.csv"),
        ("train_labeled_studies.csv", None, "there is no such file"),
        ("train_image_paths.csv", "a\nMURA-v1.1/train/XR_KNEE/patient1/study1_negative/image1.png\n", "line 2"),
        ("train_labeled_studies.csv", "MURA-v1.1/train/XR_HAND/patient00001/study1_negative/,2\n", "line 1"),
        ("train_image_paths.csv", "path\n", "lists no picture"),
        ("train_image_paths.csv", b"\xff\xfe\x00", "cannot be read"),
    ],
)
def test_bad_csvs_are_one_line(tmp_path: Path, name: str, content: str | bytes | None, tells: str) -> None:
    """A CSV that is missing, broken, or of another layout is told in one line that names it."""
    root = make_tree(tmp_path / "data", patients=1, parts=("hand",))
    (root / name).unlink()
    if content is not None:
        (root / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(TrainingError, match=tells) as caught:
        read_split(root, "train")
    assert "\n" not in str(caught.value)


def test_inspect_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Studies, images and patients by part and label, what does not decode, patients of both splits."""
    root = make_tree(tmp_path / "data", patients=2, parts=("hand", "wrist"), splits=("train", "valid"))
    broken = read_split(root, "valid")[0].path
    broken.write_bytes(b"\x89PNG\r\n\x1a\nand nothing")
    for name in ("valid_image_paths.csv", "valid_labeled_studies.csv"):
        text = (root / name).read_text()
        (root / name).write_text(text.replace("patient00009", "patient00001"))
    broken.parent.parent.rename(root / "valid/XR_HAND/patient00001")
    assert run("inspect", str(root), "--json") == 1  # one patient in both splits
    told = json.loads(capsys.readouterr().out)
    assert told["splits"]["train"]["parts"] == {"hand": [2, 2, 4, 4], "wrist": [2, 2, 4, 4]}
    assert told["splits"]["train"]["patients"]["all"] == {"normal": 4, "abnormal": 4, "all": 8}
    assert list(told["splits"]["valid"]["unreadable"]) == ["valid/XR_HAND/patient00001/study1_negative/image1.png"]
    assert told["shared_patients"] == ["patient00001"]
    assert told["differences"] is None


def test_published_counts_are_those_of_the_paper() -> None:
    """The sums are MURA's: studies and images by split and label; a copy that lacks one image is told so."""
    sums = {
        split: [sum(column) for column in zip(*counts.values(), strict=True)] for split, counts in PUBLISHED.items()
    }
    assert sums == {"train": [8280, 5177, 21935, 14873], "valid": [661, 538, 1667, 1530]}
    assert compare(PUBLISHED) == ()
    valid = {**PUBLISHED["valid"], "elbow": (92, 66, 234, 230)}
    assert compare({"valid": valid}) == ("valid, elbow: 234 normal images, MURA v1.1 has 235",)
