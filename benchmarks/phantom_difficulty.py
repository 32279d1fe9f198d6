"""How hard the phantoms are: members of the card against logistic regression on thumbnails, and against short cuts.

Enters: nothing but a seed. Leaves: AUROC of 16×16 thumbnails; of what must tell nothing (the border, the grey levels
outside the lesion, the size of the file); of the card's members, trained as `pacs-train fit` trains them for fewer
epochs, by image and by study, by severity and by kind of lesion. Exit 1 where thumbnails reach .75, a short cut .6, or
the members' studies stay below .90.
"""

import argparse
import io
import os
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from pacs_agent.analyse.ensemble import configure_torch, resolve_device
from pacs_agent.analyse.pixels import InputSpec, model_input
from pacs_agent.phantom.radiograph import radiograph
from training.checkpoint import read_tensors
from training.lesions import SEVERITIES
from training.member import BEST, Task, new_member, predict_member, train_member
from training.mura import Image as Listed
from training.phantoms import LONGEST_SIDE, Planned, TreeSettings, plan
from training.preset import Preset, read_preset
from training.split import hold_out
from training.studies import choosing_figures, studies_of
from training.workers import processes

THUMBNAIL = 16
BORDER = 0.05  # of the picture's side: what lies outside holds no lesion
HIGHEST_THUMBNAIL, HIGHEST_SHORT_CUT, LOWEST_STUDY = 0.75, 0.60, 0.90
SHORT_CUTS = {"border": slice(0, 64), "grey levels elsewhere": slice(64, 96), "file size": slice(96, 97)}

Floats = NDArray[np.float64]


def made(item: tuple[Planned, InputSpec]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The network's input, and what must tell nothing: border, grey levels outside the lesion, file size."""
    planned, spec = item
    found = planned.made()
    picture = np.rint(found.picture * 255).astype(np.uint8)
    # Every picture hides a box: a normal one where the lesion of its abnormal twin would be.
    box = found.lesion_box or twin_box(planned)
    rim = max(2, round(BORDER * min(picture.shape)))
    mask = np.zeros(picture.shape, dtype=bool)
    mask[box[0] : box[2], box[1] : box[3]] = True
    counts = np.histogram(picture[~mask], bins=32, range=(0, 256))[0] / max(1, np.count_nonzero(~mask))
    edges = [picture[:rim], picture[-rim:], picture[:, :rim].T, picture[:, -rim:].T]
    strips = [np.asarray(Image.fromarray(np.ascontiguousarray(e)).resize((16, 1), Image.Resampling.BOX)) for e in edges]
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=4)
    told = np.concatenate([np.concatenate(strips, axis=None) / 255, counts, [len(buffer.getvalue()) / picture.size]])
    return model_input(picture, spec), told.astype(np.float32)


def twin_box(planned: Planned) -> tuple[int, int, int, int]:
    twin = radiograph(
        planned.body_part,
        abnormal=True,
        seed=planned.seed,
        laterality=planned.laterality,
        view=planned.view,
        longest_side=LONGEST_SIDE,
        age_years=planned.age_years,
    )
    return twin.lesion_box or (0, 0, 0, 0)


def linear(x: NDArray[np.float32], labels: NDArray[np.int64], valid: NDArray[np.bool_], strength: float) -> float:
    """AUROC on valid of a logistic regression fitted on the others."""
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
    found = model.fit(x[~valid], labels[~valid]).predict_proba(x[valid])[:, 1]
    return float(roc_auc_score(labels[valid], found))


def thumbnails(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    small = [Image.fromarray(p).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX) for p in pictures]
    return np.stack([np.asarray(s, dtype=np.float32).ravel() for s in small]) / 255


def listed(planned: Planned) -> Listed:
    """As `read_split` would list it."""
    _, _, _, patient, study, _ = planned.path.parts
    key = f"{planned.body_part}/{patient}/{study.partition('_')[0]}"
    return Listed(Path(planned.path), planned.body_part, patient, key, int(planned.lesion is not None))


