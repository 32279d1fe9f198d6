"""Hand, wrist and finger: the bones of a right hand seen from behind (PA, the thumb on the left), fingertips up.

Enters: a view and a Generator. Leaves: an `Anatomy`, origin at the base of the third metacarpal. Lengths and widths are
those of an adult.
"""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pacs_agent.phantom.anatomy import (
    SHAFT_CORTEX,
    SHAFT_SPONGIOSA,
    Anatomy,
    Bone,
    Points,
    Profile,
    Tissue,
    aged,
    moved_bone,
    smooth,
    tube,
    turned,
    varied,
)

TUBULAR_CORTEX = aged(SHAFT_CORTEX, 0.6)
CARPAL_CORTEX: Profile = ((0.0, 0.75), (1.0, 0.75))
CARPAL_SPONGIOSA: Profile = ((0.0, 0.3), (1.0, 0.3))

# digit: metacarpal base x, y, direction (degrees right of up), then outwards (length, base, waist, head half widths).
DIGITS: dict[int, tuple[float, float, float, tuple[tuple[float, float, float, float], ...]]] = {
    1: (-25.5, 3.0, -40.0, ((45, 7.5, 5.0, 7.2), (31, 7.2, 4.4, 6.0), (22, 6.5, 3.0, 4.4))),
    2: (-12.5, -0.5, -9.0, ((67, 8.0, 4.2, 7.4), (40, 7.6, 4.5, 5.8), (23, 6.4, 3.9, 5.0), (17, 5.4, 2.5, 3.9))),
    3: (-0.5, 0.0, -1.0, ((64, 7.0, 4.1, 7.4), (44, 7.8, 4.7, 6.0), (27, 6.6, 4.1, 5.2), (18, 5.6, 2.6, 4.1))),
    4: (10.5, 1.5, 6.0, ((57, 6.0, 3.5, 6.6), (41, 7.2, 4.3, 5.6), (26, 6.1, 3.8, 4.9), (18, 5.3, 2.5, 4.0))),
    5: (18.5, 5.0, 14.0, ((53, 6.2, 3.7, 6.5), (33, 6.8, 3.7, 4.9), (19, 5.5, 3.2, 4.3), (16, 4.8, 2.1, 3.4))),
}
PHALANX_NAMES = ("metacarpal", "proximal phalanx", "middle phalanx", "distal phalanx")

CARPALS: dict[str, tuple[tuple[float, float], ...]] = {
    "capitate": ((-5.5, 2.2), (-1, 1.2), (4.5, 2.5), (5.6, 7), (4.6, 12), (5, 17), (3, 21), (-1, 22.4), (-4.8, 20.5),
                 (-6, 16), (-5.2, 11), (-6.4, 6)),
    "hamate": ((7, 3.2), (13, 4), (19.5, 7.5), (19, 11), (14.5, 16), (9.5, 20.5), (7, 18.5), (6.6, 12), (7, 7)),
    "trapezoid": ((-8.6, 3), (-13, 1.8), (-16.8, 3.5), (-16.2, 8), (-13, 12), (-8, 12.3), (-7.2, 8)),
    "trapezium": ((-18, 5), (-22, 4), (-27.5, 6.5), (-29, 11), (-25.5, 15.5), (-19.5, 16), (-15.8, 13.5), (-17, 9)),
    "scaphoid": ((-12.5, 14.5), (-18, 17), (-22, 19.5), (-23, 23), (-20, 26), (-17, 26.6), (-13, 29), (-9, 29.6),
                 (-7, 27), (-7.6, 22.5), (-7.8, 18.5), (-9, 14.8)),
    "lunate": ((-5.2, 24), (-2, 24.4), (3, 23), (6.3, 25), (7.2, 28.5), (5, 32.3), (0, 33.2), (-5, 31.8), (-6.6, 28)),
    "triquetrum": ((9, 22.5), (14, 18), (19, 14.6), (22, 17), (21, 21.5), (17, 25.5), (12.5, 28.6), (8.8, 27.2)),
    "pisiform": ((18, 16.4), (21.6, 19), (22, 23.5), (18.5, 26), (14.8, 24), (14.4, 19)),
}  # fmt: skip

