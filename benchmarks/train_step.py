"""How long a training step of the card's member takes, against the barest loop there could be.

The barest loop has its batch in memory, normalised, channels last, and does forward, loss, backward and the optimizer's
step. Ours also reads the cache, augments, clips gradients and keeps the moving average. The same network, optimizer,
batch and threads, step by step in turn. A third row is the barest loop with torch's own dropout. Exit 1 where ours is
below 0.9 of the barest loop's images a second.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from pacs_agent.analyse.network import BaseModel, Dropout
from training.member import Task, new_state, train_step
from training.preset import read_preset

TO_REACH = 0.9
PICTURES = 512


def barest(batch: int, size: int, *, own_dropout: bool) -> Callable[[], None]:
    """A step on tensors that lie ready."""
    network = BaseModel()
    if not own_dropout:
        for name, module in list(network.named_children()):
            if isinstance(module, Dropout):
                setattr(network, name, nn.Dropout(module.p))
    network = network.to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)
    inputs = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 2, (batch,))

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(network(inputs), labels).backward()
        optimizer.step()

    return step


def ours(folder: Path, batch: int) -> Callable[[], None]:
    """A step of training/member.py on a mapped file."""
    preset = read_preset("card")
    recipe = preset.members[0].model_copy(update={"batch": batch, "learning_rate": 1e-4})
    size = preset.input.size
    path = folder / "pictures.u8"
    random = np.random.default_rng(1)
    path.write_bytes(random.integers(0, 256, PICTURES * size**2).astype(np.uint8).tobytes())
    task = Task(
        folder=folder,
        number=1,
        seed=1,
        spec=preset.input,
        recipe=recipe,
        flip=False,
        pretrained=False,
        pictures=np.memmap(path, np.uint8, "r", shape=(PICTURES, size, size)),
        rows=np.arange(PICTURES),
        labels=random.integers(0, 2, PICTURES),
        weights=np.ones(PICTURES, np.float32),
        chosen_by=np.arange(2),
        score=lambda _: {"score": 0.0},
    )
    state = new_state(task, torch.device("cpu"))
    labels, weights = torch.from_numpy(task.labels), torch.from_numpy(task.weights)
    done = 0

    def step() -> None:
        nonlocal done
        train_step(task, state, random.permutation(task.rows)[:batch], labels, weights, 0, done)
        done += 1

    return step


def main() -> int:
    """Print the table; 1 where the ratio is not reached."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=15)
    parser.add_argument("--batch", type=int, default=32)
    arguments = parser.parse_args()
    torch.set_num_threads(min(2, len(os.sched_getaffinity(0))))
    torch.manual_seed(1)
    size = read_preset("card").input.size
    with tempfile.TemporaryDirectory() as name:
        ways = {
            "barest loop": barest(arguments.batch, size, own_dropout=True),
            "training/member.py": ours(Path(name), arguments.batch),
            "barest, torch's dropout": barest(arguments.batch, size, own_dropout=False),
        }
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        for index in range(arguments.steps + 2):
            for way, step in ways.items():
                started = time.perf_counter()
                step()
                if index >= 2:  # the first ones choose kernels
                    seconds[way].append(time.perf_counter() - started)
    print(
        f"batch {arguments.batch}, {size} px, {torch.get_num_threads()} threads, {arguments.steps} steps each in turn"
    )
    print(f"{'':24} images/s: median (best)")
    for way, found in seconds.items():
        print(f"{way:24} {arguments.batch / statistics.median(found):6.1f} ({arguments.batch / min(found):.1f})")
    ratio = statistics.median(
        bare / mine for bare, mine in zip(seconds["barest loop"], seconds["training/member.py"], strict=True)
    )
    print(f"ratio to the barest loop, median of pairs: {ratio:.2f} (to reach: {TO_REACH})")
    return int(ratio < TO_REACH)


if __name__ == "__main__":
    sys.exit(main())
