"""The Image Pixel module, checked before anything is decoded.

Enters: a data set. Leaves: an `ImagePixel` that is one picture of a kind, size and depth that is decoded, or an error
that names the attribute. Never touches the pixel data itself.
"""

from dataclasses import dataclass
from typing import Literal

from pydicom import uid
from pydicom.dataset import Dataset

from pacs_agent.errors import PixelsError, UnsupportedImageError

NATIVE = (
    uid.ImplicitVRLittleEndian,
    uid.ExplicitVRLittleEndian,
    uid.DeflatedExplicitVRLittleEndian,
    uid.ExplicitVRBigEndian,
)
JPEG = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLossless, uid.JPEGLosslessSV1)
JPEG_LS = (uid.JPEGLSLossless, uid.JPEGLSNearLossless)
JPEG_2000 = (uid.JPEG2000Lossless, uid.JPEG2000, uid.HTJ2KLossless, uid.HTJ2KLosslessRPCL, uid.HTJ2K)
LOSSY = (uid.JPEGBaseline8Bit, uid.JPEGExtended12Bit, uid.JPEGLSNearLossless, uid.JPEG2000, uid.HTJ2K)
DECODED = (*NATIVE, uid.RLELossless, *JPEG, *JPEG_LS, *JPEG_2000)

# Digital X-ray, mammography and intra-oral images For Processing (PS3.4 B.5), told by class without the attribute.
FOR_PROCESSING = tuple(f"1.2.840.10008.5.1.4.1.1.1.{kind}.1" for kind in (1, 2, 3))


@dataclass(frozen=True, slots=True)
class ImagePixel:
    """The Image Pixel module (PS3.3 C.7.6.3), checked: what remains is a picture that can be decoded."""

    transfer_syntax: uid.UID
    rows: int
    columns: int
    samples: Literal[1, 3]
    photometric: str
    bits_allocated: int
    bits_stored: int
    high_bit: int
    signed: bool


def read_image_pixel(ds: Dataset, max_pixels: int) -> ImagePixel:
    """Check that *ds* is one picture of a kind and size that is decoded.

    Raises:
        UnsupportedImageError: For Processing, several frames, no pixel data, a transfer syntax, colour model or bit
            depth that is not decoded.
        PixelsError: attributes that are missing or absurd, more than *max_pixels*.
    """
    intent = str(ds.get("PresentationIntentType") or "").strip().upper()
    if intent == "FOR PROCESSING" or ds.get("SOPClassUID") in FOR_PROCESSING:
        raise UnsupportedImageError("the image is FOR PROCESSING (PresentationIntentType), not for viewing")
    if (frames := _integer(ds, "NumberOfFrames", 1)) > 1:
        raise UnsupportedImageError(f"the image has several frames (NumberOfFrames {frames})")
    if "PixelData" not in ds:
        raise UnsupportedImageError("the instance has no pixel data (no PixelData element)")
    rows, columns = _integer(ds, "Rows"), _integer(ds, "Columns")
    if rows <= 0 or columns <= 0:
        raise PixelsError(f"Rows × Columns are {rows} × {columns}")
    if rows * columns > max_pixels:
        raise PixelsError(f"Rows × Columns are {rows} × {columns}, more than the {max_pixels} pixels allowed")
    transfer_syntax = uid.UID(str(ds.file_meta.get("TransferSyntaxUID", "")))
    if transfer_syntax not in DECODED:
        raise UnsupportedImageError(f"pixel data of transfer syntax {transfer_syntax.name or '(none)'} is not decoded")
    samples, photometric = _integer(ds, "SamplesPerPixel", 1), str(ds.get("PhotometricInterpretation") or "").strip()
    kinds = {1: ("MONOCHROME1", "MONOCHROME2"), 3: ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")}
    if photometric not in kinds.get(samples, ()):
        raise UnsupportedImageError(
            f"PhotometricInterpretation {photometric or '(none)'} with SamplesPerPixel {samples} is not decoded"
        )
    allocated, stored = _integer(ds, "BitsAllocated"), _integer(ds, "BitsStored")
    if allocated not in (8, 16):
        raise UnsupportedImageError(f"BitsAllocated {allocated} is not decoded (8 and 16 are)")
    high_bit = _integer(ds, "HighBit", stored - 1)
    if not 1 <= stored <= allocated or not stored - 1 <= high_bit < allocated:
        raise PixelsError(f"BitsStored {stored} and HighBit {high_bit} do not fit BitsAllocated {allocated}")
    signed = _integer(ds, "PixelRepresentation", 0) == 1
    return ImagePixel(
        transfer_syntax, rows, columns, 1 if samples == 1 else 3, photometric, allocated, stored, high_bit, signed
    )


def _integer(ds: Dataset, keyword: str, default: int | None = None) -> int:
    value = ds.get(keyword)
    if value is None or value == "":
        if default is None:
            raise PixelsError(f"{keyword} is missing")
        return default
    try:
        return int(value)
    except (TypeError, ValueError) as error:
        raise PixelsError(f"{keyword} is not a number") from error
