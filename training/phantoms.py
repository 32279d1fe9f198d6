"""A MURA-v1.1 tree of phantoms: the layout of the real one, pictures of nobody, and beside them what each shows.

Enters: how many patients, a seed, and an empty place on a disk. Leaves: `OUT/MURA-v1.1`, the same bytes for the same
settings whatever the number of workers. `plan` decides everything before a picture is made, so that an interrupted run
goes on where it stopped. It never overwrites what another run wrote.
"""

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, as_completed
from dataclasses import asdict, dataclass, replace
from io import BytesIO
from pathlib import Path, PurePosixPath
from shutil import disk_usage

import numpy as np
from PIL import Image

from pacs_agent import __version__
from pacs_agent.errors import PacsAgentError
from pacs_agent.phantom.lesion import Lesion, drawn
from pacs_agent.phantom.radiograph import Radiograph, radiograph, study_views
from training.workers import processes

ROOT = "MURA-v1.1"
RECORD_NAME = "phantoms.jsonl"
"""What is known of every picture, a line each; MURA has no such file, and what reads MURA looks for CSVs only."""

_SETTINGS_NAME = ".phantoms.json"  # a dot file: no part of the data set
_LISTS = tuple(f"{split}_{what}.csv" for split in ("train", "valid") for what in ("image_paths", "labeled_studies"))
LONGEST_SIDE = 512
BYTES_AN_IMAGE = 150_000  # rather more than measured
# Between MURA's own shares of its studies and equal ones: its rarest part would leave too little to judge by.
PART_SHARES = {
    "elbow": 0.14,
    "finger": 0.14,
    "forearm": 0.11,
    "hand": 0.145,
    "humerus": 0.105,
    "shoulder": 0.17,
    "wrist": 0.19,
}
ABNORMAL_SHARE = 0.45  # in every part: the part must not tell the label
VIEW_SHARES = (0.12, 0.36, 0.36, 0.12, 0.04)  # one to five pictures a study
SECOND_PART, THIRD_PART, SECOND_STUDY, RGB = 0.11, 0.15, 0.06, 0.3  # chances


def is_phantoms(root: Path) -> bool:
    """Whether a folder of CSVs is of phantoms: either file that says so is enough, the other may have been lost."""
    return (root / _SETTINGS_NAME).exists() or (root / RECORD_NAME).exists()


@dataclass(frozen=True, slots=True)
class TreeSettings:
    """What decides the tree.

    Args:
        patients: how many.
        seed: of all chance.
        subtle: the share of abnormal studies that are so.
        valid: the share of patients in valid.
    """

    patients: int
    seed: int
    subtle: float = 0.1
    valid: float = 0.2


@dataclass(frozen=True, slots=True)
class Planned:
    """One picture to be made.

    Args:
        path: from the folder that holds `MURA-v1.1`, as the CSVs have it.
        body_part: one of the seven.
        view: one of the part's.
        laterality: "R" or "L".
        seed: of the picture.
        lesion: what it shows, or None where it is normal.
        rgb: three equal channels, else one.
        age_years: of the patient.
        broken: the file is cut off half way.
    """

    path: PurePosixPath
    body_part: str
    view: str
    laterality: str
    seed: int
    lesion: Lesion | None
    rgb: bool
    age_years: int
    broken: bool = False

    @property
    def split(self) -> str:
        """`train` or `valid`."""
        return self.path.parts[1]

    def made(self) -> Radiograph:
        """The picture."""
        return radiograph(
            self.body_part,
            abnormal=self.lesion is not None,
            seed=self.seed,
            laterality=self.laterality,
            view=self.view,
            longest_side=LONGEST_SIDE,
            lesion=None if self.lesion is None else self.lesion.kind,
            severity=None if self.lesion is None else self.lesion.severity,
            age_years=self.age_years,
        )


