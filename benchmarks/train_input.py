"""How many pictures a second reach the network: the cache and batched augmentation, against decoding each time.

The other way is the model author's: a data set that decodes a PNG and transforms it with PIL, and a loader with two
worker processes. Both in one run, turn by turn, on the same PNGs of 512 pixels; both end in a normalised batch of
(32, 3, 160, 160). Exit 1 where the median of the turns' ratios is below 5.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from PIL import Image as Picture
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from training.augment import augment
from training.cache import open_cache
from training.mura import Image
from training.preset import read_preset

TO_REACH = 5.0
BATCH = 32
WORKERS = 2


class Decoding(Dataset[torch.Tensor]):
    """Decode, then vary with PIL, a picture at a time."""

    def __init__(self, paths: list[Path], side: int) -> None:
        self.paths = paths
        self.transform = transforms.Compose(
            [
                transforms.Resize((side, side)),
                transforms.RandomHorizontalFlip(),
                transforms.RandomRotation(15),
                transforms.RandomAffine(0, translate=(0.05, 0.05), scale=(0.9, 1.1), shear=4),
                transforms.ColorJitter(brightness=0.1, contrast=0.2),
                transforms.ToTensor(),
                transforms.Normalize([0.485] * 3, [0.229] * 3),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Picture.open(self.paths[index]) as picture:
            return self.transform(picture.convert("RGB"))


def write_pngs(folder: Path, count: int) -> list[Path]:
    """Pictures that compress about as radiographs do: a smooth shape and a little noise."""
    random = np.random.default_rng(1)
    paths = []
    for index in range(count):
        coarse = Picture.fromarray(random.integers(0, 256, (8, 6)).astype(np.uint8))
        smooth = np.asarray(coarse.resize((400, 512), Picture.Resampling.BICUBIC), np.int16)
        noisy = (smooth + random.normal(0, 2, smooth.shape).astype(np.int16)).clip(0, 255)
        paths.append(folder / f"image{index}.png")
        Picture.fromarray(noisy.astype(np.uint8)).save(paths[-1])
    return paths


def decoded_each_time(loader: DataLoader[torch.Tensor]) -> float:
    """Images a second, the workers already started."""
    batches = iter(loader)
    next(batches)
    count = 0  # the first batch waited for the workers
    started = time.perf_counter()
    for batch in batches:
        count += len(batch.contiguous(memory_format=torch.channels_last))
    return count / (time.perf_counter() - started)


def cached(pictures: np.ndarray, rounds: int) -> float:
    """Images a second of as many epochs as make the clock's grain not matter."""
    preset = read_preset("card")
    generator = torch.Generator().manual_seed(1)
    count = 0
    started = time.perf_counter()
    for _ in range(rounds):
        order = np.random.default_rng(count).permutation(len(pictures))
        for start in range(0, len(order), BATCH):
            rows = torch.from_numpy(np.asarray(pictures[order[start : start + BATCH]]))
            count += len(augment(rows, preset.input, preset.members[0].augment, generator))
    return count / (time.perf_counter() - started)


def main() -> int:
    """Print the table; 1 where the ratio is not reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=512)
    parser.add_argument("--repeat", type=int, default=5)
    arguments = parser.parse_args()
    spec = read_preset("card").input
    torch.set_num_threads(min(WORKERS, len(os.sched_getaffinity(0))))
    with tempfile.TemporaryDirectory() as name:
        paths = write_pngs(Path(name), arguments.images)
        images = [Image(path, "hand", "patient00001", "hand/patient00001/study1", 0) for path in paths]
        started = time.perf_counter()
        cache = open_cache(Path(name) / "cache", images, spec, workers=WORKERS)
        once = time.perf_counter() - started
        loader = DataLoader(
            Decoding(paths, spec.size), BATCH, shuffle=True, num_workers=WORKERS, persistent_workers=True
        )
        decoded_each_time(loader)
        cached(cache.pictures, 1)
        rows: dict[str, list[float]] = {"decode, PIL, 2 workers": [], "cache, batched": []}
        for _ in range(arguments.repeat):
            rows["decode, PIL, 2 workers"].append(decoded_each_time(loader))
            rows["cache, batched"].append(cached(cache.pictures, 3))
    print(f"{'':24} images/s: median (least to most) of {arguments.repeat}")
    for way, found in rows.items():
        print(f"{way:24} {statistics.median(found):8.0f} ({min(found):.0f} to {max(found):.0f})")
    ratio = statistics.median(ours / theirs for theirs, ours in zip(*rows.values(), strict=True))
    print(f"making the cache: {arguments.images / once:.0f} images/s, once, the start of its processes included")
    print(f"ratio, median of the turns: {ratio:.1f} (to reach: {TO_REACH})")
    return int(ratio < TO_REACH)


if __name__ == "__main__":
    sys.exit(main())
