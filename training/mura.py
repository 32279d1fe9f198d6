"""The two CSVs of a split in, its images out: the layout of MURA v1.1, real or of phantoms.

Enters: a folder that holds `{train,valid}_image_paths.csv`, `{train,valid}_labeled_studies.csv` and the pictures under
`{train,valid}/XR_PART/patientN/studyN_{positive,negative}/imageN.png`. Leaves: frozen rows with labels, and what does
not fit. Rows may come with or without a header, and with any first path component or none. Never opens a picture.
"""

import csv
import hashlib
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pacs_agent.study.bodypart import BODY_PARTS
from training.errors import TrainingError

SplitName = Literal["train", "valid"]
PARTS: tuple[str, ...] = tuple(sorted(BODY_PARTS))
"""The seven parts, in the order in which every number about them is kept."""

LABELS = ("normal", "abnormal")

_FOLDERS = rf"(?P<split>train|valid)/XR_(?P<part>{'|'.join(part.upper() for part in PARTS)})"
_STUDY = rf"{_FOLDERS}/(?P<patient>patient\d+)/(?P<study>study\d+)_(?P<label>positive|negative)"
_STUDY_ROW = re.compile(rf"(?:[^/]+/)?{_STUDY}/?")
_IMAGE_ROW = re.compile(rf"(?:[^/]+/)?{_STUDY}/(?P<name>image\d+\.png)")


@dataclass(frozen=True, slots=True)
class Image:
    """One picture of a split.

    Attributes:
        path: the file.
        part: one of `PARTS`.
        patient: `patient00001`; patients may have several parts, so splits are made by this.
        study: `shoulder/patient00001/study1`; a study is of one part.
        label: of its study in the CSV, 1 abnormal.
    """

    path: Path
    part: str
    patient: str
    study: str
    label: int


@dataclass(frozen=True, slots=True)
class Reading:
    """A split as its CSVs tell it, and where the folders disagree.

    Attributes:
        images: every listed picture that is there, labels from the CSV (from the folder where it has none).
        conflicts: studies whose CSV label, folder name or presence in the other CSV disagree, a line each.
        missing: listed pictures that are not there, as paths inside the data folder.
        unlisted: pictures in the folders that no row lists (dot files are not counted).
        empty: studies with a label and no picture in the list.
    """

    images: tuple[Image, ...]
    conflicts: tuple[str, ...]
    missing: tuple[str, ...]
    unlisted: tuple[str, ...]
    empty: tuple[str, ...]


def read_split(data: Path, split: SplitName) -> list[Image]:
    """The images of a split, in the order of the CSV.

    Args:
        data: `MURA-v1.1`, or the folder that holds it.
        split: `train` or `valid`.

    Raises:
        TrainingError: a CSV is not there or not of this layout, or CSVs and folders disagree (labels, missing files).
    """
    reading = scan_split(data, split)
    for what, found in (("labels disagree", reading.conflicts), ("listed pictures are missing", reading.missing)):
        if found:
            raise TrainingError(
                f"{data}: {len(found)} {what} in {split}, first: {found[0]} (pacs-train inspect tells all)"
            )
    if not reading.images:
        raise TrainingError(f"{data}: {split}_image_paths.csv lists no picture")
    return list(reading.images)


def fingerprint(images: Iterable[Image]) -> str:
    """SHA-256 of the images' studies, names and labels, in whatever order they come: what a bundle learnt from."""
    digest = hashlib.sha256()
    for image in sorted(images, key=lambda image: (image.study, image.path.name)):
        digest.update(f"{image.study}/{image.path.name},{image.label}\n".encode())
    return digest.hexdigest()


