"""Elbow and forearm: a right arm seen from the front (AP, the radius on the left), the elbow above the wrist.

Enters: a view and a Generator. Leaves: an `Anatomy`, origin in the elbow joint. LATERAL: bent to a right angle, the
humerus up and the forearm to the right (elbow), or the forearm down and the humerus to the right (forearm).
"""

import numpy as np

from pacs_agent.phantom import hand
from pacs_agent.phantom.anatomy import (
    Anatomy,
    Bone,
    Points,
    Profile,
    Tissue,
    moved_bone,
    smooth,
    spot_at,
    varied,
)

# The humerus' lower end from the lateral shaft over capitulum and trochlea to the medial shaft.
DISTAL_HUMERUS = ((-11.5, -84), (-13.5, -60), (-18, -42), (-24, -29), (-27, -21), (-24.5, -15), (-21.5, -10),
                  (-21.5, -3), (-17.5, 2), (-11.5, 3.6), (-5.5, 1.4), (-2, -0.6), (3, 1.6), (9, 3.4), (14, 3.4),
                  (19.5, 6.4), (22.6, 4), (22.6, -5), (25.5, -12), (32, -17), (34.5, -23), (30.5, -30), (21, -39),
                  (14.5, -58), (11.5, -84))  # fmt: skip
DISTAL_CORTEX: Profile = ((0.0, 3.2), (0.5, 2.6), (0.75, 1.4), (1.0, 0.9))
DISTAL_SPONGIOSA: Profile = ((0.0, 0.03), (0.5, 0.05), (0.75, 0.14), (1.0, 0.24))

PROXIMAL_RADIUS_LATERAL = ((-17.5, 90), (-17.2, 62), (-16.6, 42), (-17, 28), (-18.4, 20), (-22, 14.5), (-23, 10),
                           (-22, 6.4))  # fmt: skip
PROXIMAL_RADIUS_MEDIAL = ((-17.5, 6), (-12.5, 7), (-7.5, 6), (-2.8, 6.6), (-2, 10), (-3, 14), (-6.4, 19), (-6.8, 25),
                          (-3.4, 31), (-3.2, 38), (-5.6, 46), (-6.2, 62), (-6, 90))  # fmt: skip
PROXIMAL_ULNA = ((0.4, 90), (-0.6, 60), (-1.4, 34), (-3.6, 20), (-4.4, 10), (-2.4, 2), (-2.6, -8), (-1, -16),
                 (4, -20.6), (12, -20), (17, -14), (18.4, -5), (22, 3), (23, 8), (19.6, 17), (16, 32), (14.6, 60),
                 (13.6, 90))  # fmt: skip
FOREARM_CORTEX: Profile = ((0.0, 0.9), (0.1, 1.0), (0.2, 2.2), (0.5, 2.9), (0.75, 2.3), (0.9, 1.1), (1.0, 0.8))
FOREARM_SPONGIOSA: Profile = ((0.0, 0.24), (0.1, 0.2), (0.22, 0.06), (0.5, 0.03), (0.78, 0.06), (0.9, 0.2), (1.0, 0.27))

LATERAL_HUMERUS = ((-10, -84), (-9.5, -60), (-8, -40), (-7.2, -26), (-9, -16), (-10.5, -6), (-9, 5), (-2, 12),
                   (7, 12.4), (14.6, 7.6), (17, 0), (14, -8), (9, -15), (7.4, -26), (8.4, -40), (10, -60),
                   (10.5, -84))  # fmt: skip
LATERAL_ULNA = ((90, 25), (60, 26.6), (30, 29), (8, 28.4), (-8, 24), (-19, 15), (-23.6, 4), (-23, -9), (-17.5, -15),
                (-11, -14), (-10.4, -8), (-11.6, -1), (-9.4, 7), (-3, 13), (6, 14.2), (13, 12.4), (18.6, 8.4),
                (22.4, 10), (24, 14.4), (34, 16), (60, 14.6), (90, 13.4))  # fmt: skip
LATERAL_RADIUS = ((90, 9.4), (66, 9), (46, 10.4), (40, 9.8), (33, 6.8), (28, 9.4), (20, 12), (18.2, 9), (19, 1),
                  (18.4, -7), (20.4, -10), (28, -8.4), (32, -4.6), (40, -3), (48, -3.4), (66, -2.6),
                  (90, -2.4))  # fmt: skip


def distal_humerus(rng: np.random.Generator, view: str, length: float = 100.0) -> Bone:
    """The humerus from *length* mm above the elbow's end of its shaft down to the condyles."""
    points = LATERAL_HUMERUS if view == "LATERAL" else DISTAL_HUMERUS
    top = -84 - length
    outline = smooth((*points, (points[-1][0], top / 2 - 42), (11.0, top), (-11.0, top), (points[0][0], top / 2 - 42)))
    if view == "LATERAL":  # the two fossae thin the bone between its borders
        spots = (spot_at(0.5, -20, 4.5, 9, cortex=0.55, spongiosa=0.2),)
    else:
        spots = (spot_at(4.5, -19, 10, 8, cortex=0.35, spongiosa=0.1, edge=0.6),)
    axis = np.array([(0.0, top), (0.0, 4.0)])
    bone = Bone(
        "humerus", outline, axis, DISTAL_CORTEX, DISTAL_SPONGIOSA, 0.75, "arm", 0, spots=spots, shaft=(0.5, 0.75)
    )
    return varied(bone, rng, 0.5)


