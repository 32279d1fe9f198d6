"""`pacs-train inspect`: what a data folder holds, and what in it does not fit.

Enters: a data folder. Leaves: counts by split, part and label; pictures that do not decode, labels that disagree,
patients of both splits, and how the counts compare with MURA's published ones. Changes nothing.
"""

import os
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pacs_agent.analyse.pixels import read_picture
from pacs_agent.errors import PixelsError
from training.cache import CHUNK, MAX_PIXELS
from training.errors import TrainingError
from training.mura import LABELS, PARTS, Image, SplitName, data_root, scan_split
from training.phantoms import is_phantoms
from training.workers import processes

Counts = dict[str, tuple[int, int, int, int]]

# Studies normal and abnormal, images normal and abnormal (Rajpurkar et al., MIDL 2018, of the v1.1 files).
PUBLISHED: dict[SplitName, Counts] = {
    "train": {
        "elbow": (1094, 660, 2925, 2006),
        "finger": (1280, 655, 3138, 1968),
        "forearm": (590, 287, 1164, 661),
        "hand": (1497, 521, 4059, 1484),
        "humerus": (321, 271, 673, 599),
        "shoulder": (1364, 1457, 4211, 4168),
        "wrist": (2134, 1326, 5765, 3987),
    },
    "valid": {
        "elbow": (92, 66, 235, 230),
        "finger": (92, 83, 214, 247),
        "forearm": (69, 64, 150, 151),
        "hand": (101, 66, 271, 189),
        "humerus": (68, 67, 148, 140),
        "shoulder": (99, 95, 285, 278),
        "wrist": (140, 97, 364, 295),
    },
}
SPLITS: tuple[SplitName, ...] = ("train", "valid")


@dataclass(frozen=True, slots=True)
class SplitFacts:
    """One split.

    Attributes:
        parts: by part: studies normal and abnormal, images normal and abnormal.
        patients: by part and label: patients; `all` for all of them.
        unreadable: by path, why a picture could not be read; None: they were not opened.
        conflicts, missing, unlisted, empty: as in `mura.Reading`.
    """

    parts: Counts
    patients: dict[str, dict[str, int]]
    unreadable: dict[str, str] | None
    conflicts: tuple[str, ...]
    missing: tuple[str, ...]
    unlisted: tuple[str, ...]
    empty: tuple[str, ...]

    @property
    def fits(self) -> bool:
        """Whether it can be trained on: what does not decode is left out, what is not listed does not matter."""
        return not self.conflicts and not self.missing


@dataclass(frozen=True, slots=True)
class Inspection:
    """A data folder.

    Attributes:
        splits: those whose CSVs are there.
        shared_patients: of train and of valid both.
        phantoms: whether they say that they are.
        differences: from MURA's published counts, a line each; None: it is another data set, and not compared.
    """

    splits: dict[SplitName, SplitFacts]
    shared_patients: tuple[str, ...]
    phantoms: bool
    differences: tuple[str, ...] | None

    @property
    def fits(self) -> bool:
        """Whether nothing stands in the way of training and evaluation."""
        return not self.shared_patients and not self.differences and all(facts.fits for facts in self.splits.values())

    def to_json(self) -> dict[str, Any]:
        """Plain values, as `--json` prints them."""
        return {**asdict(self), "fits": self.fits}


def inspect(data: Path, *, decode: bool = True, advance: Callable[[int], None] = lambda _: None) -> Inspection:
    """Look through a data folder.

    Args:
        data: of MURA or of its layout.
        decode: whether to open every picture.
        advance: called with the number of pictures just opened.

    Raises:
        TrainingError: a CSV is not there or not of this layout.
    """
    root = data_root(data)
    readings = {split: scan_split(root, split) for split in SPLITS if (root / f"{split}_image_paths.csv").exists()}
    splits: dict[SplitName, SplitFacts] = {}
    for split, reading in readings.items():
        unreadable = unreadable_pictures([image.path for image in reading.images], advance) if decode else None
        splits[split] = SplitFacts(
            _counts(reading.images),
            _patients(reading.images),
            {path.relative_to(root).as_posix(): why for path, why in unreadable.items()}
            if unreadable is not None
            else None,
            reading.conflicts,
            reading.missing,
            reading.unlisted,
            reading.empty,
        )
    train, valid = (
        {image.patient for image in readings[split].images} if split in readings else set() for split in SPLITS
    )
    phantoms = is_phantoms(root)
    differences = None if phantoms else compare({split: facts.parts for split, facts in splits.items()})
    return Inspection(splits, tuple(sorted(train & valid)), phantoms, differences)


