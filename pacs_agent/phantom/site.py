"""Where a lesion may lie: places in tubular bones.

Enters: a normal anatomy and a Generator. Leaves: a `Site`, its frame in millimetres. It changes nothing.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from pacs_agent.phantom.anatomy import Anatomy, Bone, Points

# Which bones of a part's picture are its own, by the beginning of their names.
OWN_BONES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "elbow": ("humerus", "radius", "ulna"),
        "finger": ("proximal phalanx", "middle phalanx", "distal phalanx"),
        "forearm": ("radius", "ulna"),
        "hand": ("metacarpal", "proximal phalanx", "middle phalanx"),
        "humerus": ("humerus",),
        "shoulder": ("humerus", "clavicle"),
        "wrist": ("radius", "radius", "ulna", "metacarpal"),
    }
)
MARGIN = 0.12  # of the field: how far inside the picture a lesion lies


@dataclass(frozen=True, slots=True)
class Site:
    """A place in a tubular bone: its middle, the unit vectors along and across, the half width; mm."""

    bone: Bone
    way: float
    middle: Points
    along: Points
    across: Points
    half: float


Made = tuple[Anatomy, Points]
"""An anatomy with a lesion, and points in mm that enclose the lesion."""


def shaft_site(part: Anatomy, body_part: str, rng: np.random.Generator) -> Site:
    """A place in a shaft of the part's own bones, well inside the picture; thick bones have more of them."""
    names = OWN_BONES[body_part]
    sites = []
    for bone in part.bones:
        weight = sum(bone.name.startswith(name) for name in names)
        if not weight or bone.shaft is None:
            continue
        for way in rng.uniform(*bone.shaft, 4):
            site = site_at(bone, float(way))
            if is_well_inside(part, site.middle):
                sites.append((site, weight * site.half**2))
    weights = np.array([weight for _, weight in sites])
    return sites[int(rng.choice(len(sites), p=weights / weights.sum()))][0]


def is_well_inside(part: Anatomy, point: Points, margin: float = MARGIN) -> bool:
    """Whether a point stays in the picture however the part is placed; *margin* is a share of the field."""
    x0, y0, x1, y1 = part.field
    inset = np.array([x1 - x0, y1 - y0]) * margin
    low, high = np.array([x0, y0]) + inset, np.array([x1, y1]) - inset
    return bool((point > low).all() and (point < high).all())


def site_at(bone: Bone, way: float) -> Site:
    """The place of a bone at *way* (0..1) along its axis."""
    axis = bone.axis[1] - bone.axis[0]
    length = float(np.linalg.norm(axis))
    along = axis / length
    across = np.array([-along[1], along[0]])
    ring = np.concatenate([bone.outline, bone.outline[:1]]) - bone.axis[0]
    ways, offsets = ring @ along / length - way, ring @ across
    crossing = np.nonzero(np.sign(ways[:-1]) != np.sign(ways[1:]))[0]
    share = ways[crossing] / (ways[crossing] - ways[crossing + 1])
    hits = offsets[crossing] + share * (offsets[crossing + 1] - offsets[crossing])
    middle = bone.axis[0] + along * (way * length) + across * ((hits.min() + hits.max()) / 2)
    return Site(bone, way, middle, along, across, float(hits.max() - hits.min()) / 2)
