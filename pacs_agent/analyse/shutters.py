"""Display shutters: what of a picture its maker wants covered (PS3.3 C.7.6.11).

Enters: a data set and the size of its picture, possibly decoded at a reduced size. Leaves: which pixels stay open, or
None where nothing is covered. Never reads pixel data. A BITMAP shutter belongs to presentation states and is not read.
"""

import math
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset

Mask = NDArray[np.bool_]
Axis = NDArray[np.floating]


def open_area(ds: Dataset, full: tuple[int, int], shape: tuple[int, int]) -> Mask | None:
    """The pixels that no shutter covers.

    Args:
        ds: the data set; its shutters count rows and columns from 1.
        full: rows and columns of the whole picture.
        shape: rows and columns of the picture as decoded.

    Returns:
        bool of *shape*; None without shutters, and with shutters that cover everything: those are mistakes.
    """
    value = ds.get("ShutterShape")
    kinds = {part.strip().upper() for part in ([value] if isinstance(value, str) else value or ())}
    # Where the middle of each pixel lies in the whole picture, counted from 1.
    rows, columns = (np.arange(0.5, n) * (all_ / n) + 0.5 for n, all_ in zip(shape, full, strict=True))
    area = np.ones(shape, bool)
    for mask in _masks(ds, kinds, full, rows[:, None], columns[None, :]):
        area &= mask
    return area if area.any() and not area.all() else None


def _masks(ds: Dataset, kinds: set[str], full: tuple[int, int], rows: Axis, columns: Axis) -> Iterator[Mask]:
    if "RECTANGULAR" in kinds:
        left, right, upper, lower = (
            _numbers(ds, f"Shutter{edge}Edge", 1)
            for edge in ("LeftVertical", "RightVertical", "UpperHorizontal", "LowerHorizontal")
        )
        if left and right and upper and lower:
            yield (rows >= upper[0]) & (rows <= lower[0]) & (columns >= left[0]) & (columns <= right[0])
    if "CIRCULAR" in kinds:
        center, radius = _numbers(ds, "CenterOfCircularShutter", 2), _numbers(ds, "RadiusOfCircularShutter", 1)
        if center and radius:
            yield (rows - center[0]) ** 2 + (columns - center[1]) ** 2 <= radius[0] ** 2
    if "POLYGONAL" in kinds and (vertices := _numbers(ds, "VerticesOfThePolygonalShutter", 6)):
        # Row, column pairs. Drawn on the decoded grid, where pixel k has its middle at k.
        shape = (rows.shape[0], columns.shape[1])
        scale = [n / all_ for n, all_ in zip(shape, full, strict=True)]
        points = [
            ((column - 0.5) * scale[1] - 0.5, (row - 0.5) * scale[0] - 0.5)
            for row, column in zip(vertices[::2], vertices[1::2], strict=False)
        ]
        canvas = Image.new("1", (shape[1], shape[0]))
        ImageDraw.Draw(canvas).polygon(points, fill=1, outline=1)
        yield np.asarray(canvas)


def _numbers(ds: Dataset, keyword: str, least: int) -> list[float]:
    """An element's values, empty where there are fewer than *least* or one is no number of a picture."""
    value = ds.get(keyword)
    try:
        numbers = [float(part) for part in (value if hasattr(value, "__iter__") else [value])]
    except (TypeError, ValueError):
        return []
    usable = len(numbers) >= least and all(math.isfinite(number) and abs(number) < 1e6 for number in numbers)
    return numbers if usable else []
