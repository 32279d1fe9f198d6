"""Shoulder and humerus: a right arm hanging down, seen from the front (AP, the trunk on the right).

Enters: a view and a Generator. Leaves: an `Anatomy`, origin in the middle of the humeral head.
"""

import numpy as np

from pacs_agent.phantom import arm
from pacs_agent.phantom.anatomy import (
    Anatomy,
    Bone,
    Profile,
    Tissue,
    moved_bone,
    smooth,
    spot_at,
    tube,
    varied,
)

# From the lateral shaft over the greater tuberosity and the head to the medial shaft.
PROXIMAL_HUMERUS = ((-17, 90), (-18.6, 64), (-22, 42), (-27, 24), (-30, 8), (-29, -6), (-25, -14), (-18, -18),
                    (-10, -23.5), (0, -25.5), (10, -23), (18.5, -16.5), (23.5, -7), (24.5, 3), (21.5, 13),
                    (15.5, 21), (9, 28), (5.6, 42), (5.4, 64), (5.6, 90))  # fmt: skip
LATERAL_PROXIMAL = ((-16, 90), (-17.6, 64), (-20, 44), (-23, 26), (-25, 10), (-25, -4), (-20, -16), (-11, -22.6),
                    (0, -24), (10, -21.5), (18, -14), (21.5, -3), (21, 8), (17, 18), (11, 28), (7, 44), (6, 64),
                    (6, 90))  # fmt: skip
HUMERUS_CORTEX: Profile = (
    (0.0, 0.8),
    (0.12, 0.9),
    (0.24, 2.4),
    (0.4, 3.8),
    (0.65, 3.8),
    (0.8, 2.4),
    (0.92, 1.0),
    (1.0, 0.9),
)
HUMERUS_SPONGIOSA: Profile = (
    (0.0, 0.2),
    (0.12, 0.15),
    (0.25, 0.04),
    (0.5, 0.02),
    (0.75, 0.05),
    (0.9, 0.15),
    (1.0, 0.22),
)

SCAPULA = ((30, -17), (27.5, -8), (28, 4), (29.5, 14), (33, 22), (38, 28), (44, 40), (52, 62), (62, 88), (72, 112),
           (80, 122), (88, 118), (95, 92), (101, 55), (104, 18), (103, -12), (97, -24), (86, -20), (72, -12),
           (58, -12), (46, -18), (38, -21))  # fmt: skip
ACROMION = ((-20, -33.5), (-25, -38), (-23, -43), (-14, -46.5), (0, -47), (12, -45), (20, -41), (34, -36), (52, -30),
            (76, -20), (100, -8), (101, -2), (76, -9), (52, -18), (36, -25), (24, -31), (12, -35.5), (-4, -36),
            (-13, -34))  # fmt: skip
CORACOID = ((62, -16), (56, -27), (46, -33), (34, -31), (24, -24), (17, -16), (16, -11), (20, -9), (27, -13),
            (35, -18), (42, -18), (48, -12), (56, -10))  # fmt: skip
CLAVICLE = ((14, -50, 5.4), (22, -53, 6.2), (40, -57, 5.8), (62, -58, 5.4), (88, -54, 5.4), (112, -50, 6.0),
            (140, -50, 7.4), (165, -54, 11.0))  # fmt: skip
BORDER = ((31, -14, 3.0), (33, 4, 4.4), (36, 22, 4.4), (46, 44, 3.6), (58, 76, 3.0), (72, 108, 3.0), (80, 117, 3.4))

FLAT_CORTEX: Profile = ((0.0, 0.55), (1.0, 0.55))
FLAT_SPONGIOSA: Profile = ((0.0, 0.2), (1.0, 0.2))


def girdle(rng: np.random.Generator, view: str) -> tuple[Bone, ...]:
    """Scapula with glenoid, acromion and coracoid, and the clavicle; OBLIQUE shows the glenoid in profile."""
    oblique = view == "OBLIQUE"

    def flat(name: str, outline: np.ndarray, depth: float, cortex: float, spongiosa: float) -> Bone:
        axis = np.array([outline.min(axis=0), outline.max(axis=0)])
        return Bone(name, outline, axis, ((0.0, cortex), (1.0, cortex)), ((0.0, spongiosa), (1.0, spongiosa)), depth)

    glenoid = tube(
        ((30, -15, 3.5), (31, 0, 5.0), (33, 17, 4.5)) if oblique else ((27, -14, 5), (29, 2, 8.5), (32, 17, 6.5))
    )
    bones = [
        flat("scapula", smooth(SCAPULA), 0.5, 1.3, 0.03),
        flat("lateral border", tube(BORDER), 0.9, 0.9, 0.15),
        flat("glenoid", glenoid, 0.9, 0.9, 0.22),
        flat("acromion", smooth(ACROMION), 1.1, 0.9, 0.22),
        flat("coracoid", smooth(CORACOID), 1.0, 0.9, 0.22),
    ]
    shift = np.array([3.5, 0.0]) if oblique else np.zeros(2)
    lift = np.array([0.0, rng.normal(0, 2)])
    scapula = [moved_bone(bone, lambda points: points + shift + lift) for bone in bones]
    clavicle = Bone(
        "clavicle", tube(CLAVICLE, start=0.4), np.array([(165.0, -54.0), (14.0, -50.0)]),
        ((0.0, 0.9), (0.3, 1.8), (0.7, 2.0), (1.0, 1.0)), ((0.0, 0.2), (0.4, 0.08), (1.0, 0.2)), 1.0,
        shaft=(0.42, 0.85),
    )  # fmt: skip
    return (*scapula, varied(moved_bone(clavicle, lambda points: points + lift), rng, 0.4))


