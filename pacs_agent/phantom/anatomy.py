"""What a phantom is made of: bones, soft tissue, air and metal, as smooth outlines in millimetres.

Enters: control points of outlines, and a numpy Generator for the differences between people. Leaves: an `Anatomy`, the
projection of a right arm's part as a person sees it, x to the right and y down. It knows no pixels and no physics.
"""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # (N, 2): x, y in mm
Profile = tuple[tuple[float, float], ...]  # (way along the bone's axis 0..1, value), ascending

SHAFT_CORTEX: Profile = ((0.0, 0.7), (0.14, 0.9), (0.3, 2.0), (0.5, 2.4), (0.7, 2.0), (0.86, 0.9), (1.0, 0.7))
SHAFT_SPONGIOSA: Profile = ((0.0, 0.3), (0.12, 0.26), (0.3, 0.06), (0.5, 0.03), (0.7, 0.06), (0.88, 0.26), (1.0, 0.3))


@dataclasses.dataclass(frozen=True, slots=True)
class Spot:
    """An elliptic place in a bone where it holds more or less: *frame* is its centre and the tips of its two half axes.

    Args:
        frame: (3, 2) points in mm.
        cortex: factor on the cortical path at the centre.
        spongiosa: factor on the trabecular path at the centre.
        edge: 0..1, the share of the radius over which the factors fade to 1.
        rim_mm: bone added along the border, as a slow lesion has.
        added_mm: dense bone added at the centre.
    """

    frame: Points
    cortex: float
    spongiosa: float
    edge: float = 0.5
    rim_mm: float = 0.0
    added_mm: float = 0.0


@dataclasses.dataclass(frozen=True, slots=True)
class Bone:
    """One bone in projection.

    Args:
        name: as anatomists say it.
        outline: (N, 2) mm, closed, the first point not repeated.
        axis: (2, 2) mm, from the proximal to the distal end: what *cortex* and *spongiosa* are given along.
        cortex: thickness of the cortical shell in mm.
        spongiosa: share of mineral in the medullary cavity, 0..1.
        depth: path length through the bone over that of a bone as thick as wide.
        chain: what a bone hangs on, as a path ("arm/ulna"): when one breaks, those further along move; "" stands alone.
        order: place in the chain, growing away from the trunk.
        clip: the polygon that is left of the bone, where it is a fragment.
        spots: places that hold more or less.
        shaft: the ways along the axis between which it is a tube, where it may break; None: it is no tube.
    """

    name: str
    outline: Points
    axis: Points
    cortex: Profile
    spongiosa: Profile
    depth: float = 1.0
    chain: str = ""
    order: int = 0
    clip: Points | None = None
    spots: tuple[Spot, ...] = ()
    shaft: tuple[float, float] | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Tissue:
    """Soft tissue in projection; where several overlap the thickest counts.

    Args:
        outline: (N, 2) mm.
        thickness_mm: the greatest path length; less where it is narrower than that.
        fat_mm: thickness of the fat under the skin.
        chain: that of the bones that it covers, where it moves with them; "" does not.
    """

    outline: Points
    thickness_mm: float
    fat_mm: float = 2.0
    chain: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Metal:
    """A piece of metal: its outline and the path length through it in mm; a hole in another piece is negative."""

    outline: Points
    thickness_mm: float


@dataclasses.dataclass(frozen=True, slots=True)
class Anatomy:
    """A part of the body in projection.

    Args:
        bones: those that the picture shows, in any order: paths add up.
        tissues: the soft tissue round them.
        field: x0, y0, x1, y1 in mm: what the picture covers.
        air: outlines of lung, which takes soft tissue away.
        metal: implants.
    """

    bones: tuple[Bone, ...]
    tissues: tuple[Tissue, ...]
    field: tuple[float, float, float, float]
    air: tuple[Points, ...] = ()
    metal: tuple[Metal, ...] = ()

    def bone(self, name: str) -> Bone:
        """The bone of that name.

        Raises:
            KeyError: there is none.
        """
        for bone in self.bones:
            if bone.name == name:
                return bone
        raise KeyError(name)

    def moved(self, move: Callable[[Points], Points]) -> "Anatomy":
        """The anatomy with every point moved; the field stays."""
        return dataclasses.replace(
            self,
            bones=tuple(moved_bone(bone, move) for bone in self.bones),
            tissues=tuple(dataclasses.replace(tissue, outline=move(tissue.outline)) for tissue in self.tissues),
            air=tuple(move(outline) for outline in self.air),
            metal=tuple(dataclasses.replace(metal, outline=move(metal.outline)) for metal in self.metal),
        )


