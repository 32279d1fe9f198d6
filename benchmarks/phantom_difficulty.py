"""How hard the phantoms are: a small network against logistic regression on thumbnails.

Enters: nothing but a seed. Leaves: AUROC of 16×16 thumbnails, of one member of the card (image and study level), the
gap, and AUROC by severity and by kind of lesion; then the same thumbnails' view of what must tell nothing: the border,
the grey levels outside the lesion, the size of the file. Exit 1 where thumbnails reach .75 or the network .90 by study.
"""

import argparse
import io
import os
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score, roc_auc_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn

from pacs_agent.analyse.network import BaseModel
from pacs_agent.analyse.pixels import InputSpec, model_input
from pacs_agent.phantom.radiograph import radiograph
from training.phantoms import LONGEST_SIDE, Planned, TreeSettings, plan

THUMBNAIL = 16
BORDER = 0.05  # of the picture's side: what lies outside holds no lesion
SEVERITIES = ((0.0, 0.3), (0.3, 0.5), (0.5, 0.7), (0.7, 1.01))
HIGHEST_THUMBNAIL, LOWEST_STUDY = 0.75, 0.90


def spec(size: int) -> InputSpec:
    return InputSpec(size, "stretch", LONGEST_SIDE, 3, 0.485, 0.229)


def made(item: tuple[Planned, int]) -> tuple[NDArray[np.uint8], NDArray[np.float32]]:
    """The network's input, and what must tell nothing: border, grey levels outside the lesion, file size."""
    planned, size = item
    found = planned.made()
    picture = np.rint(found.picture * 255).astype(np.uint8)
    # Every picture hides a box: a normal one where the lesion of its abnormal twin would be.
    box = found.lesion_box or twin_box(planned)
    rows, columns = picture.shape
    rim = max(2, round(BORDER * min(rows, columns)))
    mask = np.zeros(picture.shape, dtype=bool)
    mask[box[0] : box[2], box[1] : box[3]] = True
    counts = np.histogram(picture[~mask], bins=32, range=(0, 256))[0] / max(1, np.count_nonzero(~mask))
    edges = [picture[:rim], picture[-rim:], picture[:, :rim].T, picture[:, -rim:].T]
    strips = [np.asarray(Image.fromarray(np.ascontiguousarray(e)).resize((16, 1), Image.Resampling.BOX)) for e in edges]
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG", compress_level=4)
    told = np.concatenate([np.concatenate(strips, axis=None) / 255, counts, [len(buffer.getvalue()) / picture.size]])
    return model_input(picture, spec(size)), told.astype(np.float32)


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


def batches(order: NDArray[np.int64], size: int) -> Iterator[NDArray[np.int64]]:
    for start in range(0, len(order) - size + 1, size):
        yield order[start : start + size]


def normalised(pictures: NDArray[np.uint8]) -> torch.Tensor:
    x = torch.from_numpy(pictures).unsqueeze(1).float().div_(255).sub_(0.485).div_(0.229)
    return x.expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)


