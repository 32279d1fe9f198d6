"""Abnormality: fractures, plates, wires, lytic and sclerotic lesions, put into an `Anatomy`.

Enters: a normal anatomy and a Generator. Leaves: the anatomy with one lesion, and where it is. It changes geometry
only; what the lesion looks like follows from the same physics as everything else.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from pacs_agent.phantom.anatomy import Anatomy, Bone, Metal, Points, Spot, ellipse, moved_bone, tube, turned

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
Maker = Callable[[Anatomy, Site, np.random.Generator, float], Made]


def with_lesion(
    part: Anatomy, body_part: str, rng: np.random.Generator, *, kind: str | None = None, severity: float | None = None
) -> tuple[Anatomy, str, Points]:
    """The anatomy with a lesion.

    Args:
        part: a normal one.
        body_part: whose own bones may have it.
        rng: chance.
        kind: one of `LESIONS`; None: any.
        severity: 0 (subtle) to 1 (gross); None: any from 0.35 up, so that a picture of 160 pixels shows it.

    Returns:
        The anatomy, the kind, and points in mm that enclose the lesion.
    """
    chosen = kind if kind is not None else str(rng.choice(tuple(LESIONS)))
    degree = float(rng.uniform(0.35, 1.0)) if severity is None else severity
    site = _site(part, OWN_BONES[body_part], rng)
    made, enclosing = LESIONS[chosen](part, site, rng, degree)
    return made, chosen, enclosing


def _site(part: Anatomy, names: tuple[str, ...], rng: np.random.Generator) -> Site:
    x0, y0, x1, y1 = part.field
    low = np.array([x0 + MARGIN * (x1 - x0), y0 + MARGIN * (y1 - y0)])
    high = np.array([x1 - MARGIN * (x1 - x0), y1 - MARGIN * (y1 - y0)])
    sites = []
    for bone in part.bones:
        weight = sum(bone.name.startswith(name) for name in names)
        if not weight or bone.shaft is None:
            continue
        for way in rng.uniform(*bone.shaft, 4):
            site = site_at(bone, float(way))
            if (site.middle > low).all() and (site.middle < high).all():
                sites.append((site, weight * site.half))
    weights = np.array([weight for _, weight in sites])
    return sites[int(rng.choice(len(sites), p=weights / weights.sum()))][0]


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


def _fracture(part: Anatomy, site: Site, rng: np.random.Generator, severity: float, tilt_deg: float) -> Made:
    """Two fragments; the distal one, and what hangs on it, is shifted, tilted and driven in or apart."""
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
    step = min(half, 7.0)  # a wide metaphysis slips by less than its width
    shift = side * step * float(rng.uniform(0.15, 0.35) + severity * rng.uniform(0.1, 0.8))
    gap = float(rng.uniform(0.5, 1.0))
    if abs(shift) > step * 0.7:
        gap += float(rng.uniform(-0.6, 0.5)) * step * severity
    # However far the fragment reaches, its end stays within the flesh.
    follows = [b for b in part.bones if b is bone or _hangs_on(b, bone)]
    lever = max(float(((b.outline - site.middle) @ site.along).max()) for b in follows)
    bend = side * severity * float(rng.uniform(1, min(13.0, np.rad2deg((half + 5) / max(lever, 1.0)))))

    def displaced(points: Points) -> Points:
        return turned(points, bend, site.middle) + site.across * shift + site.along * gap

    bones: list[Bone] = []
    for other in part.bones:
        if other is bone:
            bones.append(replace(bone, clip=placed(near)))
            bones.append(moved_bone(replace(bone, clip=placed(far)), displaced))
        elif _hangs_on(other, bone):
            bones.append(moved_bone(other, displaced))
        else:
            bones.append(other)
    tissues = []
    for tissue in part.tissues:
        skin = tissue.outline
        if tissue.chain and tissue.chain == bone.chain:
            is_far = (skin - site.middle) @ site.along > 0
            skin = np.where(is_far[:, None], displaced(skin), skin)
        tissues.append(replace(tissue, outline=skin))
    extent = max(1.5 * half, 5.0)
    box = placed(np.array([(-1.6 * half, -extent), (1.6 * half, -extent), (1.6 * half, extent), (-1.6 * half, extent)]))
    return replace(part, bones=tuple(bones), tissues=tuple(tissues)), np.concatenate([box, box + site.across * shift])


def _hangs_on(other: Bone, bone: Bone) -> bool:
    """Whether *other* lies further along the chain of *bone*."""
    return bool(bone.chain) and other.chain.startswith(bone.chain) and other.order > bone.order


def _transverse(part: Anatomy, site: Site, rng: np.random.Generator, severity: float) -> Made:
    return _fracture(part, site, rng, severity, float(rng.uniform(-14, 14)))


def _oblique(part: Anatomy, site: Site, rng: np.random.Generator, severity: float) -> Made:
    return _fracture(part, site, rng, severity, float(rng.choice((-1, 1)) * rng.uniform(32, 58)))


def _plate(part: Anatomy, site: Site, rng: np.random.Generator, severity: float) -> Made:
    """A plate with screws, seen from the front (over the bone) or from its edge (beside it, the screws across)."""
    bone, half = site.bone, site.half
    length = float(np.linalg.norm(bone.axis[1] - bone.axis[0]))
    reach = min(half * float(rng.uniform(3.0, 4.5) + 3 * severity), 0.34 * length) / length
    ways = np.linspace(max(0.06, site.way - reach), min(0.94, site.way + reach), 9)
    line = [site_at(bone, float(way)) for way in ways]
    from_edge = bool(rng.random() < 0.5)
    side = float(rng.choice((-1, 1)))
    # A plate bridges the bone's flare: it keeps the shaft's distance from the axis.
    middles = np.array([s.middle for s in line])
    narrow = min(s.half for s in line)
    if from_edge:
        width, steel_mm = max(0.24 * narrow, 1.3), 4.5
        middles = middles + site.across * side * (narrow * 1.08 + width / 2)
    else:
        width, steel_mm = max(0.5 * narrow, 1.8), 1.4
    plate_half = width / 2 if from_edge else width
    metal = [Metal(tube([(x, y, plate_half) for x, y in middles], start=0.8, end=0.8), steel_mm)]
    screws = max(3, min(8, round(float(np.linalg.norm(middles[-1] - middles[0])) / (1.5 * narrow))))
    for number, place in enumerate(np.linspace(0.06, 0.94, screws)):
        x = np.interp(place * 8, np.arange(9), middles[:, 0])
        y = np.interp(place * 8, np.arange(9), middles[:, 1])
        is_empty = screws > 4 and number == screws // 2  # the hole over the fracture
        if not from_edge:
            metal.append(
                Metal(ellipse(x, y, width * 0.5, width * 0.6), -steel_mm)
                if is_empty
                else Metal(ellipse(x, y, width * 1.12, width * 1.12), 4.0)
            )
        if not from_edge or is_empty:
            continue
        head = np.array([x, y])
        inward = turned(-site.across[None] * side, float(rng.normal(0, 4)))[0]
        tip = head + inward * (2.15 * narrow + width)
        metal.append(Metal(_bar(head, tip, max(0.13 * narrow, 0.7)), 3.0))
        cap = _bar(head - inward * width * 0.7, head + inward * width * 0.6, max(0.27 * narrow, 1.2))
        metal.append(Metal(cap, 4.0))
    return replace(part, metal=(*part.metal, *metal)), np.concatenate([piece.outline for piece in metal])


def _wire(part: Anatomy, site: Site, rng: np.random.Generator, severity: float) -> Made:
    """Kirschner wires through the bone, or cerclage round it."""
    half = site.half
    thick = float(np.clip(0.16 * half, 0.6, 1.3))
    metal = []
    if rng.random() < 0.65:
        for number in range(1 if severity < 0.6 else 2):
            sway = float(rng.choice((-1, 1)) if number == 0 else -1) * float(rng.uniform(12, 34))
            direction = turned(site.along[None], sway)[0]
            reach = half * float(rng.uniform(2.6, 4.2))
            start, end = site.middle - direction * reach, site.middle + direction * reach * 0.85
            metal.append(Metal(_bar(start, end, thick), 2.6))
            hook = turned(-direction[None], float(rng.choice((-1, 1)) * rng.uniform(50, 90)))[0]
            metal.append(Metal(_bar(start, start + hook * half * 0.9, thick), 2.6))
    else:
        for number in range(2 + round(2 * severity)):
            middle = site.middle + site.along * half * 1.25 * (number - 1)
            lean = float(rng.normal(0, 6))
            span = turned(site.across[None], lean)[0] * half * 1.12
            lift = site.along * half * 0.16
            for bow in (-1.0, 1.0):  # the near and the far side of the ring
                points = [(*(middle - span), thick), (*(middle + lift * bow), thick), (*(middle + span), thick)]
                metal.append(Metal(tube(points), 2.2))
            metal.append(Metal(_bar(middle + span, middle + span * 1.5, thick * 1.4), 2.6))
    return replace(part, metal=(*part.metal, *metal)), np.concatenate([piece.outline for piece in metal])


def _bar(start: Points, end: Points, half: float) -> Points:
    return tube([(*start, half), (*((start + end) / 2), half), (*end, half)], start=0.3, end=0.6)


def _spot(part: Anatomy, site: Site, spots: tuple[Spot, ...], extent: float) -> Made:
    bones = tuple(replace(b, spots=(*b.spots, *spots)) if b is site.bone else b for b in part.bones)
    centred = [(spot.frame[0], spot.frame - spot.frame[0]) for spot in spots]
    points = np.concatenate([middle + axes * sign * extent for middle, axes in centred for sign in (-1, 1)])
    return replace(part, bones=bones), points


def _lytic(part: Anatomy, site: Site, rng: np.random.Generator, severity: float) -> Made:
    """A hole: spongiosa gone, the cortex eaten, at times with a sclerotic border."""
    half = site.half
    a, b = half * float(rng.uniform(0.8, 0.95)), half * float(rng.uniform(1.1, 1.6) + 0.8 * severity)
    middle = site.middle + site.across * half * float(rng.uniform(-0.25, 0.25))
    frame = np.array([middle, middle + site.across * a, middle + site.along * b])
    rim = float(rng.uniform(0.6, 1.6)) if rng.random() < 0.6 else 0.0
    return _spot(part, site, (Spot(frame, 0.4 - 0.35 * severity, 0.05, 0.3, rim),), 1.1)


def _sclerotic(part: Anatomy, site: Site, rng: np.random.Generator, severity: float) -> Made:
    """Dense bone in the cavity, in one to three foci that run together."""
    half = site.half
    spots = []
    foci = int(rng.integers(1, 4))
    for _ in range(foci):
        off_along, off_across = half * rng.normal(0, (0.6, 0.2))
        middle = site.middle + site.along * off_along + site.across * off_across
        a, b = half * float(rng.uniform(0.6, 0.9)), half * float(rng.uniform(0.9, 1.4))
        frame = np.array([middle, middle + site.across * a, middle + site.along * b])
        added_mm = half * float(rng.uniform(0.2, 0.32) + 0.25 * severity) / np.sqrt(foci)
        spots.append(Spot(frame, 1.0, 1.0, 0.55, added_mm=added_mm))
    return _spot(part, site, tuple(spots), 1.0)


LESIONS: Mapping[str, Maker] = MappingProxyType(
    {
        "transverse fracture": _transverse,
        "oblique fracture": _oblique,
        "plate": _plate,
        "wire": _wire,
        "lytic lesion": _lytic,
        "sclerotic lesion": _sclerotic,
    }
)
