"""A bundle and a split in, its figures out, through the daemon's own network and preprocessing.

Enters: a checked `Bundle` and the listed images. Leaves: an `Evaluation` and its `metrics.json`. Never fits anything,
never changes a threshold, never prints. An image is judged as the daemon judges a study of that one image; a study by
the mean of its images (MURA's rule), calibrated as the bundle says.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from pacs_agent.analyse.bundle import Bundle
from pacs_agent.analyse.ensemble import Ensemble, configure_torch
from pacs_agent.analyse.guard import GuardVerdict
from pacs_agent.analyse.pixels import model_input, read_picture
from pacs_agent.errors import PixelsError
from pacs_agent.evaluation.metrics import (
    ECE_BINS,
    FIGURES,
    OVERALL,
    RESAMPLES,
    Figure,
    Floats,
    Group,
    Scored,
    draw_patients,
    measure,
)
from training.anchors import ANCHORS, Level, Verdict, is_official_valid, judge
from training.cache import MAX_PIXELS
from training.errors import TrainingError
from training.lesions import ByLesion, by_lesion, read_lesions
from training.mura import Image, SplitName, data_root, fingerprint, read_split
from training.phantoms import is_phantoms
from training.studies import studies_of

BATCH_IMAGES: Final = 64
DECODE_THREADS: Final = 2
LEVELS: Final[tuple[Level, ...]] = ("image", "study")
HALF: Final = 0.5

Progress = Callable[[int, int], None]
"""Told how many images are done, of how many."""


@dataclass(frozen=True, slots=True)
class Predicted:
    """What the network said of the images that could be read.

    Attributes:
        images: those that could be read.
        probabilities: float64 (N,), raw, of `abnormal`.
        flagged: bool (N,), the guard's; None for a bundle without one.
        unreadable: path and reason of the others.
    """

    images: tuple[Image, ...]
    probabilities: Floats
    flagged: NDArray[np.bool_] | None
    unreadable: tuple[tuple[Path, str], ...]


@dataclass(frozen=True, slots=True)
class Evaluation:
    """All that is said of a bundle on a split.

    Attributes:
        scored: by level, what the figures were taken from.
        groups: by level, then `overall` and each part, at the bundle's thresholds.
        at_half: the same at 0.5.
        guard: share of the images that the guard flags; None for a bundle without one.
        lesions: AUROC by severity and kind, image level; empty where the data do not tell.
        learnt_from: whether the bundle was fitted on these very images.
        listed: images of the split and of the bundle's parts, read or not.
        root: the folder of the data.
    """

    bundle: Bundle
    split: SplitName
    root: Path
    scored: Mapping[Level, Scored]
    groups: Mapping[Level, Mapping[str, Group]]
    at_half: Mapping[Level, Mapping[str, Group]]
    guard: float | None
    lesions: ByLesion
    verdict: Verdict
    official: bool
    phantoms: bool
    learnt_from: bool
    listed: int
    unreadable: tuple[tuple[Path, str], ...]
    patients: int
    resamples: int
    seed: int


def evaluate(
    bundle: Bundle,
    data: Path,
    split: SplitName,
    *,
    device: str = "auto",
    resamples: int = RESAMPLES,
    seed: int = 0,
    progress: Progress = lambda done, of: None,
) -> Evaluation:
    """Run a bundle over those images of a split that are of its body parts: of others the daemon says nothing.

    Args:
        bundle: of `load_bundle`.
        data: `MURA-v1.1`, or the folder that holds it.
        split: `train` or `valid`.
        device: as `Ensemble`.
        resamples: of the bootstrap.
        seed: of the bootstrap.
        progress: told after each batch.

    Raises:
        TrainingError: as `read_split`, or no image is of the bundle's parts, or none could be read.
        BundleError: the weights do not fit, or the device is not there.
    """
    images = [image for image in read_split(data, split) if image.part in bundle.manifest.body_parts]
    if not images:
        raise TrainingError(f"{data}: {split} lists no picture of {', '.join(bundle.manifest.body_parts)}")
    predicted = predict_images(bundle, images, device=device, progress=progress)
    if not predicted.images:
        path, reason = predicted.unreadable[0]
        raise TrainingError(f"{data}: no image of {split} could be read, first: {path.name}: {reason}")
    patients, scored = score(bundle, predicted)
    draws = draw_patients(patients, resamples, seed)
    groups = {level: measure(scored[level], draws) for level in LEVELS}
    root = data_root(data)
    lesions = read_lesions(root)
    phantoms = is_phantoms(root)
    official = split == "valid" and is_official_valid(images, phantoms=phantoms)
    low = groups["image"][OVERALL].figures["kappa"].low
    return Evaluation(
        bundle=bundle,
        split=split,
        root=root,
        scored=scored,
        groups=groups,
        at_half={level: measure(scored[level].at(HALF), draws) for level in LEVELS},
        guard=None if predicted.flagged is None else float(predicted.flagged.mean()),
        lesions=by_lesion(scored["image"], predicted.images, lesions, draws) if lesions is not None else {},
        verdict=judge(low, official=official, phantoms=phantoms, left_out=len(predicted.unreadable)),
        official=official,
        phantoms=phantoms,
        learnt_from=learnt_from(bundle, predicted.images),
        listed=len(images),
        unreadable=predicted.unreadable,
        patients=patients,
        resamples=resamples,
        seed=seed,
    )


def predict_images(
    bundle: Bundle, images: Sequence[Image], *, device: str = "auto", progress: Progress = lambda done, of: None
) -> Predicted:
    """The network's probability of each image that can be read, as the daemon would read it.

    Raises:
        BundleError: the weights do not fit, or the device is not there.
    """
    configure_torch()
    ensemble = Ensemble(bundle, device)
    read: list[tuple[Image, float, GuardVerdict | None]] = []
    unreadable: list[tuple[Path, str]] = []
    done = 0
    for batch in _batches(bundle, images):
        inputs = [(image, picture) for image, picture in batch if not isinstance(picture, str)]
        unreadable += [(image.path, picture) for image, picture in batch if isinstance(picture, str)]
        if inputs:
            pictures = np.stack([picture for _, picture in inputs])
            examined = ensemble.examine(pictures, [image.part for image, _ in inputs], BATCH_IMAGES)
            probabilities = examined.probabilities.tolist()
            for (image, _), probability, verdict in zip(inputs, probabilities, examined.verdicts, strict=True):
                if math.isfinite(probability):
                    read.append((image, probability, verdict))
                else:
                    unreadable.append((image.path, "the network gave no probability"))
        done += len(batch)
        progress(done, len(images))
    flags = [verdict.flagged for _, _, verdict in read if verdict is not None]
    return Predicted(
        tuple(image for image, _, _ in read),
        np.array([probability for _, probability, _ in read]),
        np.array(flags) if bundle.manifest.guard else None,
        tuple(unreadable),
    )


def score(bundle: Bundle, predicted: Predicted) -> tuple[int, dict[Level, Scored]]:
    """The images and their studies, calibrated, with the bundle's thresholds.

    Returns:
        How many patients there are, and by level what `measure` takes. A study is of the images that could be read.
    """
    studies = studies_of(predicted.images)
    thresholds = np.array([bundle.threshold(str(part)) for part in studies.parts])

    def certain(raw: Floats) -> Floats:
        return np.array([bundle.calibrate(mean) for mean in raw.tolist()])

    of_study = studies.scored(certain(studies.means(predicted.probabilities)), thresholds)
    of_image = replace(of_study.of(studies.of_image), probabilities=certain(predicted.probabilities))
    return int(studies.patients.max()) + 1, {"image": of_image, "study": of_study}


def learnt_from(bundle: Bundle, images: Sequence[Image]) -> bool:
    """Whether the bundle says that it was fitted on these images."""
    data = bundle.manifest.provenance.get("data")
    known = data.get("fingerprint") if isinstance(data, dict) else None
    return known == fingerprint(images)


def metrics_json(evaluation: Evaluation) -> dict[str, Any]:
    """What `metrics.json` holds: the contract's `image`, `study` and `guard`, and beside them where they come from."""
    manifest = evaluation.bundle.manifest
    return {
        **{level: _groups_json(evaluation.groups[level]) for level in LEVELS},
        "guard": evaluation.guard,
        "at_half": {level: _groups_json(evaluation.at_half[level]) for level in LEVELS},
        "card": {"beaten": evaluation.verdict.beaten, "why": evaluation.verdict.why},
        "anchors": [asdict(anchor) for anchor in ANCHORS],
        "anchors_note": "image level and study level, valid and hidden test set: the two are not to be compared",
        "lesions": {
            what: {name: {"n_abnormal": count, "auroc": _figure_json(auroc)} for name, (count, auroc) in values.items()}
            for what, values in evaluation.lesions.items()
        },
        "bootstrap": {
            "unit": "patient",
            "resamples": evaluation.resamples,
            "seed": evaluation.seed,
            "interval": 0.95,
            "fewer": fewer_resamples(evaluation),
        },
        "provenance": {
            "bundle": {
                "name": manifest.name,
                "version": manifest.version,
                "weights_sha256": manifest.weights_sha256,
                "calibration": manifest.calibration.model_dump() if manifest.calibration else None,
                "thresholds": manifest.thresholds.model_dump(),
            },
            "data": {
                "split": evaluation.split,
                "images_listed": evaluation.listed,
                "images_read": len(evaluation.scored["image"].labels),
                "studies": len(evaluation.scored["study"].labels),
                "patients": evaluation.patients,
                "official_valid": evaluation.official,
                "phantoms": evaluation.phantoms,
                "learnt_from": evaluation.learnt_from,
            },
            "unreadable": [{"image": name, "reason": reason} for name, reason in unreadable_names(evaluation)],
            "ece_bins": ECE_BINS,
        },
    }