def scan_split(data: Path, split: SplitName) -> Reading:
    """As `read_split`, telling disagreements instead of stopping at them.

    Raises:
        TrainingError: a CSV is not there, cannot be read, or has a row that is none of this layout.
    """
    root = data_root(data)
    labels, conflicts = _read_labels(root, split)
    images: list[Image] = []
    missing: list[str] = []
    folders: dict[str, str] = {}
    listed: set[str] = set()
    for row in _image_rows(root, split):
        inside = _inside(row)
        if inside in listed:
            continue
        listed.add(inside)
        study = _study_key(row)
        if study not in folders:
            folders[study] = row["label"]
            if study not in labels:
                conflicts.append(f"{study}: in the image list and not among the labels")
            elif labels[study] != _number(row["label"]):
                conflicts.append(f"{study}: the CSV says {LABELS[labels[study]]}, its folder {row['label']}")
        elif folders[study] != row["label"]:
            conflicts.append(f"{study}: a positive and a negative folder")
            folders[study] = row["label"]
        path = root / inside
        if path.is_file():
            label = labels.get(study, _number(row["label"]))
            images.append(Image(path, row["part"].lower(), row["patient"], study, label))
        else:
            missing.append(inside)
    return Reading(
        tuple(images),
        tuple(conflicts),
        tuple(missing),
        tuple(sorted(_present(root, split) - listed)),
        tuple(sorted(set(labels) - set(folders))),
    )


def data_root(data: Path) -> Path:
    """The folder that holds the CSVs: *data* itself, or the one folder in it that does.

    Raises:
        TrainingError: there is none, or there are several.
    """
    if not data.is_dir():
        raise TrainingError(f"{data}: no such folder")
    name = "train_image_paths.csv"
    if (data / name).is_file() or (data / "valid_image_paths.csv").is_file():
        return data
    roots = sorted(path.parent for path in data.glob(f"*/{name}"))
    if len(roots) != 1:
        found = "several folders in it do" if roots else "is this the folder of MURA-v1.1?"
        raise TrainingError(f"{data}: holds no {name}; {found}")
    return roots[0]


def _read_labels(root: Path, split: str) -> tuple[dict[str, int], list[str]]:
    name = f"{split}_labeled_studies.csv"
    labels: dict[str, int] = {}
    conflicts: list[str] = []
    for number, cells in _rows(root / name):
        match = _STUDY_ROW.fullmatch(cells[0])
        value = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}.get(cells[1].strip()) if len(cells) == 2 else None
        if match is None or value is None or match["split"] != split:
            if number == 1 and match is None and "/" not in cells[0]:
                continue  # a header
            raise TrainingError(
                f"{root / name}: line {number} is not a study's path and 0 or 1: {','.join(cells)[:120]}"
            )
        study = _study_key(match)
        if labels.setdefault(study, value) != value:
            conflicts.append(f"{study}: the CSV says both normal and abnormal")
    return labels, conflicts


def _image_rows(root: Path, split: str) -> Iterator[re.Match[str]]:
    name = f"{split}_image_paths.csv"
    for number, cells in _rows(root / name):
        if cells[0].rpartition("/")[2].startswith("."):
            continue
        match = _IMAGE_ROW.fullmatch(cells[0])
        if match is None or match["split"] != split:
            if number == 1 and match is None and "/" not in cells[0]:
                continue  # a header
            raise TrainingError(f"{root / name}: line {number} is not a picture's path: {','.join(cells)[:120]}")
        yield match


def _rows(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The rows of a CSV that say something, with their line numbers."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file)
            for cells in reader:
                if cells and cells[0].strip():
                    yield reader.line_num, [cells[0].strip(), *cells[1:]]
    except FileNotFoundError as error:
        raise TrainingError(f"{path}: there is no such file; the CSVs of MURA say what belongs to a split") from error
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise TrainingError(f"{path}: cannot be read: {error}") from error


def _present(root: Path, split: str) -> set[str]:
    """Pictures in the folders of a split, as paths inside the data folder."""
    return {
        path.relative_to(root).as_posix()
        for path in (root / split).glob("XR_*/*/*/*.png")
        if not any(part.startswith(".") for part in path.relative_to(root).parts)
    }


def _study_key(row: re.Match[str]) -> str:
    return f"{row['part'].lower()}/{row['patient']}/{row['study']}"


def _inside(row: re.Match[str]) -> str:
    return f"{row['split']}/XR_{row['part']}/{row['patient']}/{row['study']}_{row['label']}/{row['name']}"


def _number(folder_label: str) -> int:
    return int(folder_label == "positive")