# Distal ends, from the radial shaft round the joint to the ulnar shaft; y grows towards the elbow.
DISTAL_RADIUS = ((-16, 74), (-19, 60), (-23, 48), (-25.8, 38), (-25.8, 31), (-24, 27.6), (-21.5, 29), (-17.5, 31.6),
                 (-11, 34), (-4, 35.6), (2.5, 36), (5.2, 37.6), (5.4, 42), (3.2, 48), (0, 58), (-3, 74))  # fmt: skip
DISTAL_ULNA = ((9.8, 74), (9.6, 58), (8, 47), (7.6, 41), (9.5, 37.4), (14, 36.6), (17.5, 36.6), (19.6, 33.5),
               (21.6, 31.2), (22.6, 34), (22.4, 40), (20.4, 48), (18.6, 58), (18.6, 74))  # fmt: skip
RADIUS_CORTEX: Profile = ((0.0, 2.2), (0.55, 2.0), (0.75, 1.1), (1.0, 0.8))
RADIUS_SPONGIOSA: Profile = ((0.0, 0.04), (0.5, 0.05), (0.72, 0.15), (1.0, 0.27))

LATERAL_RADIUS = ((-6, 74), (-6.8, 62), (-8.6, 50), (-11, 42), (-9.6, 37.6), (-3, 37), (4, 35), (8.8, 32), (10.4, 36),
                  (9, 46), (7.4, 60), (6.4, 74))  # fmt: skip
LATERAL_ULNA = ((0, 74), (0.2, 58), (-0.6, 46), (0.6, 39), (4, 36.6), (5.6, 32), (8, 34), (10.6, 40), (10.4, 47),
                (9, 58), (8.8, 74))  # fmt: skip
LATERAL_CARPALS: dict[str, tuple[tuple[float, float], ...]] = {
    "lunate": ((-8, 24.6), (-9.4, 30), (-5.5, 35), (1, 34.8), (7, 31), (8.4, 24.4), (5, 26.2), (0, 28.4), (-5, 27.4)),
    "capitate": ((-6, 21.5), (-1, 26.6), (4, 24.6), (6, 14), (6.4, 4), (3, 0.6), (-4, 0.8), (-6.4, 7), (-5.4, 14)),
    "scaphoid": ((3, 30), (-2, 33), (-9, 27), (-14, 19), (-13.6, 13), (-9, 12.6), (-4.6, 19), (2, 25)),
    "trapezium": ((-14, 12), (-19, 6), (-17, 0), (-8, 0.4), (-6, 8)),
    "triquetrum": ((-1, 28), (8, 27), (11, 19), (5, 15), (-2.6, 18)),
    "hamate": ((-5, 15), (5, 17), (8.6, 5), (3, 1), (-7, 2.6), (-10, 9)),
    "pisiform": ((-12.5, 16.6), (-8.6, 19), (-8.4, 24), (-12, 27), (-16, 24.6), (-16.4, 19.6)),
}


def carpals(rng: np.random.Generator, view: str = "PA") -> tuple[Bone, ...]:
    """The eight carpal bones, two rows of four."""
    table = LATERAL_CARPALS if view == "LATERAL" else CARPALS
    bones = []
    for name, points in table.items():
        outline = smooth(points)
        centre = outline.mean(axis=0)
        outline = (outline - centre) * 1.06 + centre
        axis = centre + np.array([(0.0, 10.0), (0.0, -10.0)])
        depth = 0.6 if name == "pisiform" else 0.9 if view == "LATERAL" else 1.1
        bones.append(varied(Bone(name, outline, axis, CARPAL_CORTEX, CARPAL_SPONGIOSA, depth), rng, 0.7))
    return tuple(bones)