def ribs(rng: np.random.Generator) -> tuple[Bone, ...]:
    """The upper ribs of that side, from the spine round the chest wall."""
    bones = []
    for number in range(7):
        y, reach = -38 + 25.5 * number + rng.normal(0, 1), (112, 94, 82, 75, 71, 69, 68)[number]
        outline = tube(((190, y, 5), (160, y - 6, 5.4), (132, y - 2, 5.6), (reach + 22, y + 10, 5.6),
                       (reach + 7, y + 24, 5.4), (reach + 2, y + 40, 5.2),
                       (reach + 9, y + 58, 5.2)))  # fmt: skip
        bones.append(Bone(f"rib {number + 1}", outline, outline[:2], FLAT_CORTEX, FLAT_SPONGIOSA, 0.7))
    return tuple(bones)


def humerus_bone(rng: np.random.Generator, view: str, length: float | None) -> Bone:
    """The humerus, whole with *length* mm from head to elbow, or its upper part where it is None."""
    near = np.array(LATERAL_PROXIMAL if view == "LATERAL" else PROXIMAL_HUMERUS, dtype=np.float64)
    spots = [spot_at(-17, 2, 9, 12, cortex=0.8, spongiosa=0.55)]  # the greater tuberosity is sparse
    if length is None:
        outline = smooth(np.concatenate([near, [(6, 130), (6, 190), (-17, 190), (-17, 130)]]))
        cortex, spongiosa, end, shaft = HUMERUS_CORTEX, HUMERUS_SPONGIOSA, 300.0, (0.2, 0.36)
    else:
        far = np.array(arm.LATERAL_HUMERUS if view == "LATERAL" else arm.DISTAL_HUMERUS, dtype=np.float64)
        far = far + np.array([-5.5, length])
        middle = length / 2
        sides = np.array([(6.2, middle - 10), (5.4, middle + 40)]), np.array([(-17, middle + 40), (-18.6, middle - 26)])
        outline = smooth(np.concatenate([near, sides[0], far[::-1], sides[1]]))
        cortex, spongiosa, end, shaft = HUMERUS_CORTEX, HUMERUS_SPONGIOSA, length, (0.24, 0.76)
        fossa = (4.5, 9.0) if view == "LATERAL" else (10.0, 8.0)
        spots.append(spot_at(-1, length - 19, *fossa, cortex=0.4, spongiosa=0.15, edge=0.6))
    axis = np.array([(-5.5, -25.0), (-5.5, end)])
    bone = Bone("humerus", outline, axis, cortex, spongiosa, 0.85, "arm", 0, spots=tuple(spots), shaft=shaft)
    return varied(bone, rng, 0.5)


def shoulder(rng: np.random.Generator, view: str) -> Anatomy:
    """Humeral head, scapula, clavicle, ribs and lung; AP, or OBLIQUE with an open joint."""
    bones = (humerus_bone(rng, "AP", None), *girdle(rng, view), *ribs(rng))
    body = smooth(
        ((260, -170), (150, -150), (120, -104), (84, -82), (40, -76), (4, -69), (-26, -58), (-46, -38), (-54, -8),
         (-53, 40), (-47, 90), (-44, 300), (40, 300), (40, 110), (44, 84), (50, 78), (56, 88), (60, 120), (62, 300),
         (260, 300))
    )  # fmt: skip
    lung = smooth(
        ((230, -40), (160, -58), (128, -40), (104, -10), (88, 24), (78, 66), (73, 110), (72, 260), (260, 260))
    )
    return Anatomy(bones, (Tissue(body, 96.0, 5.0),), (-72.0, -92.0, 132.0, 128.0), air=(lung,))


def humerus(rng: np.random.Generator, view: str) -> Anatomy:
    """The humerus in full length between shoulder and elbow; AP or LATERAL (the forearm to the right)."""
    length = float(rng.normal(288, 10))
    place = np.array([-5.5, length])
    forearm = arm.forearm_bones(rng, view, None)
    if view == "LATERAL":
        forearm = tuple(arm.transposed(bone) for bone in forearm)
    forearm = tuple(moved_bone(bone, lambda points: points + place) for bone in forearm)
    trunk = girdle(rng, "AP")
    bones = (humerus_bone(rng, view, length), *forearm, *trunk)
    far = length
    body: tuple[tuple[float, float], ...] = (
        (230, -130), (150, -110), (90, -84), (40, -76), (4, -69), (-28, -58), (-48, -38), (-56, -4), (-54, 50),
        (-46, 110), (-44, far - 80), (-46, far - 30), (-52, far + 10), (-53, far + 60), (-50, far + 160),
    )  # fmt: skip
    inner: tuple[tuple[float, float], ...] = (
        (38, far + 160), (43, far + 40), (41, far - 20), (34, far - 70), (37, 150), (42, 96), (48, 80), (56, 86),
        (66, 130), (230, 130),
    )  # fmt: skip
    if view == "LATERAL":
        bend = ((-38, far - 30), (-42, far), (-38, far + 22), (-16, far + 36), (60, far + 44), (220, far + 40))
        body = (*body[:11], *bend)
        inner = ((220, far - 34), (80, far - 42), (44, far - 46), (34, far - 70), (36, 150), (42, 96), (48, 80),
                 (56, 86), (66, 130), (230, 130))  # fmt: skip
    tissue = Tissue(smooth((*body, *inner)), 80.0, 5.0)
    return Anatomy(bones, (tissue,), (-84.0, -78.0, 92.0, length + 56))