def compare(found: dict[SplitName, Counts]) -> tuple[str, ...] | None:
    """How counts differ from MURA's; None where most do, so that it is another data set."""
    names = ("normal studies", "abnormal studies", "normal images", "abnormal images")
    differences, compared = [], 0
    for split, counts in found.items():
        for part, published in PUBLISHED[split].items():
            for name, wanted, here in zip(names, published, counts.get(part, (0, 0, 0, 0)), strict=True):
                compared += 1
                if here != wanted:
                    differences.append(f"{split}, {part}: {here} {name}, MURA v1.1 has {wanted}")
    return None if len(differences) > compared // 2 else tuple(differences)


def unreadable_pictures(paths: Sequence[Path], advance: Callable[[int], None]) -> dict[Path, str]:
    """By path, why a picture does not decode as the daemon would decode it."""
    chunks = [list(paths[start : start + CHUNK]) for start in range(0, len(paths), CHUNK)]
    workers = min(len(os.sched_getaffinity(0)), len(chunks))
    found: dict[Path, str] = {}
    if workers < 2:
        for chunk in chunks:
            found |= _try(chunk)
            advance(len(chunk))
        return found
    with processes(workers) as pool:
        try:
            for chunk, unreadable in zip(chunks, pool.map(_try, chunks), strict=True):
                found |= unreadable
                advance(len(chunk))
        except BrokenExecutor as error:
            raise TrainingError("a process that decodes pictures was killed (out of memory?)") from error
    return found


def table(inspection: Inspection) -> str:
    """What a person reads."""
    lines = []
    for split, facts in inspection.splits.items():
        lines.append(f"{split:9} {'studies: normal, abnormal':>26} {'images: normal, abnormal':>26} {'patients':>9}")
        for part, (normal, abnormal, plain, marked) in facts.parts.items():
            patients = facts.patients[part]["all"]
            lines.append(f"  {part:9} {normal:>16} {abnormal:>8} {plain:>17} {marked:>8} {patients:>9}")
        sums = [sum(column) for column in zip(*facts.parts.values(), strict=True)] or [0] * 4
        patients = facts.patients["all"]["all"]
        lines.append(f"  {'all':9} {sums[0]:>16} {sums[1]:>8} {sums[2]:>17} {sums[3]:>8} {patients:>9}")
        for what, items in (
            ("pictures that do not decode", [f"{path}: {why}" for path, why in (facts.unreadable or {}).items()]),
            ("labels that disagree", facts.conflicts),
            ("listed pictures that are missing", facts.missing),
            ("pictures that are not listed", facts.unlisted),
            ("labelled studies without a picture", facts.empty),
        ):
            if items:
                lines.append(f"  {len(items)} {what}, first: {items[0]}")
    lines.append(f"patients in both splits: {', '.join(inspection.shared_patients[:5]) or 'none'}")
    if inspection.phantoms:
        lines.append("phantoms: not compared with MURA's counts")
    elif inspection.differences is None:
        lines.append("another data set than MURA v1.1: not compared with its counts")
    else:
        lines += inspection.differences or ["the counts are MURA v1.1's"]
    return "\n".join(lines)


def _counts(images: Sequence[Image]) -> Counts:
    pictures = Counter((image.part, image.label) for image in images)
    studies = Counter((part, label) for _, part, label in {(image.study, image.part, image.label) for image in images})
    return {
        part: (studies[part, 0], studies[part, 1], pictures[part, 0], pictures[part, 1])
        for part in PARTS
        if pictures[part, 0] or pictures[part, 1]
    }


def _patients(images: Sequence[Image]) -> dict[str, dict[str, int]]:
    names: dict[str, dict[str, set[str]]] = {}
    for image in images:
        for part in (image.part, "all"):
            for label in (LABELS[image.label], "all"):
                names.setdefault(part, {}).setdefault(label, set()).add(image.patient)
    names.setdefault("all", {}).setdefault("all", set())
    return {part: {label: len(found) for label, found in labels.items()} for part, labels in names.items()}


def _try(paths: Sequence[Path]) -> dict[Path, str]:
    found: dict[Path, str] = {}
    for path in paths:
        try:
            read_picture(path, max_pixels=MAX_PIXELS)
        except PixelsError as error:
            found[path] = str(error)
    return found