def moved_bone(bone: Bone, move: Callable[[Points], Points]) -> Bone:
    """The bone with every point moved."""
    return dataclasses.replace(
        bone,
        outline=move(bone.outline),
        axis=move(bone.axis),
        clip=None if bone.clip is None else move(bone.clip),
        spots=tuple(dataclasses.replace(spot, frame=move(spot.frame)) for spot in bone.spots),
    )


def smooth(points: Sequence[tuple[float, float]] | Points, steps: int = 7) -> Points:
    """A closed curve through *points*: centripetal Catmull-Rom, *steps* points between two of them."""
    control = np.asarray(points, dtype=np.float64)
    before, start, end, after = (np.roll(control, shift, axis=0)[:, None] for shift in (1, 0, -1, -2))
    knots = [
        np.maximum(np.sqrt(np.linalg.norm(b - a, axis=-1, keepdims=True)), 1e-6)
        for a, b in ((before, start), (start, end), (end, after))
    ]
    # Barry and Goldman's tangents, for uneven spacing without loops.
    slope = (start - before) / knots[0] - (end - before) / (knots[0] + knots[1]) + (end - start) / knots[1]
    out_of_start = slope * knots[1]
    slope = (end - start) / knots[1] - (after - start) / (knots[1] + knots[2]) + (after - end) / knots[2]
    into_end = slope * knots[1]
    t = (np.arange(steps) / steps)[None, :, None]
    curve = (
        (2 * t**3 - 3 * t**2 + 1) * start
        + (t**3 - 2 * t**2 + t) * out_of_start
        + (3 * t**2 - 2 * t**3) * end
        + (t**3 - t**2) * into_end
    )
    return np.asarray(curve.reshape(-1, 2), dtype=np.float64)


def tube(stations: Sequence[tuple[float, float, float]], *, start: float = 0.5, end: float = 0.5) -> Points:
    """The outline along an axis.

    Args:
        stations: x, y of the axis and the half width there, in mm.
        start: how far the first end bulges beyond its station, in half widths; negative is hollow.
        end: the same for the last.
    """
    data = np.asarray(stations, dtype=np.float64)
    centre, half = data[:, :2], data[:, 2:]
    along = np.gradient(centre, axis=0)
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    across = np.stack([-along[:, 1], along[:, 0]], axis=1) * half
    cap_start = centre[:1] - along[:1] * half[:1] * start
    cap_end = centre[-1:] + along[-1:] * half[-1:] * end
    return smooth(np.concatenate([centre + across, cap_end, (centre - across)[::-1], cap_start]))


def ellipse(x: float, y: float, a: float, b: float, turn_deg: float = 0.0) -> Points:
    """An ellipse round (x, y) with half axes *a* and *b* in mm, turned."""
    angle = np.linspace(0, 2 * np.pi, 48, endpoint=False)
    ring = np.stack([a * np.cos(angle), b * np.sin(angle)], axis=1)
    return np.asarray(turned(ring, turn_deg) + np.array([x, y]), dtype=np.float64)


def spot_at(
    x: float, y: float, a: float, b: float, *, cortex: float, spongiosa: float, edge: float = 0.5, turn_deg: float = 0.0
) -> Spot:
    """A `Spot` round (x, y) with half axes *a* and *b* in mm."""
    frame = turned(np.array([(0.0, 0.0), (a, 0.0), (0.0, b)]), turn_deg) + np.array([x, y])
    return Spot(frame, cortex, spongiosa, edge)


def turned(points: Points, angle_deg: float, about: tuple[float, float] | Points = (0.0, 0.0)) -> Points:
    """*points* turned about a point; a positive angle turns x towards y."""
    angle = np.deg2rad(angle_deg)
    matrix = np.array([(np.cos(angle), np.sin(angle)), (-np.sin(angle), np.cos(angle))])
    pivot = np.asarray(about, dtype=np.float64)
    return np.asarray((points - pivot) @ matrix + pivot, dtype=np.float64)


def varied(bone: Bone, rng: np.random.Generator, amount: float = 1.0) -> Bone:
    """The bone as another person has it: a little larger, wider, turned."""
    centre = bone.outline.mean(axis=0)
    scale = 1 + amount * rng.normal(0, 0.025, 2)
    angle = float(amount * rng.normal(0, 0.8))
    return moved_bone(bone, lambda points: turned((points - centre) * scale, angle) + centre)


def aged(profile: Profile, factor: float) -> Profile:
    """The profile times *factor*."""
    return tuple((way, value * factor) for way, value in profile)
