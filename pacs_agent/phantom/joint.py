"""Joints: where two bones meet, dislocated or worn out.

Enters: a normal anatomy, the body part and a Generator. Leaves: the anatomy with the lesion, and what encloses it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from pacs_agent.phantom import hand
from pacs_agent.phantom.anatomy import Anatomy, Bone, Points, Profile, Spot, ellipse, turned
from pacs_agent.phantom.fracture import hangs_on, moved_part
from pacs_agent.phantom.site import Made, is_well_inside, site_at

SPUR_CORTEX: Profile = ((0.0, 0.9), (1.0, 0.9))
SPUR_SPONGIOSA: Profile = ((0.0, 0.4), (1.0, 0.4))


@dataclass(frozen=True, slots=True)
class Joint:
    """A joint in projection.

    Args:
        near: names of the bones on the side of the trunk that bear on it.
        far: names of those on the other side that do.
        follows: names of all bones that move with it.
        chain: of the flesh that moves with it; "" none does.
        middle: of the joint space, mm.
        along: unit vector from *near* to *far*.
        half: half its width, mm.
    """

    near: tuple[str, ...]
    far: tuple[str, ...]
    follows: frozenset[str]
    chain: str
    middle: Points
    along: Points
    half: float

    @property
    def across(self) -> Points:
        """The unit vector along the joint space."""
        return np.array([-self.along[1], self.along[0]])


def joints(part: Anatomy, body_part: str) -> tuple[Joint, ...]:
    """The joints of a normal anatomy that count as the body part's own and lie well inside the picture."""
    found = {
        "elbow": lambda: [_elbow(part)],
        "finger": lambda: list(_digits(part)),
        "forearm": lambda: [_elbow(part), _wrist(part)],
        "hand": lambda: list(_digits(part)),
        "humerus": lambda: [_shoulder(part), _elbow(part)],
        "shoulder": lambda: [_shoulder(part)],
        "wrist": lambda: [_wrist(part), _thumb_base(part)],
    }[body_part]()
    return tuple(joint for joint in found if is_well_inside(part, joint.middle, margin=0.06))


def dislocated(part: Anatomy, body_part: str, rng: np.random.Generator, severity: float) -> Made:
    """The far side slips off the near one, aside and past it; subtle: it still bears on it by half."""
    found = joints(part, body_part)
    weights = np.array([joint.half for joint in found])
    joint = found[int(rng.choice(len(found), p=weights / weights.sum()))]
    side = float(rng.choice((-1, 1)))
    reach = min(joint.half, 14.0)
    shift = side * joint.across * reach * float(rng.uniform(0.35, 0.5) + severity * rng.uniform(0.9, 1.3))
    past = -joint.along * reach * severity * float(rng.uniform(0.2, 0.7))
    # However far the far side reaches, its end stays within the flesh.
    ends = [(b.outline - joint.middle) @ joint.along for b in part.bones if b.name in joint.follows]
    tilt = side * severity * float(rng.uniform(-0.4, 1)) * min(9.0, np.rad2deg(6 / float(np.concatenate(ends).max())))
    if joint.near == ("glenoid",):  # forwards and down, the head under the coracoid: the usual way
        shift = np.array([0.5 + severity * rng.uniform(0.7, 1.0), 0.5 + severity * rng.uniform(0.6, 1.1)]) * reach
        past, tilt = np.zeros(2), severity * float(rng.uniform(-2, 5))

    def moved(points: Points) -> Points:
        return turned(points, tilt, joint.middle) + shift + past

    box = _box(joint, 1.2, 1.2)
    made = moved_part(part, joint.follows, joint.chain, joint.middle, joint.along, moved)
    return made, np.concatenate([box, moved(box)])


def narrowed(part: Anatomy, body_part: str, rng: np.random.Generator, severity: float) -> Made:
    """Degenerative change: the space gone, dense bone on both sides, spurs at the margins, at times cysts; in digits
    several joints at once.
    """
    found = list(joints(part, body_part))
    count = 1 if len(found) <= 3 else 1 + round((len(found) - 2) * 0.5 * severity)
    made, enclosing = part, []
    # From the trunk outwards: what has moved once may move again.
    for index in sorted(rng.choice(len(found), size=min(count, len(found)), replace=False)):
        joint = joints(made, body_part)[index] if len(joints(made, body_part)) == len(found) else found[index]
        made, points = _worn(made, joint, rng, severity)
        enclosing.append(points)
    return made, np.concatenate(enclosing)


