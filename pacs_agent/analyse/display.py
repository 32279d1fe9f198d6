"""Stored samples in, the picture a viewer would show out.

Enters: decoded `Samples` and the data set's display attributes. Leaves: uint8 grey, 255 white. The order is PS3.3's and
PS3.4 N.2's: modality LUT, VOI LUT, then one inversion. All is worked out on a table of the possible stored values and
their counts, so that the picture itself is touched once. Never decodes.
"""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from pacs_agent.analyse.codecs import Samples
from pacs_agent.analyse.imagepixel import ImagePixel
from pacs_agent.analyse.shutters import open_area
from pacs_agent.errors import UnsupportedImageError

ROBUST_TAIL = 0.001  # share of real pixels left out at either end of the full range: dead pixels, markers, direct beam

Picture = NDArray[np.uint8]
Curve = NDArray[np.float64]  # for each possible code, its value


def shown(ds: Dataset, pixel: ImagePixel, samples: Samples) -> Picture:
    """Render *samples* as a viewer would show them.

    Padding and what display shutters cover is shown black and has no part in ranges. Colour is shown as its luminance,
    without LUTs.

    Raises:
        UnsupportedImageError: nothing but padding, or one single value: no picture.
    """
    codes = samples.codes
    size = 1 << samples.bits
    stored = _stored_values(samples)
    area = open_area(ds, (pixel.rows, pixel.columns), (codes.shape[0], codes.shape[1]))
    counts = np.bincount((codes if area is None else codes[area]).ravel(), minlength=size)
    padding = _padding(ds, stored, samples)
    counts[padding] = 0
    _refuse_uniform(int(np.count_nonzero(counts)))
    if samples.colour:
        table = (np.arange(size) >> max(samples.bits - 8, 0)).astype(np.uint8)
    else:
        table = _table(ds, pixel, samples, stored, counts)
    table[padding] = 0
    picture = table[codes]
    if area is not None:
        picture[~area] = 0
    return picture


def shown_grey(codes: NDArray[np.uint16]) -> Picture:
    """Render 16-bit grey that has no display attributes (a PNG) as an instance without a window: full range.

    Raises:
        UnsupportedImageError: one single value.
    """
    counts = np.bincount(codes.ravel(), minlength=1 << 16)
    _refuse_uniform(int(np.count_nonzero(counts)))
    picture: Picture = _to_bytes(_full_range(np.arange(1 << 16, dtype=np.float64), counts))[codes]
    return picture


def refuse_uniform(picture: Picture) -> None:
    """Refuse a picture of one single value.

    Raises:
        UnsupportedImageError: it is one.
    """
    _refuse_uniform(1 + int(picture.min() != picture.max()))


def _refuse_uniform(distinct: int) -> None:
    if distinct == 0:
        raise UnsupportedImageError("the picture is nothing but padding (PixelPaddingValue)")
    if distinct == 1:
        raise UnsupportedImageError("the picture is uniform: all its pixels have one value")


