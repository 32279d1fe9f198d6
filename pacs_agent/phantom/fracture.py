"""Fractures: a bone cut in two, the distal fragment and what hangs on it moved.

Enters: a normal anatomy, a `Site` and a Generator. Leaves: the anatomy with the fracture, and what encloses it.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from pacs_agent.phantom.anatomy import Anatomy, Bone, Points, Profile, ellipse, moved_bone, turned
from pacs_agent.phantom.site import Made, Site

SPLINTER_CORTEX: Profile = ((0.0, 1.6), (1.0, 1.6))
SPLINTER_SPONGIOSA: Profile = ((0.0, 0.2), (1.0, 0.2))


def transverse(part: Anatomy, site: Site, rng: np.random.Generator, severity: float) -> Made:
    """Straight across the shaft; subtle: a hairline."""
    return _slipped(part, site, rng, severity, float(rng.uniform(-14, 14)))


def oblique(part: Anatomy, site: Site, rng: np.random.Generator, severity: float) -> Made:
    """Across the shaft at a slant; subtle: a hairline."""
    return _slipped(part, site, rng, severity, float(rng.choice((-1, 1)) * rng.uniform(32, 58)))


def displaced(part: Anatomy, site: Site, rng: np.random.Generator, severity: float) -> Made:
    """The fragments lie beside each other and overlap; subtle: they still touch by half."""
    step = _step(site)
    shift = step * float(rng.uniform(0.55, 0.75) + 0.7 * severity)
    overlap = step * float(rng.uniform(0.1, 0.4) + 0.9 * severity)
    made, enclosing = _fractured(part, site, rng, severity, float(rng.uniform(-40, 40)), shift, -overlap)
    return _comminuted(made, site, rng, round(1 + 5 * severity)), enclosing


def _comminuted(part: Anatomy, site: Site, rng: np.random.Generator, count: int) -> Anatomy:
    """Splinters about the break."""
    splinters = []
    for number in range(count):
        off_along, off_across = rng.normal(0, (0.7, 0.8)) * site.half
        x, y = site.middle + site.along * off_along + site.across * off_across
        long, turn_deg = site.half * float(rng.uniform(0.22, 0.45)), float(rng.uniform(0, 180))
        outline = ellipse(float(x), float(y), long, long * float(rng.uniform(0.35, 0.6)), turn_deg)
        splinters.append(Bone(f"splinter {number}", outline, outline[[0, 24]], SPLINTER_CORTEX, SPLINTER_SPONGIOSA))
    return replace(part, bones=(*part.bones, *splinters))


def _slipped(part: Anatomy, site: Site, rng: np.random.Generator, severity: float, tilt_deg: float) -> Made:
    shift = _step(site) * float(rng.uniform(0.05, 0.2) + severity * rng.uniform(0.4, 1.0))
    return _fractured(part, site, rng, severity, tilt_deg, shift, float(rng.uniform(0.5, 1.0) + 1.2 * severity))


def _step(site: Site) -> float:
    """What a shift is measured by: a wide metaphysis slips by less than its width."""
    return min(site.half, 9.0)


def _fractured(
    part: Anatomy,
    site: Site,
    rng: np.random.Generator,
    severity: float,
    tilt_deg: float,
    shift_mm: float,
    gap_mm: float,
) -> Made:
    """Two fragments of the bone at *site*, *shift_mm* aside and *gap_mm* apart (negative: driven past each other)."""
    bone, half = site.bone, site.half
    reach, steps = 1000.0, 61
    along_cut = np.linspace(-1, 1, steps) * 3.2 * half
    teeth = np.cumsum(rng.normal(0, 1, steps))
    teeth = (teeth - np.linspace(teeth[0], teeth[-1], steps)) * half * 0.035
    edge = np.stack([along_cut, teeth], axis=1)
    edge = np.concatenate([[(-reach, 0.0)], edge, [(reach, 0.0)]])
    # In the frame of the cut: x across the bone, y along it to the distal end.
    near = np.concatenate([edge, [(reach, -reach), (-reach, -reach)]])
    far = np.concatenate([edge, [(reach, reach), (-reach, reach)]])
    frame = np.stack([site.across, site.along])

    def placed(points: Points) -> Points:
        return np.asarray(turned(points, tilt_deg) @ frame + site.middle, dtype=np.float64)

    side = float(rng.choice((-1, 1)))
    # However far the fragment reaches, its end stays within the flesh.
    follows = frozenset(b.name for b in part.bones if b is bone or hangs_on(b, bone))
    lever = max(float(((b.outline - site.middle) @ site.along).max()) for b in part.bones if b.name in follows)
    bend = side * severity * float(rng.uniform(2, min(16.0, np.rad2deg((half + 6) / max(lever, 1.0)))))

    def moved(points: Points) -> Points:
        return turned(points, bend, site.middle) + site.across * side * shift_mm + site.along * gap_mm

    # The near fragment goes back to where it was; the far one has been carried along.
    carried = moved_part(part, follows, bone.chain, site.middle, site.along, moved)
    bones: list[Bone] = []
    for other in carried.bones:
        if other.name == bone.name:
            bones.append(replace(bone, clip=placed(near)))
            bones.append(moved_bone(replace(bone, clip=placed(far)), moved))
        else:
            bones.append(other)
    extent = max(1.5 * half, 5.0)
    box = placed(np.array([(-1.6 * half, -extent), (1.6 * half, -extent), (1.6 * half, extent), (-1.6 * half, extent)]))
    enclosing = np.concatenate([box, box + site.across * side * shift_mm])
    return replace(carried, bones=tuple(bones)), enclosing


def hangs_on(other: Bone, bone: Bone) -> bool:
    """Whether *other* lies further along the chain of *bone*."""
    return bool(bone.chain) and other.chain.startswith(bone.chain) and other.order > bone.order


def moved_part(
    part: Anatomy,
    names: frozenset[str],
    chain: str,
    middle: Points,
    along: Points,
    move: Callable[[Points], Points],
) -> Anatomy:
    """The anatomy with some of its bones moved, and the flesh that covers their chain beyond *middle*."""
    tissues = []
    for tissue in part.tissues:
        skin = tissue.outline
        if tissue.chain and tissue.chain == chain:
            is_far = (skin - middle) @ along > 0
            skin = np.where(is_far[:, None], move(skin), skin)
        tissues.append(replace(tissue, outline=skin))
    bones = tuple(moved_bone(bone, move) if bone.name in names else bone for bone in part.bones)
    return replace(part, bones=bones, tissues=tuple(tissues))
