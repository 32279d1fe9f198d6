"""Focal lesions: bone eaten away, or bone too dense.

Enters: a normal anatomy, a `Site` and a Generator. Leaves: the anatomy with the lesion, and what encloses it.
"""

from dataclasses import replace

import numpy as np

from pacs_agent.phantom.anatomy import Anatomy, Spot
from pacs_agent.phantom.site import Made, Site


def _spot(part: Anatomy, site: Site, spots: tuple[Spot, ...], extent: float) -> Made:
    bones = tuple(replace(b, spots=(*b.spots, *spots)) if b is site.bone else b for b in part.bones)
    centred = [(spot.frame[0], spot.frame - spot.frame[0]) for spot in spots]
    points = np.concatenate([middle + axes * sign * extent for middle, axes in centred for sign in (-1, 1)])
    return replace(part, bones=bones), points


def lytic(part: Anatomy, site: Site, rng: np.random.Generator, severity: float) -> Made:
    """A hole: spongiosa gone, the cortex eaten, at times with a sclerotic border."""
    half = site.half
    a, b = half * float(rng.uniform(0.8, 0.95)), half * float(rng.uniform(1.0, 1.4) + 1.6 * severity)
    middle = site.middle + site.across * half * float(rng.uniform(-0.25, 0.25))
    frame = np.array([middle, middle + site.across * a, middle + site.along * b])
    rim = float(rng.uniform(0.6, 1.4) + 0.8 * severity) if rng.random() < 0.75 else 0.0
    return _spot(part, site, (Spot(frame, 0.4 - 0.35 * severity, 0.05, 0.3, rim),), 1.1)


def sclerotic(part: Anatomy, site: Site, rng: np.random.Generator, severity: float) -> Made:
    """Dense bone in the cavity, in one to three foci that run together."""
    half = site.half
    spots = []
    foci = int(rng.integers(1, 4))
    for _ in range(foci):
        off_along, off_across = half * rng.normal(0, (0.6, 0.2))
        middle = site.middle + site.along * off_along + site.across * off_across
        a, b = half * float(rng.uniform(0.6, 0.9)), half * float(rng.uniform(0.9, 1.3) + 0.9 * severity)
        frame = np.array([middle, middle + site.across * a, middle + site.along * b])
        added_mm = half * float(rng.uniform(0.18, 0.3) + 0.9 * severity) / np.sqrt(foci)
        spots.append(Spot(frame, 1.0, 1.0, 0.55, added_mm=added_mm))
    return _spot(part, site, tuple(spots), 1.0)