def plan(settings: TreeSettings) -> tuple[Planned, ...]:
    """Every picture of the tree, in the order of the CSVs; the last patients are valid's, as in MURA.

    Raises:
        PacsAgentError: a share is no share, or a split would be empty.
    """
    for name in ("subtle", "valid"):
        if not 0 <= getattr(settings, name) <= 1:
            raise PacsAgentError(f"--{name} is a share from 0 to 1, not {getattr(settings, name)}")
    last_of_train = settings.patients - round(settings.patients * settings.valid)
    if not 0 < last_of_train < settings.patients:
        raise PacsAgentError(
            f"{settings.patients} patients with a share of {settings.valid} in valid leave a split empty"
        )
    pictures: list[Planned] = []
    for patient in range(1, settings.patients + 1):
        pictures += _patient(settings, patient, "train" if patient <= last_of_train else "valid")
    pictures.sort(key=lambda picture: (picture.split, picture.path.parts[2]))
    cut = next(n for n, p in enumerate(pictures) if p.path.name == "image2.png" or len(pictures) == n + 1)
    return (*pictures[:cut], replace(pictures[cut], broken=True), *pictures[cut + 1 :])


def _patient(settings: TreeSettings, patient: int, split: str) -> Iterator[Planned]:
    rng = np.random.default_rng([settings.seed, 1108, patient])
    parts = 1 + (rng.random() < SECOND_PART) + (rng.random() < SECOND_PART * THIRD_PART)
    age_years = int(rng.integers(19, 88))
    names = [str(n) for n in rng.choice(tuple(PART_SHARES), size=parts, replace=False, p=tuple(PART_SHARES.values()))]
    for part in names:
        for study in range(1, 2 + int(rng.random() < SECOND_STUDY)):
            lesion = drawn(rng, subtle=settings.subtle)
            abnormal = bool(rng.random() < ABNORMAL_SHARE)
            side, rgb = str(rng.choice(("R", "L"))), bool(rng.random() < RGB)
            count = 1 + int(rng.choice(len(VIEW_SHARES), p=VIEW_SHARES))
            label = "positive" if abnormal else "negative"
            folder = PurePosixPath(ROOT, split, f"XR_{part.upper()}", f"patient{patient:05d}", f"study{study}_{label}")
            views = study_views(part, int(rng.integers(0, 2**40)), count)
            for number, (view, seed) in enumerate(views, start=1):
                path = folder / f"image{number}.png"
                yield Planned(path, part, view, side, seed, lesion if abnormal else None, rgb, age_years)