def distal_forearm(rng: np.random.Generator, view: str = "PA", length: float = 90.0) -> tuple[Bone, ...]:
    """Radius and ulna from *length* mm above their shaft's end at the wrist."""
    bones = []
    tables = (LATERAL_RADIUS, LATERAL_ULNA) if view == "LATERAL" else (DISTAL_RADIUS, DISTAL_ULNA)
    for name, points in zip(("radius", "ulna"), tables, strict=True):
        first, last = points[0], points[-1]
        far = ((last[0] + 0.5, 74 + length), (first[0] + 0.5, 74 + length))
        outline = smooth((*points, (far[0][0], 74 + length / 2), *far, (far[1][0], 74 + length / 2)))
        middle = (first[0] + last[0]) / 2
        axis = np.array([(middle, 74 + length), (middle, 33.0)])
        bones.append(Bone(name, outline, axis, RADIUS_CORTEX, RADIUS_SPONGIOSA, 0.85, name, shaft=(0.66, 0.9)))
    return tuple(varied(bone, rng, 0.5) for bone in bones)


def digit(rng: np.random.Generator, number: int, *, view: str = "PA", bend_deg: float = 0.0) -> tuple[Bone, ...]:
    """Metacarpal and phalanges of one digit, each turned *bend_deg* (and a little by chance) against the last."""
    x, y, direction, segments = DIGITS[number]
    base = np.array([x, y])
    size = 1 + rng.normal(0, 0.02)
    bones = []
    names = PHALANX_NAMES if number > 1 else (PHALANX_NAMES[0], PHALANX_NAMES[1], PHALANX_NAMES[3])
    for order, (name, (length, *half)) in enumerate(zip(names, segments, strict=True)):
        side = view == "LATERAL" or (number == 1 and order > 0)
        outline = _lateral(name, length * size, *half) if side else _frontal(name, length * size, *half)
        axis = np.array([(0.0, 0.0), (0.0, -length * size)])
        is_tip = name == PHALANX_NAMES[3]
        bone = Bone(
            f"{name} {number}", outline, axis, aged(TUBULAR_CORTEX, 0.75 if is_tip else 1.0), SHAFT_SPONGIOSA,
            0.85, f"digit {number}", order, shaft=(0.3, 0.72),
        )  # fmt: skip
        angle, place = direction, base
        bone = moved_bone(bone, lambda points, angle=angle, place=place: turned(points, angle) + place)  # type: ignore[misc]
        bones.append(varied(bone, rng, 0.6))
        gap = 1.9 if order == 0 else 1.2
        step = turned(np.array([(0.0, -(length * size + gap))]), direction)[0]
        base = base + step
        direction += bend_deg + rng.normal(0, 1.6)
    return tuple(bones)


def _frontal(name: str, length: float, base: float, waist: float, head: float) -> Points:
    """A tubular bone seen from the front, its base at the origin, pointing up."""
    if name == PHALANX_NAMES[0]:
        side = ((0.75, 0.4), (1.0, -1.2), (0.95, -4.5))
        top = ((head, -0.885), (head * 0.98, -0.93), (head * 0.66, -0.985))
        middle, notch = (0.0, 0.4), (0.0, -1.015 * length)
    elif name == PHALANX_NAMES[3]:
        side = ((0.6, 0.5), (1.0, -1.0), (0.9, -3.0))
        top = ((head * 0.8, -0.8), (head, -0.88), (head * 0.75, -0.97))
        middle, notch = (0.0, -0.5), (0.0, -length)
    else:
        side = ((0.6, 0.7), (1.0, -1.0), (0.95, -3.2))
        top = ((head, -0.89), (head, -0.94), (head * 0.62, -1.0))
        middle, notch = (0.0, -0.7), (0.0, -0.975 * length)
    right = [(base * x, y) for x, y in side]
    right += [(waist * 1.22, -0.25 * length), (waist, -0.46 * length), (waist * 1.1, -0.68 * length)]
    right += [(x, y * length) for x, y in top]
    return smooth([middle, *right, notch, *((-x, y) for x, y in reversed(right))])


