"""A picture and its heat map in, the picture that a person looks at out: overlay, colour bar, burned-in footer.

Enters: the radiograph as shown, a coarse map, the words. Leaves: uint8 RGB. The radiograph keeps its proportions, all
of it is seen, and no word lies on it. Never chooses the words, never decodes, never imports torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from pacs_agent.analyse.display import Picture
from pacs_agent.analyse.pixels import InputSpec, inner_box, reduce_picture

Rgb = NDArray[np.uint8]
Attention = NDArray[np.float32]

LONGEST_SIDE = 2048  # of a capture, footer included
SHORTEST_WIDTH = 640  # a narrower picture stands in the middle of black, for the words' sake

# Dark violet, magenta, orange, yellow: ever brighter, so that grey print and colour-blind eyes rank it alike.
_RAMP = ((0.0, (96, 0, 168)), (0.35, (218, 32, 118)), (0.7, (255, 132, 0)), (1.0, (255, 242, 64)))
_OPAQUE, _OPAQUE_FROM = 0.5, 0.5  # at most so much of the picture is hidden, from this share of the full scale on
_AMBER, _WHITE, _BLACK = (255, 190, 60), (240, 240, 240), (0, 0, 0)
_BAR_GREY = 110  # what the colour bar is laid on: as bright as soft tissue
_FINEST = 4  # the map is worked out at a quarter of the picture's size: it is far coarser anyway


@dataclass(frozen=True, slots=True)
class Caption:
    """The words of a capture.

    Attributes:
        title: above all others.
        lines: below it, each wrapped where it is too long.
        scale: what the two ends of the colour bar mean.
    """

    title: str
    lines: tuple[str, ...]
    scale: tuple[str, str]


def rendered(picture: Picture, attention: Attention, full_scale: float, spec: InputSpec, caption: Caption) -> Rgb:
    """The capture.

    Args:
        picture: uint8 (rows, columns) as shown, whole.
        attention: (h, w), 0 and more, on the network's input.
        full_scale: the attention at the colour bar's upper end; 0: nothing is laid on the picture.
        spec: of the bundle, whose stretch or letterbox is undone.
        caption: the words.

    Returns:
        uint8 (rows, columns, 3), no side longer than `LONGEST_SIDE`.
    """
    shown, footer = _fitted(picture, caption)
    levels = on_picture(attention, full_scale, spec, (picture.shape[1], picture.shape[0]), shown.shape)
    coloured = _blends()[levels, shown]
    canvas = np.zeros((shown.shape[0] + footer.height, footer.width, 3), np.uint8)
    left = (footer.width - shown.shape[1]) // 2
    canvas[: shown.shape[0], left : left + shown.shape[1]] = coloured
    canvas[shown.shape[0] :] = np.asarray(footer)
    return canvas


def on_picture(
    attention: Attention, full_scale: float, spec: InputSpec, size: tuple[int, int], shape: tuple[int, ...]
) -> Picture:
    """A map of the network's input on the geometry of the original picture.

    Args:
        attention: (h, w), on the square input.
        full_scale: what becomes 255.
        spec: of the bundle.
        size: columns and rows of the original picture.
        shape: rows and columns wanted.

    Returns:
        uint8 of *shape*.
    """
    rows, columns = shape
    if not full_scale > 0:
        return np.zeros((rows, columns), np.uint8)
    scale = min(1.0, spec.source_longest_side / max(size))
    reduced = (max(1, round(size[0] * scale)), max(1, round(size[1] * scale)))  # as reduce_picture has it
    height, width = attention.shape
    left, top, right, bottom = inner_box(reduced, spec)
    box = (left * width / spec.size, top * height / spec.size, right * width / spec.size, bottom * height / spec.size)
    coarse = Image.fromarray(attention).resize(
        (max(width, columns // _FINEST), max(height, rows // _FINEST)), Image.Resampling.BICUBIC, box
    )
    levels = np.clip(np.asarray(coarse) * (255 / full_scale) + 0.5, 0, 255).astype(np.uint8)
    return np.asarray(Image.fromarray(levels).resize((columns, rows), Image.Resampling.BILINEAR))


def _fitted(picture: Picture, caption: Caption) -> tuple[Picture, Image.Image]:
    """The picture reduced so that it and its footer fit, and the footer."""
    shown = reduce_picture(picture, LONGEST_SIDE)
    while True:
        footer = _footer(caption, max(shown.shape[1], SHORTEST_WIDTH))
        room = max(LONGEST_SIDE - footer.height, 1)
        if shown.shape[0] <= room:
            return shown, footer
        # A narrower footer may be taller.
        shown = reduce_picture(picture, max(1, int(max(shown.shape) * room / shown.shape[0])))


def _footer(caption: Caption, width: int) -> Image.Image:
    size = max(15, width // 48)
    margin, gap = size, size // 2
    title, text = _font(round(size * 1.35)), _font(size)
    low, high = (round(text.getlength(end)) for end in caption.scale)
    bar = max(8 * size, min(24 * size, width - 2 * margin - low - high - 2 * gap))
    rows = [(line, title, _AMBER) for line in _wrapped(caption.title, title, width - 2 * margin)]
    rows += [(line, text, _WHITE) for each in caption.lines for line in _wrapped(each, text, width - 2 * margin)]
    step = round(size * 1.35)
    footer = Image.new("RGB", (width, margin + size + gap + sum(round(f.size * 1.35) for _, f, _ in rows) + margin))
    draw = ImageDraw.Draw(footer)
    draw.line((0, 0, width, 0), fill=_WHITE)
    draw.text((margin, margin // 2), caption.scale[0], _WHITE, text)
    left = margin + low + gap
    levels = np.tile(np.linspace(0, 255, bar).astype(np.uint8), (size, 1))
    footer.paste(Image.fromarray(_blends()[levels, np.full_like(levels, _BAR_GREY)]), (left, margin // 2 + size // 6))
    draw.text((left + bar + gap, margin // 2), caption.scale[1], _WHITE, text)
    top = margin // 2 + step + gap
    for line, font, colour in rows:
        draw.text((margin, top), line, colour, font)
        top += round(font.size * 1.35)
    return footer


def _wrapped(text: str, font: ImageFont.FreeTypeFont, width: int) -> Sequence[str]:
    """The text in lines of *width* pixels; a word that is longer stands alone and is cut by the edge."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


@lru_cache(maxsize=16)
def _font(size: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType")
    return font


@lru_cache(maxsize=1)
def _blends() -> Rgb:
    """What becomes of a grey under a level of the map: (256 levels, 256 greys, 3)."""
    level = np.linspace(0, 1, 256)
    colours = np.zeros((256, 3))
    for (low, start), (high, end) in pairwise(_RAMP):
        share = np.clip((level - low) / (high - low), 0, 1)[:, None]
        inside = (level >= low)[:, None]
        colours = np.where(inside, np.array(start) * (1 - share) + np.array(end) * share, colours)
    opacity = (_OPAQUE * np.minimum(level / _OPAQUE_FROM, 1))[:, None, None]
    grey = np.arange(256.0)[None, :, None]
    return (grey * (1 - opacity) + colours[:, None, :] * opacity + 0.5).astype(np.uint8)