def members(
    preset: Preset, pictures: NDArray[np.uint8], images: list[Listed], valid: NDArray[np.bool_], count: int, seed: int
) -> Floats:
    """The mean probability of the first *count* members, of valid."""
    train = np.flatnonzero(~valid)
    share = preset.hold_out
    roles = hold_out([images[row] for row in train], share.choose, share.calibrate, seed)
    role = np.array([roles[images[row].patient] for row in train])
    chosen = train[role == "choose"]
    studies = studies_of([images[row] for row in chosen])
    device = resolve_device("auto")
    found = []
    for number in range(1, count + 1):
        with tempfile.TemporaryDirectory() as folder:
            task = Task(
                folder=Path(folder),
                number=number,
                seed=seed,
                spec=preset.input,
                recipe=preset.members[number - 1],
                flip=preset.test_time_flip,
                pretrained=False,
                pictures=pictures,
                rows=train[role != "choose"],
                labels=np.array([image.label for image in images], np.int64),
                weights=np.ones(len(images), np.float32),
                chosen_by=chosen,
                score=lambda probabilities: choosing_figures(studies, probabilities),
            )
            start = time.monotonic()
            best = train_member(task, device)
            print(f"member {number}: {time.monotonic() - start:.0f} s, {best}", file=sys.stderr, flush=True)
            network = new_member(task.recipe)
            network.load_state_dict(read_tensors(task.folder / BEST)[0])
        network = network.eval().to(device).to(memory_format=torch.channels_last)
        found.append(predict_member(network, pictures[valid], preset.input, flip=preset.test_time_flip))
    return np.mean(found, axis=0)


def print_studies(planned: list[Planned], images: list[Listed], probabilities: Floats) -> float:
    """AUROC of all studies, and of those of each severity and kind against all normal ones; the first is returned."""
    studies = studies_of(images)
    values = studies.means(probabilities)
    first = [planned[row] for row in np.unique(studies.of_image, return_index=True)[1]]
    overall = float(roc_auc_score(studies.labels, values))
    print(f"members, studies       AUROC {overall:.3f}")
    severity = np.array([p.lesion.severity if p.lesion else np.nan for p in first])
    kinds = np.array([p.lesion.kind if p.lesion else "" for p in first])
    lows = (-1.0, *(high for _, high in SEVERITIES))
    groups = [
        (name, (severity > low) & (severity <= high)) for (name, high), low in zip(SEVERITIES, lows, strict=False)
    ]
    groups += [(str(kind), kinds == kind) for kind in np.unique(kinds[kinds != ""])]
    for name, of_these in groups:
        if of_these.any():
            some = of_these | ~studies.labels
            auroc = roc_auc_score(studies.labels[some], values[some])
            print(f"  {name:<20} {auroc:.3f}  ({np.count_nonzero(of_these)} studies)")
    return overall


def main() -> int:
    """Print the figures; 1 where one of them is on the wrong side."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=1300)
    parser.add_argument(
        "--members", type=int, default=1, choices=(0, 1, 2, 3), help="0: thumbnails and short cuts only"
    )
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--subtle", type=float, default=TreeSettings(2, 0).subtle)
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    arguments = parser.parse_args()

    configure_torch()
    preset = read_preset("card").changed(epochs=arguments.epochs, rebalance=False)
    planned = list(plan(TreeSettings(arguments.patients, arguments.seed, arguments.subtle)))
    start = time.monotonic()
    with processes(arguments.workers) as pool:
        results = list(pool.map(made, [(p, preset.input) for p in planned], chunksize=16))
    print(f"{len(planned)} pictures made in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    pictures, told = np.stack([r[0] for r in results]), np.stack([r[1] for r in results])
    images = [listed(p) for p in planned]
    labels = np.array([image.label for image in images], np.int64)
    valid = np.array([p.split == "valid" for p in planned])
    print(f"train {np.count_nonzero(~valid)} images, valid {np.count_nonzero(valid)}, abnormal {labels.mean():.3f}")

    failed = []
    for name, columns in SHORT_CUTS.items():
        auroc = linear(told[:, columns], labels, valid, 1.0)
        print(f"{name:<22} AUROC {auroc:.3f}  (below {HIGHEST_SHORT_CUT})")
        failed += [name] if auroc >= HIGHEST_SHORT_CUT else []
    thumbnail = linear(thumbnails(pictures), labels, valid, 1e-3)
    print(f"16×16 thumbnails       AUROC {thumbnail:.3f}  (below {HIGHEST_THUMBNAIL})", flush=True)
    failed += ["thumbnails"] if thumbnail >= HIGHEST_THUMBNAIL else []
    if arguments.members:
        found = members(preset, pictures, images, valid, arguments.members, arguments.seed)
        image = roc_auc_score(labels[valid], found)
        print(f"members, images        AUROC {image:.3f}  gap {image - thumbnail:+.3f}")
        of_valid = np.flatnonzero(valid)
        study = print_studies([planned[row] for row in of_valid], [images[row] for row in of_valid], found)
        failed += ["members"] if study < LOWEST_STUDY else []
    if failed:
        print(f"on the wrong side: {', '.join(failed)}")
    return int(bool(failed))


if __name__ == "__main__":
    sys.exit(main())