def write_tree(
    out: Path,
    settings: TreeSettings,
    *,
    workers: int = 1,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Path:
    """Write the tree, or the rest of it.

    Args:
        out: the folder to hold `MURA-v1.1`; made where it is missing.
        settings: what decides it.
        workers: processes that make pictures.
        progress: told after each picture how many of how many are there.

    Returns:
        `out/MURA-v1.1`.

    Raises:
        PacsAgentError: the folder holds something else or a tree of other settings, or the disk refused.
    """
    pictures = plan(settings)
    root = out / ROOT
    try:
        if not _begun(root, settings, len(pictures)):
            return root
        missing = [picture for picture in pictures if not _record_path(out, picture).exists()]
        done = len(pictures) - len(missing)
        progress(done, len(pictures))
        for _ in _all_written(out, missing, workers):
            done += 1
            progress(done, len(pictures))
        _finish(out, pictures)
    except (OSError, BrokenExecutor) as error:
        reason = error.strerror if isinstance(error, OSError) else "a worker was killed"
        raise PacsAgentError(
            f"{root} cannot be written: {reason}; what is there stays, the same command goes on with it"
        ) from None
    return root


def _begun(root: Path, settings: TreeSettings, count: int) -> bool:
    """Take the folder; False where the tree is complete already."""
    mine = json.dumps({**asdict(settings), "pacs_agent": __version__})
    settings_path = root / _SETTINGS_NAME
    if settings_path.exists():
        if (found := settings_path.read_text()) != mine:
            raise PacsAgentError(f"{root} is there already, with other settings: {found}")
        return not all((root / name).exists() for name in (RECORD_NAME, *_LISTS))
    # What a run leaves that was killed before it had its settings written.
    if root.exists() and {path.name for path in root.iterdir()} - {_part(settings_path).name}:
        raise PacsAgentError(f"{root} is there already, and no phantoms of this command")
    root.parent.mkdir(parents=True, exist_ok=True)
    free = disk_usage(root.parent).free
    if free < count * BYTES_AN_IMAGE:
        raise PacsAgentError(
            f"{count} pictures may need {count * BYTES_AN_IMAGE / 1e9:.1f} GB, {root.parent} has {free / 1e9:.1f} free"
        )
    root.mkdir(exist_ok=True)
    _write(root / _SETTINGS_NAME, mine.encode())
    return True


def _all_written(out: Path, pictures: list[Planned], workers: int) -> Iterator[None]:
    """Write each picture and its record."""
    if workers <= 1:
        for picture in pictures:
            _write_picture(out, picture)
            yield
        return
    with processes(workers) as pool:
        for done in as_completed([pool.submit(_write_picture, out, picture) for picture in pictures]):
            yield done.result()


def _record_path(out: Path, picture: Planned) -> Path:
    """Where the record of a picture waits until the tree is complete."""
    path = out / picture.path
    return path.with_name(f".{path.stem}.json")


def _write_picture(out: Path, picture: Planned) -> None:
    """The PNG, then its record: where there is a record, the picture is whole."""
    made = picture.made()
    grey = Image.fromarray(np.rint(made.picture * 255).astype(np.uint8))
    buffer = BytesIO()
    (grey.convert("RGB") if picture.rgb else grey).save(buffer, "PNG", compress_level=4)
    data = buffer.getvalue()
    path = out / picture.path
    path.parent.mkdir(parents=True, exist_ok=True)
    _write(path, data[: len(data) // 2] if picture.broken else data)
    record = {
        "path": str(picture.path),
        "body_part": picture.body_part,
        "view": picture.view,
        "laterality": picture.laterality,
        "age_years": picture.age_years,
        "abnormal": made.abnormal,
        "lesion": made.lesion,
        "severity": None if made.severity is None else round(made.severity, 4),
        "box": made.lesion_box,
        "rows": made.picture.shape[0],
        "columns": made.picture.shape[1],
        "spacing_mm": round(made.spacing_mm, 5),
        "broken": picture.broken,
    }
    _write(_record_path(out, picture), json.dumps(record).encode())


def _finish(out: Path, pictures: Iterable[Planned]) -> None:
    """The dot file that a file browser leaves, the records in one file, and the CSVs: a tree that has them is whole."""
    root, records = out / ROOT, []
    rows: dict[str, list[str]] = {name: [] for name in _LISTS}
    waiting = []
    for picture in pictures:
        rows[f"{picture.split}_image_paths.csv"].append(str(picture.path))
        study = f"{picture.path.parent}/,{int(picture.lesion is not None)}"
        if study not in rows[f"{picture.split}_labeled_studies.csv"][-1:]:
            rows[f"{picture.split}_labeled_studies.csv"].append(study)
        waiting.append(_record_path(out, picture))
        records.append(waiting[-1].read_text())
    _write((out / rows["train_image_paths.csv"][0]).with_name("._image1.png"), b"\0\5\x16\7\0\2\0\0Mac OS X        ")
    _write(root / RECORD_NAME, "".join(f"{record}\n" for record in records).encode())
    for name, lines in rows.items():
        _write(root / name, "".join(f"{line}\n" for line in lines).encode())
    for path in waiting:
        path.unlink(missing_ok=True)


def _write(path: Path, data: bytes) -> None:
    """Written whole or not at all."""
    temporary = _part(path)
    try:
        temporary.write_bytes(data)
        temporary.rename(path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _part(path: Path) -> Path:
    return path.with_name(f".{path.name}.part")
