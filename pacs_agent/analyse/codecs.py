"""Bounded decoding: an instance's Pixel Data in, stored samples out.

Enters: a data set. Leaves: `Samples`, the stored values as they lie in their bits. Bounds come from the header and from
the codestream, both before a decoder runs. Never applies a LUT, never changes the data set.
"""

import io
import itertools
import os
import tempfile
import threading
from dataclasses import dataclass
from typing import Any, cast

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image, Jpeg2KImagePlugin, JpegImagePlugin
from pydicom import uid
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, generate_fragments, parse_basic_offsets
from pydicom.pixels.decoders.base import get_decoder

from pacs_agent.analyse.codestream import (
    Codestream,
    read_jpeg_2000_header,
    read_jpeg_header,
    rle_segments,
)
from pacs_agent.analyse.imagepixel import JPEG_2000, LOSSY, NATIVE, ImagePixel
from pacs_agent.errors import PixelsError, UnsupportedImageError

STDERR = threading.Lock()  # one at a time has the process's standard error
MAX_FRAGMENTS = 100_000
MAX_REDUCTION = 3  # 1/8: the smallest reduced size asked of a JPEG 2000 decoder


@dataclass(frozen=True, slots=True)
class Samples:
    """Decoded samples.

    Attributes:
        codes: uint16 (rows, columns), the stored bits without their sign: 12 signed bits of -1 are 4095. Colour is
            already luminance.
        bits: how many bits a code has.
        signed: whether the highest of them is a sign.
        colour: no LUT applies (PS3.3 C.11.1, C.11.2 are for monochrome).
    """

    codes: NDArray[np.uint16]
    bits: int
    signed: bool
    colour: bool


def decode(ds: Dataset, pixel: ImagePixel, longest_side: int | None = None) -> Samples:
    """Decode the one frame of *ds*.

    Args:
        ds: the data set with its pixel data and file meta information.
        pixel: of `read_image_pixel`.
        longest_side: a JPEG 2000 picture at least twice this is decoded at 1/2, 1/4 or 1/8, never below it. Not where
            PixelPaddingValue is given (reduced samples are averages, in which padding cannot be told), nor where the
            codestream's samples are not the stored values themselves.

    Raises:
        PixelsError: pixel data that is cut, broken or not as its header says. Decoders raise whatever broken data leads
            them to: the caller turns that into one line.
    """
    if pixel.transfer_syntax in NATIVE:
        return _words(pixel, _native(ds, pixel))
    frame = _frame(ds.PixelData)
    if pixel.transfer_syntax == uid.RLELossless:
        return _words(pixel, _rle(pixel, frame))
    if pixel.transfer_syntax in JPEG_2000:
        stream, frame = read_jpeg_2000_header(frame)
        _check_agreement(pixel, stream)
        array = None
        plain = pixel.samples == 1 and stream.signed == pixel.signed and pixel.high_bit == pixel.bits_stored - 1
        if longest_side and plain and "PixelPaddingValue" not in ds:
            array = _reduced(pixel, frame, stream, longest_side)
        if array is None:
            array = _decoded(pixel, frame, stream, pixel.transfer_syntax, "pylibjpeg")
        return _words(pixel, array, stream)
    stream = read_jpeg_header(frame)
    _check_agreement(pixel, stream)
    # The codestream chooses the decoder: transfer syntaxes that name another JPEG process are met in the field.
    if stream.process == "JPEG-LS":
        array = _decoded(pixel, frame, stream, uid.JPEGLSLossless, "pyjpegls")
    elif stream.process == "JPEG lossless":
        array = _jpeg_lossless(pixel, frame, stream)
    elif stream.precision == 8:
        array = _jpeg_8_bit(frame, pixel)
    elif stream.precision == 12 and pixel.samples == 1:
        array = imagecodecs.jpeg8_decode(frame)  # gdcm and Pillow refuse 12 bits
    else:
        raise UnsupportedImageError(f"JPEG with {stream.precision} bits a sample is not decoded")
    return _words(pixel, array, stream)


def _native(ds: Dataset, pixel: ImagePixel) -> NDArray[Any]:
    """Uncompressed samples, (rows, columns) or (rows, columns, 3)."""
    have = len(ds.PixelData)
    need = pixel.rows * pixel.columns * pixel.samples * pixel.bits_allocated // 8
    if pixel.photometric == "YBR_FULL_422":  # PS3.3 C.7.6.3.1.2: two chroma samples for two pixels
        need = need * 2 // 3
    if have < need:
        raise PixelsError(f"the pixel data is cut short: {have} bytes where Rows × Columns ask for {need}")
    options: Any = _options(pixel, pixel.bits_allocated, pixel.bits_allocated, pixel.signed)
    options["planar_configuration"] = int(ds.get("PlanarConfiguration") or 0)
    options["pixel_vr"] = ds["PixelData"].VR  # PS3.5 8.2: big endian swaps the bytes of OW, two 8-bit samples too
    return get_decoder(pixel.transfer_syntax).as_array(ds.PixelData, index=0, raw=True, **options)[0]