def _lateral(name: str, length: float, base: float, waist: float, head: float) -> Points:
    """A tubular bone seen from the side, the palm to the left: straight behind, hollow in front."""
    thick, slim, knob = base * 0.82, waist * 0.8, head * (0.55 if name == PHALANX_NAMES[3] else 0.85)
    palm = [(-thick, -1.2), (-thick * 0.95, -3.6), (-slim * 0.95, -0.27 * length), (-slim * 0.7, -0.5 * length)]
    palm += [(-slim * 0.95, -0.72 * length), (-knob * 1.1, -0.88 * length), (-knob * 0.9, -0.96 * length)]
    back = [(thick * 0.9, -0.4), (thick, -2.4), (slim * 1.25, -0.25 * length), (slim * 1.1, -0.5 * length)]
    back += [(slim, -0.75 * length), (knob * 0.9, -0.9 * length), (knob * 0.6, -0.98 * length)]
    return smooth([(0.0, -0.6), *back, (-knob * 0.15, -length * 1.005), *reversed(palm)])


def _finger_tissue(bones: Sequence[Bone], widths: Sequence[float], over: float = 4.5) -> Tissue:
    """The soft tissue round a digit: half *widths* at each joint, outwards."""
    joints = [bones[0].axis[1], *(bone.axis[1] for bone in bones[1:])]
    tip = joints[-1] + (joints[-1] - joints[-2]) / np.linalg.norm(joints[-1] - joints[-2]) * (over - widths[-1] * 0.5)
    joints = [bones[0].axis[0] * 0.35 + bones[0].axis[1] * 0.65, *joints[:-1], tip]
    stations = [(float(x), float(y), float(half)) for (x, y), half in zip(joints, widths, strict=True)]
    return Tissue(tube(stations, start=0.2, end=0.62), 20.0, 1.5, bones[0].chain)


def _palm(reach: float = 180.0) -> Tissue:
    outline = smooth(
        ((-32, reach), (-30, 75), (-29, 42), (-33, 20), (-41, 2), (-37, -22), (-34.5, -48), (-33, -72), (-20, -86),
         (0, -86), (18, -80), (33, -68), (42, -52), (41, -30), (37, 0), (30, 24), (27, 44), (29, 75), (31, reach))
    )  # fmt: skip
    return Tissue(outline, 27.0, 2.0)


def hand(rng: np.random.Generator, view: str) -> Anatomy:
    """Five digits, eight carpals, the ends of radius and ulna; PA, or OBLIQUE with the ulnar side lifted."""
    fan = rng.normal(0, 0.6)
    oblique = view == "OBLIQUE"
    bones: list[Bone] = [*carpals(rng), *distal_forearm(rng)]
    tissues = [_palm()]
    for number in DIGITS:
        found = digit(rng, number, bend_deg=0.8 if number == 1 else 0.0)
        lean = fan * (number - 3) + rng.normal(0, 0.8) - (2.2 * (number - 3) if oblique and number > 1 else 0)
        pivot = found[0].axis[0]
        found = tuple(moved_bone(bone, lambda p, a=lean, o=pivot: turned(p, a, o)) for bone in found)  # type: ignore[misc]
        widths = (14.0, 13.0, 10.5, 7.5) if number == 1 else (11.5, 11.0, 9.0, 8.0, 6.8)
        shrink = 0.88 if number == 5 else 1.0
        tissues.append(_finger_tissue(found, [half * shrink for half in widths]))
        bones.extend(found)
    part = Anatomy(tuple(bones), tuple(tissues), (-98.0, -182.0, 66.0, 66.0))
    return _squeezed(part, 0.7) if oblique else part