def fewer_resamples(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Figures that some resamples leave undefined (one class only), and how many define them."""
    return [
        {"level": level, "group": name, "figure": figure, "resamples": group.figures[figure].resamples}
        for level in LEVELS
        for name, group in evaluation.groups[level].items()
        for figure in FIGURES
        if group.figures[figure].resamples < evaluation.resamples
    ]


def unreadable_names(evaluation: Evaluation) -> Iterator[tuple[str, str]]:
    """Path inside the data folder, and reason, of each image that was left out."""
    for path, reason in evaluation.unreadable:
        yield path.relative_to(evaluation.root).as_posix(), reason


def _groups_json(groups: Mapping[str, Group]) -> dict[str, Any]:
    return {
        name: {"n": group.n, **{figure: _figure_json(group.figures[figure]) for figure in FIGURES}}
        for name, group in groups.items()
    }


def _figure_json(figure: Figure) -> dict[str, float | None]:
    return {"value": figure.value, "low": figure.low, "high": figure.high}


def _batches(bundle: Bundle, images: Sequence[Image]) -> Iterator[list[tuple[Image, NDArray[np.uint8] | str]]]:
    """The images with their inputs, or with the reason why there is none; the next batch is decoded meanwhile."""
    spec = bundle.manifest.input

    def decode(image: Image) -> NDArray[np.uint8] | str:
        try:
            picture = read_picture(image.path, max_pixels=MAX_PIXELS, longest_side=spec.source_longest_side)
            return model_input(picture, spec)
        except PixelsError as error:
            return str(error)

    chunks = [images[start : start + BATCH_IMAGES] for start in range(0, len(images), BATCH_IMAGES)]
    with ThreadPoolExecutor(DECODE_THREADS, "decode") as decoders:
        ahead = [decoders.submit(decode, image) for image in chunks[0]]
        for index, chunk in enumerate(chunks):
            answers = ahead
            following = chunks[index + 1] if index + 1 < len(chunks) else ()
            ahead = [decoders.submit(decode, image) for image in following]
            yield [(image, answer.result()) for image, answer in zip(chunk, answers, strict=True)]
