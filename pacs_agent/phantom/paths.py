"""Path lengths: how many millimetres of each material the beam crosses at each pixel.

Enters: outlines in mm and a `Grid`. Leaves: float32 arrays of the grid's shape, in mm. A bone is inflated from its
outline: its thickness at a point follows from the distance to the edge as if it were a cylinder there.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from scipy import ndimage

from pacs_agent.phantom.anatomy import Bone, Metal, Points, Profile, Spot, Tissue

Plane = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Grid:
    """Square pixels over a field: *rows* × *columns* of *spacing_mm*, the first at *x0*, *y0* (mm)."""

    rows: int
    columns: int
    spacing_mm: float
    x0: float
    y0: float

    def pixels(self, points: Points) -> Points:
        """Points in mm as (column, row), pixel centres at whole numbers."""
        return np.asarray((points - (self.x0, self.y0)) / self.spacing_mm - 0.5, dtype=np.float64)

    def coarser(self, factor: int) -> "Grid":
        """The same field with pixels *factor* times as large."""
        return Grid(
            -(-self.rows // factor), -(-self.columns // factor), self.spacing_mm * factor, self.x0, self.y0
        )  # fmt: skip

    def padded(self, cells: int) -> tuple["Grid", tuple[slice, slice]]:
        """The grid with *cells* more on each side, and where this one lies in it."""
        wider = Grid(
            self.rows + 2 * cells,
            self.columns + 2 * cells,
            self.spacing_mm,
            self.x0 - cells * self.spacing_mm,
            self.y0 - cells * self.spacing_mm,
        )
        return wider, (slice(cells, cells + self.rows), slice(cells, cells + self.columns))

    def window(self, points: Points, margin: int = 2) -> tuple[slice, slice] | None:
        """The rows and columns that *points* cover, or None when they lie outside."""
        low = np.floor(self.pixels(points).min(axis=0)).astype(int) - margin
        high = np.ceil(self.pixels(points).max(axis=0)).astype(int) + margin + 1
        rows = slice(max(low[1], 0), min(high[1], self.rows))
        columns = slice(max(low[0], 0), min(high[0], self.columns))
        return (rows, columns) if rows.start < rows.stop and columns.start < columns.stop else None

    def within(self, window: tuple[slice, slice]) -> "Grid":
        """The part of the grid that *window* covers."""
        rows, columns = window
        return Grid(
            rows.stop - rows.start,
            columns.stop - columns.start,
            self.spacing_mm,
            self.x0 + columns.start * self.spacing_mm,
            self.y0 + rows.start * self.spacing_mm,
        )

    def centres(self) -> tuple[Plane, Plane]:
        """x of each column as (1, columns) and y of each row as (rows, 1), in mm."""
        x = self.x0 + (np.arange(self.columns, dtype=np.float32) + 0.5) * self.spacing_mm
        y = self.y0 + (np.arange(self.rows, dtype=np.float32) + 0.5) * self.spacing_mm
        return x[None, :].astype(np.float32), y[:, None].astype(np.float32)


def mask(grid: Grid, outline: Points) -> NDArray[np.bool_]:
    """Where the outline's inside is."""
    image = Image.new("1", (grid.columns, grid.rows))
    ImageDraw.Draw(image).polygon([(x, y) for x, y in grid.pixels(outline)], fill=1)
    return np.asarray(image, dtype=bool)


def depth_inside(grid: Grid, outline: Points) -> Plane:
    """The distance to the edge in mm inside the outline, 0 outside; the grid's border is no edge."""
    inside = np.pad(mask(grid, outline), 1, mode="edge")
    distance = ndimage.distance_transform_edt(inside)[1:-1, 1:-1].astype(np.float32)
    return np.asarray(np.maximum(distance - 0.5, 0) * grid.spacing_mm, dtype=np.float32)


def radius(distance: Plane) -> Plane:
    """The local half thickness from the *distance* to the edge, both in mm: its greatest value nearby, smoothed."""
    top = float(distance.max())
    longest = max(distance.shape)
    step = max(1, longest // 120)
    coarse = distance[::step, ::step] / max(top, 1e-6)
    # In pixels of the coarse plane: about the half width of the widest place.
    spread = max(1.0, 0.6 * float(np.sqrt(np.count_nonzero(coarse) / max(1, longest / step))))
    powered = coarse**4
    upper = ndimage.gaussian_filter(powered * coarse, spread, truncate=2.5)
    lower = ndimage.gaussian_filter(powered, spread, truncate=2.5)
    ratio = np.where(lower > 1e-9, upper / np.maximum(lower, 1e-9), 1.0) * (top * 1.2)
    return np.maximum(resized(ratio.astype(np.float32), distance.shape), 1e-3)


def resized(plane: Plane, shape: tuple[int, ...]) -> Plane:
    """The plane stretched to *shape*, bilinear."""
    if plane.shape == shape:
        return plane
    image = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
    return np.asarray(image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR), dtype=np.float32)


def chord(distance: Plane, half: Plane) -> Plane:
    """The path through a cylinder of radius *half* at *distance* from its edge, in mm."""
    reach = np.minimum(distance, half)
    return np.asarray(2 * np.sqrt(np.maximum(reach * (2 * half - reach), 0)), dtype=np.float32)


