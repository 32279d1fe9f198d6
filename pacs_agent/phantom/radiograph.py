"""A radiograph of a phantom: physics from the X-ray beam to the picture that a modality sends.

Enters: a body part, whether it is abnormal, and a seed. Leaves: a `Radiograph`, bone bright on black, the same for the
same seed with the same numpy and scipy. It knows no DICOM.

The beam has one effective energy. Its attenuation along a ray follows from the path lengths through fat, muscle,
trabecular and cortical bone and metal (Beer and Lambert); scatter, blur and quantum noise follow; the picture is the
logarithm of the exposure, tone-mapped as digital radiography does.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from scipy import ndimage

from pacs_agent.errors import PacsAgentError
from pacs_agent.phantom import arm, hand, paths, shoulder
from pacs_agent.phantom.anatomy import Anatomy, Points, aged, turned
from pacs_agent.phantom.lesion import with_lesion
from pacs_agent.phantom.paths import Grid, Plane
from pacs_agent.study.bodypart import BODY_PARTS

# Linear attenuation at about 42 keV, per mm: ICRU-44 tissues; bone as what it adds to the muscle whose place it takes.
MUSCLE, FAT, BONE, METAL = 0.0262, 0.0215, 0.075, 0.9

_PARTS: Mapping[str, tuple[Callable[[np.random.Generator, str], Anatomy], tuple[str, ...]]] = MappingProxyType(
    {
        "elbow": (arm.elbow, ("AP", "LATERAL")),
        "finger": (hand.finger, ("PA", "LATERAL")),
        "forearm": (arm.forearm, ("AP", "LATERAL")),
        "hand": (hand.hand, ("PA", "OBLIQUE")),
        "humerus": (shoulder.humerus, ("AP", "LATERAL")),
        "shoulder": (shoulder.shoulder, ("AP", "OBLIQUE")),
        "wrist": (hand.wrist, ("PA", "LATERAL", "OBLIQUE")),
    }
)
VIEWS: Mapping[str, tuple[str, ...]] = MappingProxyType({part: _PARTS[part][1] for part in BODY_PARTS})


@dataclass(frozen=True, slots=True)
class Radiograph:
    """A picture and what is known of it.

    Args:
        picture: (rows, columns) float32, 0..1, bone bright.
        body_part: one of the seven.
        abnormal: whether it shows a lesion.
        lesion: what kind of lesion, or None.
        severity: of the lesion, 0 (subtle) to 1 (gross), or None.
        lesion_box: row0, col0, row1, col1 round the lesion, the ends not included, or None.
        laterality: "R" or "L".
        view: one of `VIEWS` of the part.
        spacing_mm: between the centres of neighbouring pixels at the detector.
        age_years: of the phantom.
    """

    picture: Plane
    body_part: str
    abnormal: bool
    lesion: str | None
    severity: float | None
    lesion_box: tuple[int, int, int, int] | None
    laterality: str
    view: str
    spacing_mm: float
    age_years: int


def radiograph(
    body_part: str,
    *,
    abnormal: bool,
    seed: int,
    laterality: str = "R",
    view: str = "AP",
    longest_side: int = 1024,
    lesion: str | None = None,
    severity: float | None = None,
    age_years: int | None = None,
) -> Radiograph:
    """Make a radiograph; the same arguments give the same one, and *abnormal* alone changes nothing but the lesion.

    Args:
        body_part: one of the seven.
        abnormal: whether to put a lesion in.
        seed: of all chance.
        laterality: "R" or "L", the side that it shows.
        view: one of `VIEWS` of the part; AP and PA both mean its frontal view.
        longest_side: of the picture, in pixels.
        lesion: a kind of `lesion.LESIONS`; None: any.
        severity: 0 (subtle) to 1 (gross); None: any that 160 pixels can show.
        age_years: of the phantom; None: any from 19 to 87.

    Raises:
        PacsAgentError: the body part or the view is unknown.
    """
    if body_part not in _PARTS:
        raise PacsAgentError(f"unknown body part {body_part!r}: one of {', '.join(BODY_PARTS)}")
    make, views = _PARTS[body_part]
    view = views[0] if view in ("AP", "PA") else view
    if view not in views:
        raise PacsAgentError(f"no view {view!r} of {body_part}: one of {', '.join(views)}")
    streams = np.random.default_rng([seed, BODY_PARTS.index(body_part), views.index(view)]).spawn(4)
    anatomy_rng, lesion_rng, place_rng, exposure_rng = streams

    part = make(anatomy_rng, view)
    # Of the patient, not of the view: a study whose views disagree on it would be held.
    if age_years is None:
        age_years = int(np.random.default_rng([seed, 19, *body_part.encode()]).integers(19, 88))
    part = _grown_old(part, age_years)
    found, enclosing = None, None
    if abnormal:
        part, found, enclosing = with_lesion(part, body_part, lesion_rng, kind=lesion, severity=severity)
    place = _placement(part, place_rng, mirrored=laterality == "L")
    part = part.moved(place)

    x0, y0, x1, y1 = part.field
    spacing_mm = max(x1 - x0, y1 - y0) / longest_side
    grid = Grid(round((y1 - y0) / spacing_mm), round((x1 - x0) / spacing_mm), spacing_mm, x0, y0)
    picture = _expose(part, grid, exposure_rng, laterality)
    box = None if enclosing is None else _box(grid, place(enclosing))
    kind, degree = (None, None) if found is None else (found.kind, found.severity)
    return Radiograph(picture, body_part, abnormal, kind, degree, box, laterality, view, spacing_mm, age_years)


def study_views(body_part: str, seed: int, count: int) -> tuple[tuple[str, int], ...]:
    """View and seed of each of the *count* pictures of a study: the part's views in turn, then taken again.

    Raises:
        PacsAgentError: the body part is unknown.
    """
    if body_part not in VIEWS:
        raise PacsAgentError(f"unknown body part {body_part!r}: one of {', '.join(BODY_PARTS)}")
    views = VIEWS[body_part]
    return tuple((views[n % len(views)], seed + 1_000_003 * (n // len(views))) for n in range(count))


def _grown_old(part: Anatomy, age_years: int) -> Anatomy:
    """Bone is lost from the fifth decade on: cortex thins, spongiosa thins more."""
    loss = max(0, age_years - 45) / 40
    return replace(
        part,
        bones=tuple(
            replace(b, cortex=aged(b.cortex, 1 - 0.25 * loss), spongiosa=aged(b.spongiosa, 1 - 0.4 * loss))
            for b in part.bones
        ),
    )


def _placement(part: Anatomy, rng: np.random.Generator, *, mirrored: bool) -> Callable[[Points], Points]:
    """How the part lies on the detector: size, turn, shift, side."""
    x0, y0, x1, y1 = part.field
    centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    scale = rng.normal(0.97, 0.035) * np.array([rng.normal(1, 0.02), 1.0])
    angle = float(np.clip(rng.normal(0, 5), -13, 13))
    shift = rng.normal(0, 0.018, 2) * (x1 - x0, y1 - y0)
    flip = np.array([-1.0 if mirrored else 1.0, 1.0])

    def place(points: Points) -> Points:
        return np.asarray((turned((points - centre) * scale, angle) + shift) * flip + centre, dtype=np.float64)

    return place


def _expose(part: Anatomy, grid: Grid, rng: np.random.Generator, laterality: str) -> Plane:
    """The picture of the placed anatomy."""
    shape = (grid.rows, grid.columns)
    factor = max(1, round(0.8 / grid.spacing_mm))
    muscle, fat = paths.tissue_paths(grid, part.tissues, factor)
    texture = _texture(shape, rng, grid.spacing_mm)
    cortical = np.zeros(shape, dtype=np.float32)
    for bone in part.bones:
        found = paths.bone_paths(grid, bone)
        if found is not None:
            window, shell, spongiosa = found
            cortical[window] += shell + spongiosa * (1 + texture[window])
    flesh = MUSCLE * muscle * (1 + 0.018 * _clouds(shape, rng, 5.0 / grid.spacing_mm)) + FAT * fat
    air = paths.air_share(grid, part.air, factor)
    if air is not None:
        flesh = flesh * (1 - 0.5 * air)
    attenuation = flesh + BONE * cortical
    metal = paths.metal_path(grid, part.metal)

    exposure = np.exp(-attenuation if metal is None else -attenuation - METAL * metal)
    exposure = ndimage.gaussian_filter(exposure, float(rng.uniform(0.10, 0.20)) / grid.spacing_mm, truncate=3.0)
    scatter = float(rng.uniform(0.08, 0.2))
    exposure = (1 - scatter) * exposure + scatter * _blurred(exposure, 9.0 / grid.spacing_mm)
    # Automatic exposure keeps it within a factor of ten; as many low doses as high ones.
    quanta = float(np.exp(rng.uniform(np.log(1600), np.log(16000)))) * (grid.spacing_mm / 0.2)
    noise = rng.standard_normal(shape, dtype=np.float32)
    signal = -np.log(np.maximum(exposure, 1e-4)) + noise / np.sqrt(quanta * np.maximum(exposure, 0.02))
    return _developed(signal, metal, grid, rng, laterality)


def _developed(signal: Plane, metal: Plane | None, grid: Grid, rng: np.random.Generator, laterality: str) -> Plane:
    """From the logarithmic signal to what is shown: range compressed, windowed, collimated, marked."""
    base = _blurred(signal, 12.0 / grid.spacing_mm)
    lifted = signal + float(rng.uniform(0.25, 0.6)) * (signal - base)
    anatomy = lifted[::4, ::4] if metal is None else lifted[::4, ::4][metal[::4, ::4] < 0.05]
    # A percentile below what a dense lesion covers: it must not darken the rest of the picture.
    high = float(np.percentile(anatomy, 97)) * float(rng.uniform(1.08, 1.38))
    low = 0.05 * high * float(rng.uniform(0, 1.5))
    tone = np.clip((lifted - low) / (high - low), 0, 1) ** np.float32(rng.uniform(0.8, 1.35))
    tone = tone * _shutter(grid, rng)
    return np.ascontiguousarray(_marked(tone.astype(np.float32), rng, laterality, grid))


def _shutter(grid: Grid, rng: np.random.Generator) -> Plane:
    """1 inside the collimated field, 0 outside; at times the whole detector is open."""
    insets = rng.uniform(0, 0.05, 4) * (grid.rows + grid.columns) / 2
    lean = float(rng.normal(0, 0.8))
    if rng.random() < 0.35:
        return np.ones((1, 1), dtype=np.float32)
    (left, top), (right, bottom) = insets[:2], (grid.columns - insets[2], grid.rows - insets[3])
    corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
    corners = turned(corners, lean, (grid.columns / 2, grid.rows / 2))
    image = Image.new("L", (grid.columns, grid.rows))
    ImageDraw.Draw(image).polygon([(x, y) for x, y in corners], fill=255)
    return np.asarray(ndimage.uniform_filter(np.asarray(image, dtype=np.float32) / 255, 3))


def _marked(picture: Plane, rng: np.random.Generator, laterality: str, grid: Grid) -> Plane:
    """The lead letter of the side, in the emptiest corner."""
    size = max(9, round(float(rng.uniform(0.038, 0.065)) * max(picture.shape)))
    image = Image.new("L", (size, size))
    draw = ImageDraw.Draw(image)
    draw.text((size / 2, size / 2), laterality, fill=255, font=ImageFont.load_default(size * 0.95), anchor="mm")
    letter = np.asarray(image.rotate(float(rng.normal(0, 6)), Image.Resampling.BILINEAR), dtype=np.float32) / 255
    edge_y, edge_x = round(0.05 * grid.rows) + size // 4, round(0.05 * grid.columns) + size // 4
    places = [
        (row, column)
        for row in (edge_y, grid.rows - edge_y - size)
        for column in (edge_x, grid.columns - edge_x - size)
        if row >= 0 and column >= 0
    ]
    row, column = min(places, key=lambda at: float(picture[at[0] : at[0] + size, at[1] : at[1] + size].mean()))
    under = picture[row : row + size, column : column + size]
    under[:] = np.maximum(under, letter * np.float32(rng.uniform(0.85, 1.0)))
    return picture


def _texture(shape: tuple[int, int], rng: np.random.Generator, spacing_mm: float) -> Plane:
    """Trabeculae: band-passed noise, drawn out along the limb, weaker where pixels are too large to show them."""
    fine = max(0.28 / spacing_mm, 0.7)
    strength = 0.22 * 0.28 / spacing_mm / fine
    noise = rng.standard_normal(shape, dtype=np.float32)
    band = ndimage.gaussian_filter(noise, (1.7 * fine, fine), truncate=2.5)
    band -= _blurred(band, 3 * fine)
    return np.asarray(band * (strength / max(float(band[::3, ::3].std()), 1e-6)), dtype=np.float32)


def _clouds(shape: tuple[int, int], rng: np.random.Generator, sigma: float) -> Plane:
    """Slow noise of standard deviation 1, *sigma* pixels coarse."""
    step = max(1, int(sigma / 2))
    coarse = rng.standard_normal((-(-shape[0] // step) + 4, -(-shape[1] // step) + 4), dtype=np.float32)
    coarse = ndimage.gaussian_filter(coarse, sigma / step)
    return paths.resized(coarse / max(float(coarse.std()), 1e-6), shape)


def _blurred(plane: Plane, sigma: float) -> Plane:
    """A Gaussian blur of *sigma* pixels, on a coarser plane where that is enough."""
    step = max(1, int(sigma / 3))
    shape = (-(-plane.shape[0] // step), -(-plane.shape[1] // step))
    if step == 1:
        return np.asarray(ndimage.gaussian_filter(plane, sigma, truncate=3.0))
    image = Image.fromarray(plane).resize((shape[1], shape[0]), Image.Resampling.BOX)
    small = ndimage.gaussian_filter(np.asarray(image, dtype=np.float32), sigma / step, truncate=3.0)
    return paths.resized(small, plane.shape)


def _box(grid: Grid, enclosing: Points) -> tuple[int, int, int, int]:
    """row0, col0, row1, col1 round points, within the picture."""
    low = np.floor(grid.pixels(enclosing).min(axis=0)).astype(int)
    high = np.ceil(grid.pixels(enclosing).max(axis=0)).astype(int) + 1
    row0, column0 = max(0, int(low[1])), max(0, int(low[0]))
    return row0, column0, min(grid.rows, int(high[1])), min(grid.columns, int(high[0]))
