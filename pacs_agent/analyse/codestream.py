"""Headers of compressed frames: what a decoder would allocate, read before any decoder sees the frame.

Enters: the bytes of one compressed frame. Leaves: a `Codestream` with size, components and precision. Never decodes,
never allocates by what a header says.
"""

import itertools
import struct
from dataclasses import dataclass, replace
from typing import Literal

from pacs_agent.errors import PixelsError

Process = Literal["JPEG", "JPEG lossless", "JPEG-LS", "JPEG 2000"]

MAX_MARKERS = 10_000  # marker segments walked; a real header has a few dozen


@dataclass(frozen=True, slots=True)
class Codestream:
    """What a compressed frame says of itself.

    Attributes:
        process: the family of its coding; `JPEG` is the DCT, 8 or 12 bit.
        rows: lines.
        columns: samples a line.
        components: samples a pixel.
        precision: bits a sample.
        signed: only JPEG 2000 says so; the others hold bits without a sign.
        levels: wavelet decomposition levels of JPEG 2000, so that 1/2^levels is the smallest reduced size; else 0.
    """

    process: Process
    rows: int
    columns: int
    components: int
    precision: int
    signed: bool = False
    levels: int = 0


def read_jpeg_header(frame: bytes) -> Codestream:
    """Read the frame header (SOF) of a JPEG or JPEG-LS frame and make sure that the frame was not cut.

    Raises:
        PixelsError: no start of image, no frame header before the scan, or no end of image
            (ITU-T T.81 B.1.1.3, T.87 C.1.1).
    """
    if frame[:2] != b"\xff\xd8":
        raise PixelsError("the compressed pixel data does not begin as JPEG (no start of image)")
    found: Codestream | None = None
    at = 2
    for _ in range(MAX_MARKERS):
        while frame[at : at + 2] == b"\xff\xff":  # T.81 B.1.1.2: any marker may be preceded by fill bytes
            at += 1
        if at + 4 > len(frame) or frame[at] != 0xFF:
            break
        marker, length = frame[at + 1], int.from_bytes(frame[at + 2 : at + 4], "big")
        # SOF0 to SOF15 without DHT, JPG and DAC; 0xF7 is SOF55 of JPEG-LS.
        if marker in (0xF7, *range(0xC0, 0xD0)) and marker not in (0xC4, 0xC8, 0xCC):
            found = _frame_header(marker, frame[at + 4 : at + 2 + length])
        if marker == 0xDA:  # start of scan
            if found is None:
                break
            if frame.find(b"\xff\xd9", at) < 0:
                raise PixelsError(f"the {found.process} data is cut short (no end of image)")
            return found
        at += 2 + length
    raise PixelsError("the JPEG header is broken (no frame header before the scan)")


def _frame_header(marker: int, body: bytes) -> Codestream:
    """A SOF segment without its length (T.81 B.2.2; the same layout in T.87)."""
    if len(body) < 6:
        raise PixelsError("the JPEG header is broken (frame header too short)")
    precision, rows, columns, components = struct.unpack(">BHHB", body[:6])
    process: Process
    if marker == 0xF7:
        process = "JPEG-LS"
    elif marker == 0xC3:
        process = "JPEG lossless"
    elif marker <= 0xC2:
        process = "JPEG"
    else:
        raise PixelsError(f"the JPEG data is of a kind that is not decoded (SOF{marker - 0xC0})")
    return Codestream(process, rows, columns, components, precision)


