"""An instance's file (or a PNG or JPEG) in, the model's input out: the one preprocessing, for daemon and training.

Enters: a path or a data set. Leaves: uint8 grey arrays. Whatever the input, only `PixelsError` and its
`UnsupportedImageError` leave, each one line for a person. Never imports torch, never normalises: the network does that.

Parity: 8-bit MONOCHROME2 pixels without a window are shown as they are, and 16-bit ones by their full range, which is
also what a PNG of them gets; from then on there is one way. A reduced JPEG 2000 decode is the one approximation.
"""

import errno
import io
import logging
import math
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps
from pydicom import dcmread, uid
from pydicom.dataset import Dataset, FileDataset
from pydicom.filereader import read_dataset, read_file_meta_info

from pacs_agent.analyse.codecs import decode
from pacs_agent.analyse.display import Picture, refuse_uniform, shown, shown_grey
from pacs_agent.analyse.imagepixel import read_image_pixel
from pacs_agent.errors import PacsAgentError, PixelsError, UnreadableInstanceError

PREPROCESSING = 1
"""Raise it when a change here (or in what this calls) changes any picture: decoded pictures are kept under it."""

HEADER_BYTES = 64 * 1024 * 1024  # what a file may hold beside its pixels
BYTES_A_PIXEL = 6  # three samples of 16 bits


@dataclass(frozen=True, slots=True)
class InputSpec:
    """What a bundle says of its network's input.

    Attributes:
        size: side of the square input, pixels.
        fit: `stretch` to the square, or `letterbox`: the longer side fills it, black bars fill the rest.
        source_longest_side: longest side of the training pictures (MURA: 512); a larger picture is first reduced to it.
        channels: how often the grey is repeated: 3, which is what every network here takes.
        mean: subtracted from grey of 0 to 1.
        std: what is left is divided by it.

    Raises:
        ValueError: no network can have been made for such an input.
    """

    size: int
    fit: Literal["stretch", "letterbox"]
    source_longest_side: int
    channels: int
    mean: float
    std: float

    def __post_init__(self) -> None:
        if not 16 <= self.size <= 4096 or not self.size <= self.source_longest_side <= 65_536:
            raise ValueError("size is 16 to 4096, and source_longest_side not below it")
        if self.channels != 3 or not self.std > 0 or not math.isfinite(self.mean + self.std):
            raise ValueError("channels are 3, mean and std are numbers, std above 0")


def read_picture(path: Path, *, max_pixels: int, longest_side: int | None = None) -> Picture:
    """Read a DICOM Part 10, PNG or JPEG file as a viewer would show it.

    Args:
        path: the file.
        max_pixels: rows × columns allowed, judged before anything is decoded.
        longest_side: a hint for JPEG 2000 in DICOM: what `reduce_picture` will ask for. The picture may then come at
            1/2, 1/4 or 1/8 of its size, its longest side never below the hint.

    Returns:
        uint8 (rows, columns), 255 white.

    Raises:
        PixelsError: the file cannot be read or decoded, or is larger than allowed.
        UnsupportedImageError: it is not a single picture for viewing.
        UnreadableInstanceError: the disk does not give it back.
    """
    with _one_line("the file cannot be read"):
        with path.open("rb") as file:
            start = file.read(132)
            length = file.seek(0, io.SEEK_END)
        if length > max_pixels * BYTES_A_PIXEL + HEADER_BYTES:
            raise PixelsError(f"the file is too large for the {max_pixels} pixels allowed ({length} bytes)")
        if start[128:] == b"DICM":
            return read_dicom_picture(_part_10(path, max_pixels), max_pixels=max_pixels, longest_side=longest_side)
        if start.startswith((b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")):
            with Image.open(path, formats=["PNG", "JPEG"]) as image:
                return _raster(image, max_pixels)
    raise PixelsError("the file is neither DICOM Part 10 nor PNG nor JPEG")


def read_dicom_picture(ds: Dataset, *, max_pixels: int, longest_side: int | None = None) -> Picture:
    """As `read_picture`, of a data set with its pixel data and file meta information."""
    with _one_line("the pixel data cannot be decoded"):
        pixel = read_image_pixel(ds, max_pixels)
        return shown(ds, pixel, decode(ds, pixel, longest_side))


def reduce_picture(picture: Picture, longest_side: int) -> Picture:
    """Reduce to the geometry of the training pictures: area average, proportions kept, never enlarged.

    Args:
        picture: uint8 (rows, columns).
        longest_side: in pixels.

    Returns:
        uint8 (rows, columns), the longer of them *longest_side* at most.
    """
    rows, columns = picture.shape
    scale = longest_side / max(rows, columns)
    if scale >= 1:
        return picture
    size = (max(1, round(columns * scale)), max(1, round(rows * scale)))
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BOX))


