"""What phantoms show, in; AUROC by severity and by kind of lesion, out.

Enters: the record that `pacs-train phantoms` leaves beside its pictures. Leaves: figures, or nothing where the data
have no such record (MURA has none). Never looks at a picture.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final

import numpy as np

from pacs_agent.evaluation.metrics import Draws, Figure, Scored, measure_group
from training.errors import TrainingError
from training.mura import Image
from training.phantoms import RECORD_NAME

SEVERITIES: Final = (
    ("subtle, up to 0.3", 0.3),
    ("0.3 to 0.55", 0.55),
    ("0.55 to 0.8", 0.8),
    ("above 0.8", float("inf")),
)
"""Name and upper end."""

ByLesion = Mapping[str, Mapping[str, tuple[int, Figure]]]
"""`severity` or `kind`, then its values: how many abnormal images, and their AUROC against all normal ones."""


def read_lesions(root: Path) -> dict[Path, tuple[str, float]] | None:
    """The kind and severity of each abnormal phantom by its path; None where the data are no phantoms.

    Args:
        root: the folder of the CSVs.

    Raises:
        TrainingError: the record cannot be read.
    """
    record = root / RECORD_NAME
    try:
        lines = record.read_text(encoding="utf-8").splitlines()
        rows = [json.loads(line) for line in lines]
        return {
            # The first component of its path is the folder's name when it was made.
            root.joinpath(*Path(row["path"]).parts[1:]): (str(row["lesion"]), float(row["severity"]))
            for row in rows
            if row["lesion"] is not None
        }
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TrainingError(f"{record}: cannot be read: {type(error).__name__}: {error}") from error


def by_lesion(
    scored: Scored, images: Sequence[Image], lesions: Mapping[Path, tuple[str, float]], draws: Draws
) -> ByLesion:
    """AUROC of each severity and of each kind, image level.

    Args:
        scored: of *images*, in the same order.
        images: those that could be read.
        lesions: of `read_lesions`.
        draws: of `draw_patients`.
    """
    told = [lesions.get(image.path) for image in images]
    kinds = np.array([lesion[0] if lesion else "" for lesion in told])
    severity = np.array([lesion[1] if lesion else np.nan for lesion in told])
    figures: dict[str, dict[str, tuple[int, Figure]]] = {"severity": {}, "kind": {}}
    chosen = [
        ("severity", name, (severity > low) & (severity <= high))
        for (name, high), low in zip(SEVERITIES, (-1.0, *(high for _, high in SEVERITIES)), strict=False)
    ] + [("kind", str(name), kinds == name) for name in np.unique(kinds) if name]
    for what, name, of_these in chosen:
        abnormal = of_these & scored.labels
        if abnormal.any():
            group = measure_group(scored.of(abnormal | ~scored.labels), draws)
            figures[what][name] = (int(abnormal.sum()), group.figures["auroc"])
    return figures
