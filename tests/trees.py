"""Tiny trees of MURA's layout: a bright square is what makes a picture abnormal, stripes tell the part."""

from pathlib import Path

import numpy as np
from PIL import Image

PARTS = ("elbow", "finger", "forearm", "hand", "humerus", "shoulder", "wrist")
SIDE = 40


def picture(part: str, label: int, random: np.random.Generator) -> Image.Image:
    """A noisy picture: stripes as wide as the part's place in the list, a square if abnormal."""
    grey = random.integers(0, 40, (SIDE, SIDE)).astype(np.int64)
    grey[:, :: PARTS.index(part) + 2] += 60
    if label:
        row, column = random.integers(4, SIDE - 16, 2)
        grey[row : row + 12, column : column + 12] += 150
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8))


def make_tree(
    out: Path,
    *,
    patients: int = 10,
    views: int = 2,
    parts: tuple[str, ...] = PARTS,
    splits: tuple[str, ...] = ("train",),
    seed: int = 0,
    header: bool = False,
    first: str = "MURA-v1.1/",
) -> Path:
    """Write a tree: *patients* for each part and label, one study each. Returns its folder."""
    random = np.random.default_rng(seed)
    number = 0
    for split in splits:
        images, studies = ["path"] if header else [], ["path,label"] if header else []
        for part in parts:
            for label in (0, 1):
                for _ in range(patients):
                    number += 1
                    name = f"study1_{'positive' if label else 'negative'}"
                    study = f"{split}/XR_{part.upper()}/patient{number:05}/{name}"
                    (out / study).mkdir(parents=True)
                    studies.append(f"{first}{study}/,{label}")
                    for view in range(1, views + 1):
                        picture(part, label, random).save(out / study / f"image{view}.png")
                        images.append(f"{first}{study}/image{view}.png")
        (out / f"{split}_image_paths.csv").write_text("".join(f"{row}\n" for row in images))
        (out / f"{split}_labeled_studies.csv").write_text("".join(f"{row}\n" for row in studies))
    return out


PRESET = """
name = "tiny"
hold_out = { choose = 0.2, calibrate = 0.2 }
input = { size = 32, fit = "stretch", source_longest_side = 512, channels = 3, mean = 0.485, std = 0.229 }
architecture = { name = "enhanced_ensemble", arguments = { num_classes = 2 } }
training = { epochs = 2, batch = 16, learning_rate = 3e-3, schedule = "one-cycle", ema = 0.9 }
[[members]]
optimizer = "adamw"
[[members]]
optimizer = "sgd"
schedule = "cosine"
[[members]]
optimizer = "rmsprop"
learning_rate = 1e-4
schedule = "cyclic"
"""