def forearm_bones(rng: np.random.Generator, view: str, length: float | None) -> tuple[Bone, ...]:
    """Radius and ulna, from the elbow to the wrist *length* mm below it, or cut off in mid shaft where it is None."""
    lateral = view == "LATERAL"
    upper = {"radius": PROXIMAL_RADIUS_LATERAL + PROXIMAL_RADIUS_MEDIAL, "ulna": PROXIMAL_ULNA}
    lower = {"radius": hand.DISTAL_RADIUS, "ulna": hand.DISTAL_ULNA}
    if lateral:
        upper = {"radius": LATERAL_RADIUS, "ulna": LATERAL_ULNA}
        lower = {"radius": hand.LATERAL_RADIUS, "ulna": hand.LATERAL_ULNA}
    bones = []
    for name in ("radius", "ulna"):
        near = np.array(upper[name], dtype=np.float64)
        if lateral:  # the table has the forearm along x
            near = near[::-1, ::-1]
        if length is None:
            ends = np.array([near[-1] + (0, 90), near[0] + (0, 90)])
            middle_right, middle_left = (near[-1] + ends[0]) / 2, (near[0] + ends[1]) / 2
            far_y = 180.0
        else:
            ends = wrist_to_forearm(np.array(lower[name], dtype=np.float64), length, view)[::-1]
            bow = np.array([3.0 if name == "radius" and not lateral else 0.0, 0.0])
            middle_right, middle_left = (near[-1] + ends[0]) / 2 - bow, (near[0] + ends[-1]) / 2 - bow
            far_y = length
        outline = smooth(np.concatenate([near, [middle_right], ends, [middle_left]]))
        top = float(near[:, 1].min())
        axis = np.array([(near[:, 0].mean(), top), (near[[0, -1], 0].mean(), far_y)])
        bone = Bone(
            name, outline, axis, FOREARM_CORTEX, FOREARM_SPONGIOSA, 0.9, f"arm/{name}", 1,
            shaft=(0.25, 0.8) if length else (0.3, 0.6),
        )  # fmt: skip
        bones.append(varied(bone, rng, 0.4))
    return tuple(bones)


def wrist_to_forearm(points: Points, length: float, view: str) -> Points:
    """Points of the hand (fingertips up) where a forearm of *length* mm hangs down with the same side to the left."""
    return np.asarray(points * (1, -1) + (9.0 if view == "LATERAL" else -4.0, length + 33.0), dtype=np.float64)


def elbow(rng: np.random.Generator, view: str) -> Anatomy:
    """Distal humerus, olecranon, head and tuberosity of the radius; AP or LATERAL."""
    bones = (distal_humerus(rng, view), *forearm_bones(rng, view, None))
    if view == "LATERAL":
        bones = (bones[0], *(transposed(bone) for bone in bones[1:]))
        tissue = Tissue(
            smooth(((-32, -220), (-31, -80), (-27, -34), (-31, -10), (-33, 6), (-27, 26), (-8, 38), (40, 43), (90, 44),
                    (220, 38), (220, -32), (110, -40), (66, -42), (46, -46), (38, -60), (36, -90), (36, -220))),
            64.0,
        )  # fmt: skip
        return Anatomy(bones, (tissue,), (-52.0, -92.0, 98.0, 62.0))
    tissue = Tissue(
        smooth(((-37, -220), (-37, -90), (-39, -50), (-42, -24), (-43, 0), (-47, 28), (-47, 70), (-42, 200), (42, 200),
                (48, 70), (49, 30), (47, 0), (47, -22), (42, -50), (38, -90), (37, -220)))
    , 62.0, 3.0)  # fmt: skip
    return Anatomy(bones, (tissue,), (-64.0, -92.0, 66.0, 84.0))


def transposed(bone: Bone) -> Bone:
    """The bone with x and y exchanged: from a forearm hanging down to one to the right."""
    return moved_bone(bone, lambda points: points[:, ::-1].copy())


def forearm(rng: np.random.Generator, view: str) -> Anatomy:
    """Radius and ulna in full length between elbow and wrist; AP or LATERAL."""
    length = float(rng.normal(238, 8))
    lateral = view == "LATERAL"
    humerus = distal_humerus(rng, view)
    far = [*hand.carpals(rng, view)]
    for number in hand.DIGITS:
        found = hand.digit(rng, number, view=view)
        far.extend(hand.side_by_side(found, number) if lateral else found)
    far = [moved_bone(bone, lambda points: wrist_to_forearm(points, length, view)) for bone in far]
    if lateral:
        humerus = transposed(humerus)
        skin: tuple[tuple[float, float], ...] = (
            (-220, -32), (-80, -34), (-30, -36), (0, -36), (24, -32), (38, -14), (43, 20), (44, 60), (38, 130),
            (30, length - 30), (27, length), (27, length + 30), (28, length + 150), (-40, length + 150),
            (-30, length + 50), (-12, length + 10), (-13, length - 20), (-28, 140), (-40, 80), (-46, 48),
            (-60, 38), (-90, 35), (-220, 36),
        )  # fmt: skip
        field = (-82.0, -46.0, 62.0, length + 60)
    else:
        skin = (
            (-38, -160), (-40, -50), (-43, -10), (-47, 30), (-46, 80), (-41, 140), (-34, length - 30),
            (-33, length + 8), (-44, length + 34), (-40, length + 150), (38, length + 150), (36, length + 34),
            (27, length + 2),
            (31, length - 30), (42, 130), (49, 70), (49, 20), (46, -20), (42, -50), (38, -160),
        )  # fmt: skip
        field = (-72.0, -58.0, 74.0, length + 60)
    bones = (humerus, *forearm_bones(rng, view, length), *far)
    return Anatomy(bones, (Tissue(smooth(skin), 54.0, 3.0),), field)