def bone_paths(grid: Grid, bone: Bone) -> tuple[tuple[slice, slice], Plane, Plane] | None:
    """The paths through one bone: its window of the grid, cortical mm, and trabecular mm (mineral share included)."""
    window = grid.window(bone.outline)
    if window is None:
        return None
    part = grid.within(window)
    distance = depth_inside(part, bone.outline)
    if not distance.any():
        return None
    half = radius(distance)
    way = _way(part, bone.axis)
    shell = np.minimum(_along(bone.cortex, way), 0.6 * half)
    whole = chord(distance, half)
    cavity = chord(np.maximum(distance - shell, 0), np.maximum(half - shell, 0))
    cortical = (whole - cavity) * bone.depth
    trabecular = cavity * _along(bone.spongiosa, way) * bone.depth
    for spot in bone.spots:
        cortical, trabecular = _with_spot(part, spot, cortical, trabecular)
    if bone.clip is not None:
        left = ndimage.gaussian_filter(mask(part, bone.clip).astype(np.float32), 0.6)
        cortical, trabecular = cortical * left, trabecular * left
    return window, cortical, trabecular


def _way(grid: Grid, axis: Points) -> Plane:
    """How far along the axis each pixel lies, 0..1."""
    x, y = grid.centres()
    along = axis[1] - axis[0]
    length = float(along @ along)
    way = ((x - axis[0, 0]) * along[0] + (y - axis[0, 1]) * along[1]) / length
    return np.asarray(np.clip(way, 0, 1), dtype=np.float32)


def _along(profile: Profile, way: Plane) -> Plane:
    ways, values = zip(*profile, strict=True)
    table = np.interp(np.linspace(0, 1, 257), ways, values).astype(np.float32)
    return np.asarray(table[(way * 256).astype(np.int32)], dtype=np.float32)


def _with_spot(grid: Grid, spot: Spot, cortical: Plane, trabecular: Plane) -> tuple[Plane, Plane]:
    x, y = grid.centres()
    matrix = np.linalg.inv((spot.frame[1:] - spot.frame[0]).T)
    u = matrix[0, 0] * (x - spot.frame[0, 0]) + matrix[0, 1] * (y - spot.frame[0, 1])
    v = matrix[1, 0] * (x - spot.frame[0, 0]) + matrix[1, 1] * (y - spot.frame[0, 1])
    away = np.sqrt(u * u + v * v)
    share = np.clip((1 - away) / max(spot.edge, 1e-3), 0, 1)
    share = share * share * (3 - 2 * share)
    presence = np.minimum((cortical + trabecular) / 1.5, 1)
    rim = spot.rim_mm * np.exp(-(((away - 1) / 0.12) ** 2)) * presence
    shell = cortical * (1 + (spot.cortex - 1) * share) + rim
    spongy = trabecular * (1 + (spot.spongiosa - 1) * share) + spot.added_mm * share * presence
    return np.asarray(shell, dtype=np.float32), np.asarray(spongy, dtype=np.float32)


def tissue_paths(grid: Grid, tissues: Iterable[Tissue], factor: int) -> tuple[Plane, Plane]:
    """Muscle and fat in mm over the whole grid, computed on pixels *factor* times as large."""
    coarse = grid.coarser(factor)
    # Skin just outside the picture bounds the thickness inside it.
    wider, inside = coarse.padded(round(24 / coarse.spacing_mm))
    muscle = np.zeros((wider.rows, wider.columns), dtype=np.float32)
    fat = np.zeros_like(muscle)
    for tissue in tissues:
        distance = depth_inside(wider, tissue.outline)
        if not distance.any():
            continue
        half = np.minimum(radius(distance), np.float32(tissue.thickness_mm / 2))
        whole = chord(distance, half)
        inner = chord(np.maximum(distance - tissue.fat_mm, 0), np.maximum(half - tissue.fat_mm, 0))
        larger = whole > muscle + fat
        muscle = np.where(larger, inner, muscle)
        fat = np.where(larger, whole - inner, fat)
    sigma = 1.2 / coarse.spacing_mm
    shape = (coarse.rows * factor, coarse.columns * factor)
    crop = slice(0, grid.rows), slice(0, grid.columns)
    smooth_muscle = ndimage.gaussian_filter(muscle, sigma)[inside]
    smooth_fat = ndimage.gaussian_filter(fat, sigma * 0.6)[inside]
    return resized(smooth_muscle, shape)[crop], resized(smooth_fat, shape)[crop]


def air_share(grid: Grid, outlines: Iterable[Points], factor: int) -> Plane | None:
    """The share of soft tissue that air replaces, 0..1, over the whole grid; None where there is none."""
    coarse = grid.coarser(factor)
    share = np.zeros((coarse.rows, coarse.columns), dtype=np.float32)
    for outline in outlines:
        distance = depth_inside(coarse, outline)
        share = np.maximum(share, 1 - np.exp(-distance / 14.0))
    if not share.any():
        return None
    return resized(share, (coarse.rows * factor, coarse.columns * factor))[: grid.rows, : grid.columns]


def metal_path(grid: Grid, pieces: Iterable[Metal]) -> Plane | None:
    """Metal in mm over the whole grid; None where there is none."""
    total = np.zeros((grid.rows, grid.columns), dtype=np.float32)
    for piece in pieces:
        window = grid.window(piece.outline)
        if window is not None:
            total[window] += mask(grid.within(window), piece.outline) * np.float32(piece.thickness_mm)
    return ndimage.gaussian_filter(np.maximum(total, 0), 0.5) if total.any() else None