def _stored_values(samples: Samples) -> Curve:
    values = np.arange(1 << samples.bits, dtype=np.float64)
    if samples.signed:
        values[len(values) // 2 :] -= len(values)
    return values


def _padding(ds: Dataset, stored: Curve, samples: Samples) -> NDArray[np.bool_]:
    """Which codes are padding (PS3.3 C.7.5.1.1.2): one value, or a range with both ends in it."""
    first = _first_number(ds, "PixelPaddingValue")
    if first is None or samples.colour:
        return np.zeros(len(stored), bool)
    last = _first_number(ds, "PixelPaddingRangeLimit")
    ends = [_as_stored(value, samples.signed) for value in (first, first if last is None else last)]
    return (stored >= min(ends)) & (stored <= max(ends))


def _as_stored(value: float, signed: bool) -> float:
    """A 16-bit value of US or SS, whichever it was written as, in the sign of the pixels."""
    value %= 65536
    return value - 65536 if signed and value >= 32768 else value


def _table(ds: Dataset, pixel: ImagePixel, samples: Samples, stored: Curve, counts: NDArray[np.int64]) -> Picture:
    """The grey of each code: modality LUT, VOI LUT or window or full range, inversion."""
    values, changed = _modality(ds, stored)
    grey = None
    for curve in _voi_curves(ds, values):
        # A LUT or window that would show almost all real pixels as one grey is no way to see this picture.
        if np.ptp(_robust_ends(curve, counts)) > 0:
            grey = _to_bytes(curve)
            break
    if grey is None:
        # Eight bits that nobody asks to change are shown as they are, as a PNG of them would be.
        as_it_is = samples.bits == 8 and not samples.signed and not changed
        grey = values.astype(np.uint8) if as_it_is else _to_bytes(_full_range(values, counts))
    return 255 - grey if _is_inverted(ds, pixel) else grey


def _is_inverted(ds: Dataset, pixel: ImagePixel) -> bool:
    """Whether low values are white: told once, by the shape where there is one, else by the photometric interpretation.

    PS3.3 C.11.6.1.2 and C.8.11.3.1.2: DX gives MONOCHROME1 the shape INVERSE and MONOCHROME2 IDENTITY, so the two say
    the same and must not both be obeyed. CR has no shape. Where they contradict, the shape is what a viewer applies
    last. The retired LIN OD says nothing of P-Values.
    """
    shape = str(ds.get("PresentationLUTShape") or "").strip().upper()
    if shape in ("IDENTITY", "INVERSE"):
        return shape == "INVERSE"
    return pixel.photometric == "MONOCHROME1"


def _modality(ds: Dataset, stored: Curve) -> tuple[Curve, bool]:
    """PS3.3 C.11.1: the LUT's values, else the rescaled ones; and whether they differ from the stored ones."""
    if (lut := _first_lut(ds, "ModalityLUTSequence", stored)) is not None:
        return lut[0], True
    slope, intercept = _first_number(ds, "RescaleSlope"), _first_number(ds, "RescaleIntercept")
    slope = slope or 1.0  # a slope of 0 would leave no picture
    return stored * slope + (intercept or 0.0), slope != 1.0 or bool(intercept)


def _voi_curves(ds: Dataset, values: Curve) -> Iterator[Curve]:
    """What the data set offers to see it by, each 0 to 1: the first VOI LUT, the first window (PS3.3 C.11.2)."""
    if (lut := _first_lut(ds, "VOILUTSequence", values)) is not None:
        curve, bits, largest = lut
        white = 2.0**bits - 1
        # Descriptors that name more or fewer bits than their data have are met; then the data's maximum is white.
        yield curve / (white if white / 4 <= largest <= white else max(largest, 1.0))
    center, width = _first_number(ds, "WindowCenter"), _first_number(ds, "WindowWidth")
    if center is None or width is None:
        return
    function = str(ds.get("VOILUTFunction") or "LINEAR").strip().upper()
    if function == "SIGMOID" and width > 0:  # C.11.2.1.3.1
        yield 1 / (1 + np.exp(np.clip(-4 * (values - center) / width, -500, 500)))
    elif function == "LINEAR_EXACT" and width > 0:  # C.11.2.1.3.2
        yield np.clip((values - center) / width + 0.5, 0, 1)
    elif function not in ("SIGMOID", "LINEAR_EXACT") and width >= 1:  # C.11.2.1.2.1
        above = values - (center - 0.5)
        yield np.clip(above / (width - 1) + 0.5, 0, 1) if width > 1 else (above > 0).astype(np.float64)


def _full_range(values: Curve, counts: NDArray[np.int64]) -> Curve:
    """Real pixels from dark to bright, 0 to 1, without the outermost share; with it where nothing else is left."""
    low, high = _robust_ends(values, counts)
    if low == high:
        real = values[counts > 0]
        low, high = real.min(), real.max()
    # A modality LUT may give different codes one value.
    return np.clip((values - low) / (high - low), 0, 1) if high > low else np.zeros_like(values)


def _robust_ends(values: Curve, counts: NDArray[np.int64]) -> tuple[float, float]:
    """The values below and above which lies `ROBUST_TAIL` of the real pixels."""
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(counts[order])
    tail = ROBUST_TAIL * reached[-1]
    low = values[order[np.searchsorted(reached, tail, side="right")]]
    high = values[order[np.searchsorted(reached, reached[-1] - tail, side="left")]]
    return float(low), float(high)


def _to_bytes(curve: Curve) -> Picture:
    return (curve * 255 + 0.5).astype(np.uint8)


def _first_lut(ds: Dataset, keyword: str, values: Curve) -> tuple[Curve, int, float] | None:
    """Look *values* up in the first item of a LUT sequence (PS3.3 C.11.1.1, C.11.2.1.1).

    Returns:
        The outputs, their bits by the descriptor, and the largest output; None without a usable LUT.
    """
    items = ds.get(keyword)
    item = items[0] if items else None
    if item is None or "LUTDescriptor" not in item or "LUTData" not in item:
        return None
    entries, first, bits = (int(number) for number in item.LUTDescriptor)
    entries = entries or 65536  # 0 stands for what 16 bits cannot say
    outputs = _lut_data(item, entries, ds.is_little_endian is not False)
    if len(outputs) < entries or not 8 <= bits <= 16:
        return None
    # US or SS by the sign of what is looked up, however it was written.
    first = int(_as_stored(first, bool(values.min() < 0)))
    index = np.clip(np.rint(values) - first, 0, entries - 1).astype(np.intp)
    return outputs[index], bits, float(outputs[:entries].max())


def _lut_data(item: Dataset, entries: int, little_endian: bool) -> Curve:
    """LUT Data as numbers: US, OW, or one byte an entry as some writers pack 8-bit tables."""
    data: Any = item.LUTData
    if isinstance(data, bytes):
        kind = "u1" if len(data) < 2 * entries else "<u2" if little_endian else ">u2"
        data = np.frombuffer(data[: len(data) // np.dtype(kind).itemsize * np.dtype(kind).itemsize], kind)
    return np.atleast_1d(np.asarray(data, np.float64)) % 65536


def _first_number(ds: Dataset, keyword: str) -> float | None:
    """The first value of an element as a finite number; None where there is none."""
    value = ds.get(keyword)
    if isinstance(value, bytes):
        value = int.from_bytes(value[:2], "little") if len(value) >= 2 else None
    elif not isinstance(value, str | int | float) and value is not None:
        value = next(iter(value), None) if hasattr(value, "__iter__") else value
    try:
        number = float(value) if value is not None else math.nan
    except (TypeError, ValueError):
        return None
    return number if math.isfinite(number) else None