def read_jpeg_2000_header(frame: bytes) -> tuple[Codestream, bytes]:
    """Read SIZ and COD of a JPEG 2000 (or HTJ2K) frame and make sure that the frame was not cut.

    Returns:
        The header, and the bare codestream: some vendors put the JP2 file boxes before it, against PS3.5 A.4.4.

    Raises:
        PixelsError: no codestream, a broken main header, subsampled components, or tile-parts that end beyond the
            frame (ISO/IEC 15444-1 A.4.2, A.5.1, A.6.1).
    """
    start = frame.find(b"\xff\x4f\xff\x51", 0, 65536)
    if start < 0 or (start > 0 and frame[4:8] != b"jP  "):
        raise PixelsError("the compressed pixel data does not begin as JPEG 2000 (no SOC and SIZ)")
    data = frame[start:] if start else frame
    levels: int | None = None
    siz: Codestream | None = None
    at = 2
    for _ in range(MAX_MARKERS):
        if at + 4 > len(data):
            break
        marker, length = struct.unpack(">HH", data[at : at + 4])
        body = data[at + 4 : at + 2 + length]
        if marker == 0xFF51:
            siz = _siz(body)
        elif marker == 0xFF52 and len(body) >= 6:
            levels = body[5]  # Scod, SGcod (4 bytes), then the number of decomposition levels
        elif marker == 0xFF90:  # start of the first tile-part: the main header ends here
            if siz is None or levels is None:
                break
            _check_tile_parts(data, at)
            return replace(siz, levels=levels), data
        if length < 2 or not 0xFF00 < marker <= 0xFFFF:
            break
        at += 2 + length
    raise PixelsError("the JPEG 2000 main header is broken")


def _siz(body: bytes) -> Codestream:
    if len(body) < 39:
        raise PixelsError("the JPEG 2000 main header is broken (SIZ too short)")
    _, x, y, x0, y0, tile_x, tile_y, _, _, components = struct.unpack(">HIIIIIIIIH", body[:36])
    first = body[36:39]
    if components == 0 or len(body) < 36 + 3 * components or x <= x0 or y <= y0 or not tile_x or not tile_y:
        raise PixelsError("the JPEG 2000 main header is broken (absurd SIZ)")
    if any(body[36 + 3 * n : 39 + 3 * n] != first for n in range(components)) or first[1:] != b"\x01\x01":
        raise PixelsError("the JPEG 2000 components differ in size or precision")
    return Codestream("JPEG 2000", y - y0, x - x0, components, (first[0] & 0x7F) + 1, bool(first[0] & 0x80))


def _check_tile_parts(data: bytes, at: int) -> None:
    """Walk the tile-parts: one that claims more bytes than there are means a cut frame."""
    for _ in range(MAX_MARKERS):
        if data[at : at + 2] != b"\xff\x90" or at + 12 > len(data):
            break
        length = int.from_bytes(data[at + 6 : at + 10], "big")  # Psot; 0: to the end of the codestream
        if length == 0:
            return
        if length < 14 or at + length > len(data):
            raise PixelsError("the JPEG 2000 data is cut short (a tile-part ends beyond the data)")
        at += length
    if data[at : at + 2] not in (b"\xff\xd9", b""):  # EOC; a missing one is forgiven, as decoders do
        raise PixelsError("the JPEG 2000 data is broken between its tile-parts")


def rle_segments(frame: bytes, segments: int) -> list[bytes]:
    """Split a frame by its RLE header (PS3.5 G.5), which must tell of as many segments as there are byte planes.

    Args:
        frame: one RLE compressed frame.
        segments: Samples per Pixel × Bits Allocated / 8.

    Returns:
        The segments, still compressed: of each sample the highest byte first.

    Raises:
        PixelsError: another number of segments, or offsets that do not rise or lie beyond the frame.
    """
    if len(frame) < 64:
        raise PixelsError("the RLE data is cut short (no header)")
    count, *offsets = struct.unpack("<16I", frame[:64])
    if count != segments:
        raise PixelsError(f"the RLE header tells of {count} segments where {segments} are needed")
    used = [*offsets[:count], len(frame)]
    if used[0] != 64 or any(after <= before for before, after in itertools.pairwise(used)):
        raise PixelsError("the RLE header's offsets lie outside its data")
    return [frame[start:end] for start, end in itertools.pairwise(used)]
