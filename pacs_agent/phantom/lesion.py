"""Abnormality: what kinds there are, how often, how severe, and the one way to put one into an `Anatomy`.

Enters: a normal anatomy and a Generator. Leaves: the anatomy with one kind of lesion, and where it is. It changes
geometry only; what the lesion looks like follows from the same physics as everything else.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from pacs_agent.phantom import focus, fracture, hardware, joint
from pacs_agent.phantom.anatomy import Anatomy, Points
from pacs_agent.phantom.site import Made, Site, shaft_site

Maker = Callable[[Anatomy, str, np.random.Generator, float], Made]

SUBTLE = (0.0, 0.3)  # severity: a radiologist looks twice
PLAIN = (0.4, 1.0)  # severity: a picture of 160 pixels shows it


def _in_a_shaft(make: Callable[[Anatomy, Site, np.random.Generator, float], Made]) -> Maker:
    def made(part: Anatomy, body_part: str, rng: np.random.Generator, severity: float) -> Made:
        return make(part, shaft_site(part, body_part, rng), rng, severity)

    return made


LESIONS: Mapping[str, Maker] = MappingProxyType(
    {
        "transverse fracture": _in_a_shaft(fracture.transverse),
        "oblique fracture": _in_a_shaft(fracture.oblique),
        "displaced fracture": _in_a_shaft(fracture.displaced),
        "plate": _in_a_shaft(hardware.plate),
        "screws": _in_a_shaft(hardware.screws),
        "wire": _in_a_shaft(hardware.wire),
        "lytic lesion": _in_a_shaft(focus.lytic),
        "sclerotic lesion": _in_a_shaft(focus.sclerotic),
        "dislocation": joint.dislocated,
        "joint narrowing": joint.narrowed,
    }
)
# How often: about half of MURA's positive studies show hardware; here a little more, so that a small network soon
# learns from a few thousand pictures.
SHARES: Mapping[str, float] = MappingProxyType(
    {
        "transverse fracture": 0.04,
        "oblique fracture": 0.04,
        "displaced fracture": 0.12,
        "plate": 0.27,
        "screws": 0.13,
        "wire": 0.18,
        "lytic lesion": 0.04,
        "sclerotic lesion": 0.06,
        "dislocation": 0.05,
        "joint narrowing": 0.07,
    }
)


@dataclass(frozen=True, slots=True)
class Lesion:
    """What a picture is to show.

    Args:
        kind: one of `LESIONS`.
        severity: 0 (subtle) to 1 (gross).
    """

    kind: str
    severity: float


def drawn(rng: np.random.Generator, *, subtle: float = 0.0) -> Lesion:
    """A kind by its share, and how severe: *subtle* is the share of lesions that are so (0..1)."""
    kind = str(rng.choice(tuple(SHARES), p=tuple(SHARES.values())))
    low, high = SUBTLE if rng.random() < subtle else PLAIN
    return Lesion(kind, float(rng.uniform(low, high)))


def with_lesion(
    part: Anatomy, body_part: str, rng: np.random.Generator, *, kind: str | None = None, severity: float | None = None
) -> tuple[Anatomy, Lesion, Points]:
    """The anatomy with a lesion.

    Args:
        part: a normal one.
        body_part: whose own bones and joints may have it.
        rng: chance.
        kind: one of `LESIONS`; None: any.
        severity: 0 (subtle) to 1 (gross); None: any that a picture of 160 pixels shows.

    Returns:
        The anatomy, the lesion, and points in mm that enclose it.
    """
    any_lesion = drawn(rng)
    lesion = Lesion(kind or any_lesion.kind, any_lesion.severity if severity is None else severity)
    made, enclosing = LESIONS[lesion.kind](part, body_part, rng, lesion.severity)
    return made, lesion, enclosing