def _worn(part: Anatomy, joint: Joint, rng: np.random.Generator, severity: float) -> Made:
    half = joint.half
    dense = min(half, 14.0) * (0.15 + 0.65 * severity)
    spots = [_under(joint, 1.0, 0.55, added_mm=dense * float(rng.uniform(0.8, 1.2)))]
    if severity > 0.5:
        centre = joint.across * half * rng.uniform(-0.5, 0.5) + joint.along * half * rng.uniform(-0.45, 0.45)
        spots.append(_under(joint, 0.28, 0.24, offset=centre, cortex=0.35, spongiosa=0.05))
    bearing = {*joint.near, *joint.far}
    bones = [replace(b, spots=(*b.spots, *spots)) if b.name in bearing else b for b in part.bones]
    size = half * (0.12 + 0.3 * severity)
    for number, (side, end) in enumerate(((-1, -1), (-1, 1), (1, -1), (1, 1))):
        long = size * float(rng.uniform(0.7, 1.4))
        at = joint.middle + joint.across * side * (half * 0.95) + joint.along * end * long * 0.75
        lean = float(np.rad2deg(np.arctan2(joint.across[1], joint.across[0]))) + 25.0 * side * end
        outline = ellipse(float(at[0]), float(at[1]), long, long * 0.6, lean)
        owner = joint.far[0] if end > 0 else ""
        name = f"spur {number} of {owner or joint.near[0]}"
        bones.append(Bone(name, outline, outline[[0, 24]], SPUR_CORTEX, SPUR_SPONGIOSA, 1.0))
    spurs = frozenset(f"spur {number} of {joint.far[0]}" for number in (1, 3))
    close = min(1.0 + 1.4 * severity, 0.25 * half)
    # Cartilage wears on one side first.
    tilt = float(rng.choice((-1, 1))) * severity * float(rng.uniform(1, 9 if joint.chain else 3))

    def moved(points: Points) -> Points:
        return turned(points, tilt, joint.middle) - joint.along * close

    worn = replace(part, bones=tuple(bones))
    worn = moved_part(worn, joint.follows | spurs, joint.chain, joint.middle, joint.along, moved)
    return worn, _box(joint, 1.3, 0.9)


def _under(
    joint: Joint,
    across: float,
    along: float,
    *,
    offset: Points | None = None,
    cortex: float = 1.0,
    spongiosa: float = 1.0,
    added_mm: float = 0.0,
) -> Spot:
    """A spot round the joint space, its half axes in half widths of the joint."""
    middle = joint.middle if offset is None else joint.middle + offset
    frame = np.array([middle, middle + joint.across * joint.half * across, middle + joint.along * joint.half * along])
    return Spot(frame, cortex, spongiosa, 0.7, added_mm=added_mm)


def _box(joint: Joint, across: float, along: float) -> Points:
    reach = [(a * across * joint.half, b * along * joint.half) for a in (-1, 1) for b in (-1, 1)]
    return np.array([joint.middle + joint.across * a + joint.along * b for a, b in reach])


def _digits(part: Anatomy) -> Iterator[Joint]:
    """Those between metacarpals and phalanges, and between phalanges."""
    for bone in part.bones:
        further = [other for other in part.bones if hangs_on(other, bone)]
        if not bone.chain.startswith("digit") or not further:
            continue
        following = min(further, key=lambda other: other.order)
        end = site_at(bone, 0.9)
        middle = (bone.axis[1] + following.axis[0]) / 2
        follows = frozenset(other.name for other in further)
        yield Joint((bone.name,), (following.name,), follows, bone.chain, middle, end.along, end.half)


def _thumb_base(part: Anatomy) -> Joint:
    bone = part.bone("metacarpal 1")
    start = site_at(bone, 0.1)
    follows = frozenset(b.name for b in part.bones if b.chain == bone.chain)
    middle = bone.axis[0] - start.along * 0.5
    return Joint(("trapezium",), (bone.name,), follows, bone.chain, middle, start.along, start.half * 1.1)


def _wrist(part: Anatomy) -> Joint:
    """Between the radius and the carpals."""
    radius = part.bone("radius")
    carpals = ("scaphoid", "lunate", "triquetrum")
    beyond = frozenset(b.name for b in part.bones if b.name in hand.CARPALS or b.chain.startswith("digit"))
    lunate = part.bone("lunate").outline.mean(axis=0)
    end = radius.outline[np.argsort(np.linalg.norm(radius.outline - lunate, axis=1))[:8]].mean(axis=0)
    along = (lunate - end) / np.linalg.norm(lunate - end)
    across = np.array([-along[1], along[0]])
    near_end = radius.outline[np.abs((radius.outline - end) @ along) < 14]
    offsets = (near_end - end) @ across
    middle = end + across * (offsets.min() + offsets.max()) / 2 + along * 0.5
    half = float(offsets.max() - offsets.min()) / 2
    return Joint(("radius",), carpals, beyond, "", middle, along, half)


def _elbow(part: Anatomy) -> Joint:
    humerus, ulna = part.bone("humerus"), part.bone("ulna")
    end = humerus.axis[1]
    along = ulna.axis[1] - ulna.axis[0]
    along = along / np.linalg.norm(along)
    across = np.array([-along[1], along[0]])
    near_end = humerus.outline[np.linalg.norm(humerus.outline - end, axis=1) < 30]
    offsets = (near_end - end) @ across
    half = float(offsets.max() - offsets.min()) / 2
    middle = end + across * (offsets.min() + offsets.max()) / 2 + along * 2.0
    whole_arm = {b.name for b in part.bones if b.name in hand.CARPALS or b.chain.startswith("digit")}
    follows = frozenset(b.name for b in part.bones if hangs_on(b, humerus)) | whole_arm
    return Joint(("humerus",), ("radius", "ulna"), follows, "", middle, along, min(half, 24.0))


def _shoulder(part: Anatomy) -> Joint:
    glenoid, humerus = part.bone("glenoid").outline, part.bone("humerus")
    face = glenoid[glenoid[:, 0] < np.median(glenoid[:, 0])].mean(axis=0)
    arm = frozenset(b.name for b in part.bones if b is humerus or hangs_on(b, humerus))
    return Joint(("glenoid",), ("humerus",), arm, "", face, np.array([-1.0, 0.0]), 17.0)