def _squeezed(part: Anatomy, share: float) -> Anatomy:
    """The part turned about its long axis: bones come nearer to each other and overlap, each as wide as it was."""
    root = {bone.chain: bone.axis[0, 0] for bone in part.bones if bone.chain and bone.order == 0}

    def nearer(bone: Bone) -> Bone:
        x = root.get(bone.chain, bone.outline[:, 0].mean())
        return moved_bone(bone, lambda points: points + np.array([(share - 1) * x, 0.0]))

    tissues = tuple(replace(t, outline=t.outline * (0.5 + share / 2, 1.0)) for t in part.tissues)
    return replace(part, bones=tuple(nearer(bone) for bone in part.bones), tissues=tissues)


def wrist(rng: np.random.Generator, view: str) -> Anatomy:
    """Distal radius and ulna, the carpals, the bases of the metacarpals; PA, OBLIQUE or LATERAL (palm left)."""
    field = (-54.0, -56.0, 50.0, 92.0)
    bones = [*carpals(rng, view), *distal_forearm(rng, view)]
    if view != "LATERAL":
        for number in DIGITS:
            bones.extend(digit(rng, number))
        thumb = _finger_tissue([bone for bone in bones if bone.chain == "digit 1"], (14.0, 13.0, 10.5, 7.5))
        part = Anatomy(tuple(bones), (_palm(), thumb), field)
        return _squeezed(part, 0.72) if view == "OBLIQUE" else part
    for number in DIGITS:
        bones.extend(side_by_side(digit(rng, number, view="LATERAL"), number))
    outline = smooth(
        ((-24, 180), (-21, 80), (-18, 42), (-20, 24), (-27, 6), (-38, -20), (-46, -46), (-46, -80), (14, -90),
         (17, -50), (16, -10), (17, 20), (17, 42), (20, 80), (23, 180))
    )  # fmt: skip
    return Anatomy(tuple(bones), (Tissue(outline, 46.0, 2.5),), field)


def side_by_side(bones: tuple[Bone, ...], number: int) -> tuple[Bone, ...]:
    """The bones of a digit where a lateral view has them: the fingers behind each other, the thumb towards the palm."""
    x, angle = {1: (-14.0, -27.0), 2: (-2.0, -4.0), 3: (0.0, 0.0), 4: (2.0, 3.0), 5: (3.0, 7.0)}[number]
    pivot, turn = np.array(DIGITS[number][:2]), angle - DIGITS[number][2]
    return tuple(moved_bone(bone, lambda points: turned(points, turn, pivot) - pivot + (x, -0.5)) for bone in bones)


def finger(rng: np.random.Generator, view: str) -> Anatomy:
    """One digit from the second to the fifth, from its metacarpal's head to the tip; PA or LATERAL (the palm left)."""
    number = int(rng.integers(2, 6))
    bones = digit(rng, number, view=view, bend_deg=-float(rng.uniform(2, 9)) if view == "LATERAL" else 0.0)
    pivot, direction = bones[0].axis[1], DIGITS[number][2]
    bones = tuple(moved_bone(bone, lambda points: turned(points, -direction, pivot) - pivot) for bone in bones)
    slim = 0.9 if number == 5 else 1.0
    tissue = _finger_tissue(bones, [half * slim for half in (12.5, 11.5, 9.2, 8.2, 7.0)])
    if view == "LATERAL":
        root = smooth(((-22, 60), (-21, 12), (-16, -6), (0, -12), (12, -4), (14, 20), (15, 60)))
    else:
        root = smooth(((-34, 60), (-33, 4), (-27, -14), (-17, -22), (-9, -26), (9, -26), (17, -22), (27, -14), (33, 4),
                       (34, 60)))  # fmt: skip
    reach = -bones[-1].axis[1, 1] + 12
    field = (-reach * 0.36, -reach, reach * 0.36, 26.0)
    return Anatomy(bones, (tissue, Tissue(root, 26.0, 2.0)), field)
