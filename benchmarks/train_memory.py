"""What 40,000 pictures of 320 pixels cost while a network is fitted: disk of the cache, memory of all processes.

The pictures are links to a few PNGs, each decoded as if it were its own. The cache is made; all of it is fed, shuffled
and augmented, in batches of 32; then one member of the card takes a few steps and predicts its hold-out. Memory is
RssAnon, what cannot be given back, of this process and its children together, at its highest. The member's row is not
judged: what it has above the row before are the network's activations, which follow its batch and not the number of
pictures (`--images 4000` shows it), and on a GPU lie there. Exit 1 where 5 GB of disk or 2 GB of memory are reached.
"""

import argparse
import os
import re
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import Progress
from train_input import write_pngs

from training.augment import augment
from training.cache import open_cache
from training.member import Task, train_member
from training.mura import Image
from training.preset import read_preset

DISK_GB, MEMORY_GB = 5.0, 2.0
BATCH, SIZE, STEPS = 32, 320, 10
SAMPLE_S = 0.05


def rss_anon(pid: int) -> int:
    """Bytes of a process and its children; 0 where it has gone."""
    try:
        found = re.search(r"RssAnon:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text())
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return 0
    return (int(found[1]) << 10 if found else 0) + sum(rss_anon(int(child)) for child in children)


@contextmanager
def highest_memory(rows: dict[str, float], name: str) -> Iterator[None]:
    """Watch memory meanwhile; its highest, in GB, becomes a row."""
    stop, highest = threading.Event(), 0

    def watch() -> None:
        nonlocal highest
        while not stop.wait(SAMPLE_S):
            highest = max(highest, rss_anon(os.getpid()))

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
        rows[name] = max(highest, rss_anon(os.getpid())) / 1e9


def main() -> int:
    """Print the table; 1 where a bound is reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=40_000)
    parser.add_argument("--dir", type=Path, help="where the cache is made; default: the directory for temporary files")
    arguments = parser.parse_args()
    torch.set_num_threads(min(2, len(os.sched_getaffinity(0))))
    preset = read_preset("card")
    spec = replace(preset.input, size=SIZE)
    memory: dict[str, float] = {}
    with tempfile.TemporaryDirectory(dir=arguments.dir) as name, Progress(console=Console(stderr=True)) as progress:
        folder = Path(name)
        pngs = write_pngs(folder, 64)
        images = []
        for number in range(arguments.images):
            path = folder / f"link{number}.png"
            path.symlink_to(pngs[number % len(pngs)])
            images.append(Image(path, "hand", f"patient{number:05}", f"hand/patient{number:05}/study1", number % 2))
        task = progress.add_task("making the cache", total=len(images))
        with highest_memory(memory, "making the cache"):
            cache = open_cache(folder / "cache", images, spec, advance=lambda done: progress.advance(task, done))
        disk = sum(path.stat().st_blocks * 512 for path in (folder / "cache").rglob("*")) / 1e9
        order = np.random.default_rng(1).permutation(len(images))
        generator = torch.Generator().manual_seed(1)
        with highest_memory(memory, "feeding an epoch"):
            for start in progress.track(range(0, len(order), BATCH), description="feeding an epoch"):
                rows = torch.from_numpy(np.asarray(cache.pictures[order[start : start + BATCH]]))
                augment(rows, spec, preset.members[0].augment, generator)
        member = Task(
            folder=folder / "member",
            number=1,
            seed=1,
            spec=spec,
            recipe=preset.members[0].model_copy(update={"batch": BATCH, "epochs": 1}),
            flip=False,
            pretrained=False,
            pictures=cache.pictures,
            rows=order[: STEPS * BATCH],
            labels=np.array([image.label for image in images]),
            weights=np.ones(len(images), np.float32),
            chosen_by=np.sort(order[-len(order) // 10 :][:2_000]),
            score=lambda _: {"score": 0.0},
        )
        task = progress.add_task("a member", total=STEPS)
        with highest_memory(memory, f"{STEPS} steps of the card's member"):
            train_member(member, torch.device("cpu"), advance=lambda done: progress.advance(task, done))
    print(f"{arguments.images} pictures of {SIZE} pixels: {disk:.2f} GB of disk (to reach: below {DISK_GB})")
    *judged, _ = memory
    for stage, found in memory.items():
        note = f" (to reach: below {MEMORY_GB})" if stage in judged else ", the network's activations among it"
        print(f"{stage:32} {found:5.2f} GB RssAnon at most{note}")
    return int(disk >= DISK_GB or max(memory[stage] for stage in judged) >= MEMORY_GB)


if __name__ == "__main__":
    sys.exit(main())
