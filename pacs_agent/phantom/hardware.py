"""Metal in bone: plates with screws, screws alone, Kirschner wires and cerclage.

Enters: a normal anatomy, a `Site` and a Generator. Leaves: the anatomy with the implant, and what encloses it.
"""

from dataclasses import replace

import numpy as np

from pacs_agent.phantom.anatomy import Anatomy, Metal, Points, ellipse, tube, turned
from pacs_agent.phantom.site import Made, Site, site_at


def plate(part: Anatomy, site: Site, rng: np.random.Generator, severity: float) -> Made:
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
    holes = max(3, min(8, round(float(np.linalg.norm(middles[-1] - middles[0])) / (1.5 * narrow))))
    for number, place in enumerate(np.linspace(0.06, 0.94, holes)):
        x = np.interp(place * 8, np.arange(9), middles[:, 0])
        y = np.interp(place * 8, np.arange(9), middles[:, 1])
        is_empty = holes > 4 and number == holes // 2  # the hole over the fracture
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


def wire(part: Anatomy, site: Site, rng: np.random.Generator, severity: float) -> Made:
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


def screws(part: Anatomy, site: Site, rng: np.random.Generator, severity: float) -> Made:
    """Two to four lag screws across the bone."""
    half = site.half
    thick = max(0.15 * half, 0.8)
    count = 2 + round(2 * severity * float(rng.random()))
    lean, side = float(rng.uniform(-35, 35)), float(rng.choice((-1, 1)))
    metal = []
    for number in range(count):
        middle = site.middle + site.along * half * 1.1 * (number - (count - 1) / 2)
        inward = turned(site.across[None] * side, lean + float(rng.normal(0, 5)))[0]
        head, tip = middle - inward * half * 1.25, middle + inward * half * 1.15
        metal.append(Metal(_bar(head, tip, thick), 3.0))
        metal.append(Metal(_bar(head - inward * thick, head + inward * thick, thick * 2), 4.0))
    return replace(part, metal=(*part.metal, *metal)), np.concatenate([piece.outline for piece in metal])


def _bar(start: Points, end: Points, half: float) -> Points:
    return tube([(*start, half), (*((start + end) / 2), half), (*end, half)], start=0.3, end=0.6)
