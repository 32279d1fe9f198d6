"""A run's folder: what it was asked for, its data by role, and the folders of its members.

Enters: a data folder, a preset, a seed. Leaves: a `Run` whose `run.json` holds all that is needed to go on or to tell
where a bundle comes from. A run goes on only with what it was begun with.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from numpy.typing import NDArray

from pacs_agent import __version__
from training.cache import Progress, alone, open_cache
from training.checkpoint import write_json
from training.errors import TrainingError
from training.mura import LABELS, PARTS, Image, data_root, fingerprint, read_split
from training.phantoms import is_phantoms
from training.preset import Preset, make_preset
from training.split import ROLES, Role, hold_out

FACTS, RESULT, ENSEMBLE = "run.json", "result.json", "ensemble.safetensors"


@dataclass(frozen=True)
class Run:
    """A run, ready to train.

    Attributes:
        folder: of the run.
        facts: what `run.json` says.
        preset: its recipe.
        images: of train, those that could be read.
        pictures: uint8 (rows, size, size), mapped.
        rows: int64 (N,), the row of each image in `pictures`.
        roles: N names.
    """

    folder: Path
    facts: dict[str, Any]
    preset: Preset
    images: tuple[Image, ...]
    pictures: NDArray[np.uint8]
    rows: NDArray[np.int64]
    roles: NDArray[np.str_]

    def indices(self, role: Role) -> NDArray[np.int64]:
        """Which of the images have a role."""
        return np.flatnonzero(self.roles == role)

    def member_folder(self, number: int) -> Path:
        """The folder of member 1 to 3."""
        return self.folder / f"member{number}"


def open_run(
    folder: Path,
    data: Path,
    preset: Preset,
    *,
    seed: int,
    pretrained: bool,
    parts: Sequence[str],
    cache: Path | None,
    begun: bool,
    advance: Progress,
) -> Run:
    """Begin a run, or go on with one.

    Args:
        folder: of the run.
        data: of MURA or of phantoms.
        preset: the recipe.
        seed: of the hold-outs and of everything random.
        pretrained: whether backbones start from weights of photographs.
        parts: those to train with; all seven, unless a data set lacks some.
        cache: folder of caches; None: in the run's folder.
        begun: whether the folder may hold a run already.
        advance: called with the number of pictures just decoded.

    Raises:
        TrainingError: the data cannot be used, or the folder holds another run, or one that was not to go on.
    """
    held = f"{folder}: holds a run already; --resume goes on with it"
    if (folder / FACTS).exists() and not begun:
        raise TrainingError(held)
    images = [image for image in read_split(data, "train") if image.part in parts]
    if absent := sorted(set(parts) - {image.part for image in images}):
        raise TrainingError(f"{data}: no picture of {', '.join(absent)} in train; --parts names those to train with")
    hold_out(images, preset.hold_out.choose, preset.hold_out.calibrate, seed)  # refuses before anything is written
    cached = open_cache(cache or folder / "cache", images, preset.input, advance=advance)
    rows = np.array([row for row in range(len(images)) if row not in cached.unreadable], np.int64)
    readable = tuple(images[row] for row in rows)
    of_patients = hold_out(readable, preset.hold_out.choose, preset.hold_out.calibrate, seed)
    roles = np.array([of_patients[image.patient] for image in readable], np.str_)
    facts = {
        "preset": preset.model_dump(mode="json"),
        "seed": seed,
        "pretrained": pretrained,
        "parts": sorted(parts),
        "data": {
            "phantoms": is_phantoms(data_root(data)),
            "fingerprint": fingerprint(readable),
            "unreadable": {images[row].path.name: reason for row, reason in list(cached.unreadable.items())[:20]},
            "unreadable_count": len(cached.unreadable),
            "counts": _counts(readable, roles),
        },
        "versions": {
            "pacs-agent": __version__,
            "torch": torch.__version__.partition("+")[0],
            "torchvision": torchvision.__version__.partition("+")[0],
        },
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with alone(folder / ".lock"):
            # Looked at again: another process may have begun the run while this one decoded.
            known = read_facts(folder) if (folder / FACTS).exists() else None
            if known is None:
                write_json(folder / FACTS, facts)
    except OSError as error:
        raise TrainingError(f"{folder}: cannot be written: {error.strerror or error}") from error
    if known is not None and not begun:
        raise TrainingError(held)
    for name in ("preset", "seed", "pretrained", "parts", "data"):
        if known is not None and known.get(name) != json.loads(json.dumps(facts[name])):
            raise TrainingError(f"{folder}: this run was begun with another {name}; use another --out")
    return Run(folder, known or facts, preset, readable, cached.pictures, rows, roles)


def read_facts(folder: Path) -> dict[str, Any]:
    """What `run.json` says.

    Raises:
        TrainingError: there is none, or it is not one.
    """
    return _read(folder / FACTS, "pacs-train fit begins a run")


def read_result(folder: Path) -> dict[str, Any]:
    """What `result.json` says: calibration, thresholds, guard, figures of the hold-outs.

    Raises:
        TrainingError: the run has not come to its end.
    """
    return _read(folder / RESULT, "the run has not come to its end; pacs-train fit --resume goes on")


def preset_of(facts: dict[str, Any]) -> Preset:
    """The preset that a run was begun with."""
    return make_preset("of the run", facts["preset"])


def _read(path: Path, hint: str) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise TrainingError(f"{path}: is not there: {hint}") from error
    except (OSError, ValueError) as error:
        raise TrainingError(f"{path}: cannot be read: {error}") from error
    if not isinstance(values, dict):
        raise TrainingError(f"{path}: is not a JSON object")
    return values


def _counts(images: Sequence[Image], roles: NDArray[np.str_]) -> dict[str, Any]:
    """Images by role, part and label, and patients by role."""
    found = Counter((str(role), image.part, image.label) for image, role in zip(images, roles, strict=True))
    return {
        role: {
            "patients": len({image.patient for image, mine in zip(images, roles, strict=True) if mine == role}),
            "images": {
                part: {name: found[role, part, label] for label, name in enumerate(LABELS)}
                for part in PARTS
                if found[role, part, 0] or found[role, part, 1]
            },
        }
        for role in ROLES
    }