def _rle(pixel: ImagePixel, frame: bytes) -> NDArray[Any]:
    """RLE (PS3.5 G): byte planes of PackBits, decoded into room for what is needed and no more.

    Not by pylibjpeg-rle: on a broken segment its Rust panics, which is no `Exception`.
    """
    size, width = pixel.rows * pixel.columns, pixel.bits_allocated // 8
    room = bytearray(size + 128)  # a last run may go beyond the plane
    planes = np.zeros((pixel.samples, size), np.uint16)
    for number, segment in enumerate(rle_segments(frame, pixel.samples * width)):
        decoded = np.frombuffer(imagecodecs.packbits_decode(segment, out=room), np.uint8)
        if len(decoded) < size:
            raise PixelsError(f"the RLE data is cut short (segment {number + 1})")
        sample = planes[number // width]
        sample <<= 8
        sample |= decoded[:size]
    array = planes.reshape(pixel.samples, pixel.rows, pixel.columns)
    return array[0] if pixel.samples == 1 else np.moveaxis(array, 0, -1)


def _frame(pixel_data: bytes) -> bytes:
    """The one frame of encapsulated pixel data (PS3.5 A.4)."""
    items = io.BytesIO(pixel_data)
    offsets = parse_basic_offsets(items)
    fragments = list(itertools.islice(generate_fragments(items), MAX_FRAGMENTS + 1))
    if len(fragments) > MAX_FRAGMENTS:
        raise PixelsError(f"the pixel data has more than {MAX_FRAGMENTS} fragments")
    # A frame may be split into fragments; a second beginning of a codestream is a second frame.
    begun = sum(part.startswith((b"\xff\xd8\xff", b"\xff\x4f\xff\x51")) for part in fragments)
    if len(offsets) > 1 or begun > 1:
        raise UnsupportedImageError(f"the pixel data holds {max(len(offsets), begun)} frames, NumberOfFrames says one")
    if not any(fragments):
        raise PixelsError("the pixel data is empty")
    return b"".join(fragments)


def _check_agreement(pixel: ImagePixel, stream: Codestream) -> None:
    """Refuse a codestream that would make its decoder allocate other than the header said."""
    if (stream.rows, stream.columns) != (pixel.rows, pixel.columns):
        raise PixelsError(
            f"the {stream.process} data is {stream.rows} × {stream.columns}, "
            f"Rows × Columns say {pixel.rows} × {pixel.columns}"
        )
    if stream.components != pixel.samples:
        raise PixelsError(
            f"the {stream.process} data has {stream.components} components, SamplesPerPixel says {pixel.samples}"
        )
    # Precision and BitsStored differ in real files; more than was allocated is a lie.
    if not 2 <= stream.precision <= pixel.bits_allocated:
        raise PixelsError(
            f"the {stream.process} data has {stream.precision} bits a sample, BitsAllocated says {pixel.bits_allocated}"
        )


def _decoded(pixel: ImagePixel, frame: bytes, stream: Codestream, syntax: uid.UID, plugin: str) -> NDArray[Any]:
    """Decode by one named plugin of pydicom, as the codestream describes itself."""
    options: Any = _options(pixel, stream.precision, 8 if stream.precision <= 8 else 16, stream.signed)
    decoder = get_decoder(syntax)
    return decoder.as_array(encapsulate([frame]), index=0, raw=True, decoding_plugin=plugin, **options)[0]


def _options(pixel: ImagePixel, bits: int, allocated: int, signed: bool) -> dict[str, Any]:
    """What pydicom's decoders are told: whole words, so that it is `_words` that takes the stored bits out."""
    return {
        "rows": pixel.rows,
        "columns": pixel.columns,
        "number_of_frames": 1,
        "samples_per_pixel": pixel.samples,
        "planar_configuration": 0,
        "photometric_interpretation": pixel.photometric,
        "bits_allocated": allocated,
        "bits_stored": bits,
        "pixel_representation": int(signed),
        "pixel_keyword": "PixelData",
    }


def _jpeg_8_bit(frame: bytes, pixel: ImagePixel) -> NDArray[Any]:
    """Grey, RGB or, asked of the decoder itself, the luminance of YCbCr."""
    image = Image.open(io.BytesIO(frame), formats=["JPEG"])
    if pixel.samples == 3:
        raw = pixel.photometric == "RGB" and "adobe_transform" not in image.info
        # Without Adobe's marker libjpeg takes three components for YCbCr; asked for that, it hands them out untouched.
        cast(JpegImagePlugin.JpegImageFile, image).draft("YCbCr" if raw else "L", image.size)
    return np.asarray(image)


def _jpeg_lossless(pixel: ImagePixel, frame: bytes, stream: Codestream) -> NDArray[Any]:
    """JPEG lossless by gdcm, whose libjpeg writes of damage to the process's standard error and goes on: read there."""
    array = None
    with STDERR, tempfile.TemporaryFile() as told:
        kept = os.dup(2)
        os.dup2(told.fileno(), 2)
        try:
            array = _decoded(pixel, frame, stream, uid.JPEGLossless, "gdcm")
        except RuntimeError:
            pass  # pydicom's word for a decoder that gave nothing; the reason is in what was told
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        told.seek(0)
        lines = told.read().decode("ascii", "replace").splitlines()
    # A few bytes too many before a marker cost no pixel.
    damage = [line.strip() for line in lines if "extraneous bytes" not in line]
    if array is None or damage:
        raise PixelsError(f"the JPEG lossless data is damaged ({(damage or ['the decoder gave nothing'])[0]})")
    return array


def _reduced(pixel: ImagePixel, frame: bytes, stream: Codestream, longest_side: int) -> NDArray[Any] | None:
    """JPEG 2000 at 1/2, 1/4 or 1/8 as true sample values; None where there is nothing to gain or it fails."""
    deepest = min(stream.levels, MAX_REDUCTION)
    longest = max(stream.rows, stream.columns)
    while deepest and longest < longest_side << deepest:
        deepest -= 1
    for level in range(deepest, 0, -1):
        size = tuple(-(-side >> level) for side in (stream.rows, stream.columns))
        try:
            image = cast(Jpeg2KImagePlugin.Jpeg2KImageFile, Image.open(io.BytesIO(frame), formats=["JPEG2000"]))
            image.reduce = level
            array = np.asarray(image)
        except (OSError, ValueError, Image.DecompressionBombError):
            continue  # some odd sizes fail at some levels; the full decode is the judge of a broken frame
        if array.shape == size and array.dtype.kind == "u":
            # Pillow fills its 8 or 16 bits from the left and makes signed samples unsigned.
            values = (array >> (array.dtype.itemsize * 8 - stream.precision)).astype(np.float32)
            values = _recentred(values, 1 << level) - ((1 << (stream.precision - 1)) if stream.signed else 0)
            # Low-pass samples overshoot; where the codestream has bits beyond BitsStored they would wrap.
            bits = min(pixel.bits_stored, stream.precision)
            low = -(1 << (bits - 1)) if stream.signed else 0
            return values.round().clip(low, low + (1 << bits) - 1).astype(np.int32)
    return None


def _recentred(values: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    """Move reduced samples to the middle of the *step* × *step* pixels that each stands for.

    A wavelet's low-pass samples sit on every *step*-th pixel (ISO/IEC 15444-1 F.3: even positions), not between the
    pixels as an average does: without this the picture would be displaced by up to 3.5 pixels.
    """
    weight = np.float32((step - 1) / (2 * step))
    padded = np.pad(values, ((0, 1), (0, 1)), mode="edge")
    between = padded[:-1] + (padded[1:] - padded[:-1]) * weight
    return between[:, :-1] + (between[:, 1:] - between[:, :-1]) * weight


def _words(pixel: ImagePixel, array: NDArray[Any], stream: Codestream | None = None) -> Samples:
    """Take the stored bits out of decoded words (PS3.5 8.1.1), colour to luminance."""
    precision = stream.precision if stream else pixel.bits_allocated
    if stream and pixel.transfer_syntax in LOSSY:
        # Lossy samples overshoot: masked to BitsStored, white would wrap to black.
        bits, shift = precision, 0
    elif precision > pixel.high_bit:
        bits, shift = pixel.bits_stored, pixel.high_bit + 1 - pixel.bits_stored
    else:  # the codestream holds less than the header says, so it holds the stored bits alone
        bits, shift = min(pixel.bits_stored, precision), 0
    expected = {(pixel.rows, pixel.columns), (pixel.rows, pixel.columns, 3)}
    if array.shape not in expected and not (stream and stream.levels and array.ndim == 2):
        raise PixelsError(f"the decoder returned {array.shape} where Rows × Columns say {pixel.rows} × {pixel.columns}")
    # Unsigned words first: the sign of a decoder's type is no part of the stored bits.
    codes: NDArray[np.uint16] = (array.astype(np.uint16) >> np.uint16(shift)) & np.uint16((1 << bits) - 1)
    if codes.ndim == 3:
        # YBR_FULL begins with the luminance (PS3.3 C.7.6.3.1.2); JPEG 2000's own transforms come back as RGB.
        codes = codes[..., 0] if pixel.photometric in ("YBR_FULL", "YBR_FULL_422") else luminance(codes)
    return Samples(codes, bits, pixel.signed and pixel.samples == 1, pixel.samples == 3)


def luminance(rgb: NDArray[np.uint16]) -> NDArray[np.uint16]:
    """The luminance of RGB by ITU-R BT.601, (rows, columns, 3) to (rows, columns); grey stays the grey it was."""
    weights = np.array([19595, 38470, 7471], np.uint32)  # .299, .587, .114 in 65536ths
    return cast(NDArray[np.uint16], ((rgb @ weights + np.uint32(0x8000)) >> np.uint32(16)).astype(np.uint16))