def model_input(picture: NDArray[np.uint8], spec: InputSpec) -> Picture:
    """Bring a picture to the network's input: reduced to the training pictures' size, then bilinear with antialiasing.

    It stays 8 bit, so that training can keep it in a cache and both see the same numbers. The network's side goes on
    with (x / 255 - mean) / std, repeated to the channels.

    Args:
        picture: uint8 (rows, columns) of `read_picture`.
        spec: of the bundle.

    Returns:
        uint8 (size, size).
    """
    reduced = Image.fromarray(reduce_picture(picture, spec.source_longest_side))
    left, top, right, bottom = inner_box(reduced.size, spec)
    inner = reduced.resize((right - left, bottom - top), Image.Resampling.BILINEAR)
    if spec.fit == "stretch":
        return np.asarray(inner)
    square = Image.new("L", (spec.size, spec.size))
    square.paste(inner, (left, top))
    return np.asarray(square)


def inner_box(size: tuple[int, int], spec: InputSpec) -> tuple[int, int, int, int]:
    """Where in the network's square input the picture lies: left, top, right, bottom; right and bottom not included.

    Args:
        size: columns and rows of the reduced picture.
        spec: of the bundle.
    """
    side = spec.size
    if spec.fit == "stretch":
        return 0, 0, side, side
    scale = side / max(size)
    columns, rows = (max(1, round(length * scale)) for length in size)
    left, top = (side - columns) // 2, (side - rows) // 2
    return left, top, left + columns, top + rows


def _part_10(path: Path, max_pixels: int) -> Dataset:
    """Read a Part 10 file; a deflated one is inflated no further than its pixels could ask for."""
    meta = read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") != uid.DeflatedExplicitVRLittleEndian:
        ds: FileDataset = dcmread(path)
        return ds
    # PS3.5 A.5: all after the file meta information is one raw deflate stream.
    start = 132 + 12 + int(meta.FileMetaInformationGroupLength)
    bound = max_pixels * BYTES_A_PIXEL + HEADER_BYTES
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    inflated = inflater.decompress(path.read_bytes()[start:], bound)
    if not inflater.eof:
        raise PixelsError("the deflated data set is cut short or larger than its pixels may ask for")
    plain = read_dataset(io.BytesIO(inflated), False, True)
    plain.file_meta = meta
    return plain


def _raster(image: Image.Image, max_pixels: int) -> Picture:
    """A PNG or JPEG: 8 bit as it is, colour as luminance, transparency on black, 16-bit grey by its full range."""
    if image.width * image.height > max_pixels:
        raise PixelsError(
            f"rows × columns are {image.height} × {image.width}, more than the {max_pixels} pixels allowed"
        )
    upright = ImageOps.exif_transpose(image)
    if upright.mode.startswith(("I", "F")):
        return shown_grey(np.asarray(upright).astype(np.uint16))
    if upright.has_transparency_data:
        colour = upright.convert("RGBA")
        upright = Image.alpha_composite(Image.new("RGBA", colour.size, "black"), colour).convert("RGB")
    picture: Picture = np.array(upright.convert("L"))
    refuse_uniform(picture)
    return picture


@contextmanager
def _one_line(what: str) -> Iterator[None]:
    """Turn whatever a reader or decoder raises on bad input into one `PixelsError`, and keep its warnings in."""
    log = logging.getLogger("pydicom")  # it logs a traceback of what it also raises
    level = log.level
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        log.setLevel(logging.CRITICAL + 1)
        try:
            yield
        except PacsAgentError:
            raise
        except MemoryError as error:
            raise PixelsError(f"{what}: it needs more memory than there is") from error
        except OSError as error:
            # Of an error of the disk without the path: reasons go into reports.
            kind = UnreadableInstanceError if error.errno == errno.EIO else PixelsError
            raise kind(f"{what} ({error.strerror or str(error).strip()[:200]})") from error
        except Exception as error:  # pydicom, Pillow and the codecs raise whatever broken bytes lead to
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise PixelsError(f"{what} ({lines[-1].strip()[:200]})") from error
        finally:
            log.setLevel(level)