def trained(
    x: NDArray[np.uint8], y: NDArray[np.int64], test: NDArray[np.uint8], say_auroc, epochs: int, seed: int
) -> NDArray[np.float64]:
    """A member of the card on flipped pictures, AdamW and one cycle; its probabilities for *test*."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = BaseModel().to(memory_format=torch.channels_last)
    batch = 32
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=epochs * (len(x) // batch))
    labels = torch.from_numpy(y)
    found = np.zeros(len(test))
    for epoch in range(epochs):
        network.train()
        start, total = time.monotonic(), 0.0
        for rows in batches(rng.permutation(len(x)), batch):
            pictures = x[rows]
            if rng.random() < 0.5:
                pictures = pictures[:, :, ::-1].copy()
            loss = nn.functional.cross_entropy(network(normalised(pictures)), labels[rows])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            schedule.step()
            total += float(loss.detach())
        took = time.monotonic() - start
        network.eval()
        with torch.inference_mode():
            parts = [network(normalised(test[at : at + 64])).softmax(dim=1)[:, 1] for at in range(0, len(test), 64)]
        found = torch.cat(parts).double().numpy()
        print(
            f"epoch {epoch + 1}/{epochs}  loss {total / (len(x) // batch):.3f}  AUROC image {say_auroc(found):.3f}"
            f"  {len(x) / took:.0f} images/s",
            file=sys.stderr,
            flush=True,
        )
    return found


def linear(x: NDArray, y: NDArray, test_x: NDArray, test_y: NDArray, strength: float = 1e-2) -> float:
    model = make_pipeline(StandardScaler(), LogisticRegression(C=strength, max_iter=2000))
    return float(roc_auc_score(test_y, model.fit(x, y).predict_proba(test_x)[:, 1]))


def thumbnails(pictures: NDArray[np.uint8]) -> NDArray[np.float32]:
    small = [Image.fromarray(p).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.BOX) for p in pictures]
    return np.stack([np.asarray(s, dtype=np.float32).ravel() for s in small]) / 255


def by_study(planned: list[Planned], values: NDArray[np.float64]) -> tuple[NDArray, NDArray, list[Planned]]:
    groups: dict[str, list[int]] = {}
    for number, picture in enumerate(planned):
        groups.setdefault(str(picture.path.parent), []).append(number)
    first = [planned[rows[0]] for rows in groups.values()]
    labels = np.array([int(p.lesion is not None) for p in first])
    return labels, np.array([values[rows].mean() for rows in groups.values()]), first


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--patients", type=int, default=1300)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--size", type=int, default=160)
    parser.add_argument("--subtle", type=float, default=TreeSettings(2, 0).subtle)
    parser.add_argument("--workers", type=int, default=min(2, os.cpu_count() or 1))
    arguments = parser.parse_args()

    planned = plan(TreeSettings(arguments.patients, arguments.seed, arguments.subtle))
    start = time.monotonic()
    with ProcessPoolExecutor(arguments.workers, get_context("spawn")) as pool:
        results = list(pool.map(made, [(p, arguments.size) for p in planned], chunksize=16))
    print(f"{len(planned)} pictures made in {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    x, told = np.stack([r[0] for r in results]), np.stack([r[1] for r in results])
    y = np.array([int(p.lesion is not None) for p in planned])
    is_valid = np.array([p.split == "valid" for p in planned])
    valid = [p for p, flag in zip(planned, is_valid, strict=True) if flag]
    print(f"train {np.count_nonzero(~is_valid)} images, valid {len(valid)}, abnormal {y.mean():.3f}")

    def told_by(columns: slice) -> float:
        return linear(told[~is_valid][:, columns], y[~is_valid], told[is_valid][:, columns], y[is_valid], 1.0)

    print(f"border alone           AUROC {told_by(slice(0, 64)):.3f}")
    print(f"grey levels elsewhere  AUROC {told_by(slice(64, 96)):.3f}")
    print(f"file size alone        AUROC {told_by(slice(96, 97)):.3f}")
    small = thumbnails(x)
    thumbnail = linear(small[~is_valid], y[~is_valid], small[is_valid], y[is_valid], 1e-3)
    print(f"16×16 thumbnails       AUROC {thumbnail:.3f}", flush=True)
    if arguments.epochs < 1:
        return 0

    found = trained(
        x[~is_valid], y[~is_valid], x[is_valid], lambda p: roc_auc_score(y[is_valid], p), arguments.epochs, 1
    )
    image = roc_auc_score(y[is_valid], found)
    labels, values, first = by_study(valid, found)
    study = roc_auc_score(labels, values)
    print(f"one member, images     AUROC {image:.3f}   gap {image - thumbnail:+.3f}")
    print(f"one member, studies    AUROC {study:.3f}   kappa at .5 {cohen_kappa_score(labels, values > 0.5):.3f}")
    normal = values[labels == 0]

    def against_normal(chosen: list[bool]) -> str:
        some = values[np.array(chosen)]
        if not len(some):
            return "    –"
        return f"{roc_auc_score([0] * len(normal) + [1] * len(some), [*normal, *some]):.3f}  ({len(some)} studies)"

    for low, high in SEVERITIES:
        chosen = [p.lesion is not None and low <= p.lesion.severity < high for p in first]
        print(f"  severity {low:.1f} to {min(high, 1):.1f}      {against_normal(chosen)}")
    for kind in sorted({p.lesion.kind for p in first if p.lesion is not None}):
        print(f"  {kind:<20}  {against_normal([p.lesion is not None and p.lesion.kind == kind for p in first])}")
    for part in sorted({p.body_part for p in first}):
        mine = np.array([p.body_part == part for p in first])
        print(f"  {part:<20}  {roc_auc_score(labels[mine], values[mine]):.3f}  ({mine.sum()} studies)")
    return int(thumbnail >= HIGHEST_THUMBNAIL or study < LOWEST_STUDY)


if __name__ == "__main__":
    sys.exit(main())
