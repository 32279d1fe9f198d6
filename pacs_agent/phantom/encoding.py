"""Pixel data in the transfer syntaxes that modalities use.

Enters: a data set whose pixel data is native. Leaves: the same picture, lossless, in another transfer syntax. It never
changes what is shown.
"""

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    UID,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    RLELossless,
)

from pacs_agent.errors import PacsAgentError

TRANSFER_SYNTAXES: tuple[UID, ...] = (
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    RLELossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEG2000Lossless,
)
# Those whose code stream says nothing of the sign; decoders differ in what they make of it.
UNSIGNED_ONLY: tuple[UID, ...] = (JPEGLosslessSV1, JPEGLSLossless)

# Code lengths of a Huffman table for differences of radiographs, shortest for the most frequent category.
_LENGTHS = (2, 2, 3, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16)


def encode(ds: FileDataset, transfer_syntax_uid: str) -> None:
    """Put the native pixel data of *ds*, and its file meta, into another transfer syntax.

    Raises:
        PacsAgentError: the syntax is not one of `TRANSFER_SYNTAXES`, or does not carry signed pixels.
    """
    uid = UID(transfer_syntax_uid)
    if uid not in TRANSFER_SYNTAXES:
        raise PacsAgentError(f"phantoms are not written as {uid.name}")
    if uid in UNSIGNED_ONLY and ds.PixelRepresentation:
        raise PacsAgentError(f"phantoms are not written signed as {uid.name}")
    if uid == JPEGLosslessSV1:
        stream = jpeg_lossless(ds.pixel_array, ds.BitsStored)
        ds.PixelData = encapsulate([stream])
        ds["PixelData"].VR = "OB"  # PS3.5 A.4
        ds["PixelData"].is_undefined_length = True
    elif uid.is_encapsulated:
        ds.compress(uid, generate_instance_uid=False)
    ds.file_meta.TransferSyntaxUID = uid


def jpeg_lossless(plane: NDArray[np.integer], bits: int) -> bytes:
    """The plane as a JPEG lossless stream, process 14, first-order prediction (ITU-T T.81 annex H, predictor 1).

    Args:
        plane: (rows, columns), unsigned.
        bits: its precision, 2..16.
    """
    values = plane.astype(np.int32)
    # H.1.2.1: the first sample is predicted from mid range, the first column from above, all others from the left.
    predicted = np.empty_like(values)
    predicted[:, 1:] = values[:, :-1]
    predicted[1:, 0] = values[:-1, 0]
    predicted[0, 0] = 1 << (bits - 1)
    difference = ((values - predicted + 32768) & 0xFFFF).astype(np.int32).ravel() - 32768  # modulo 2**16
    category = np.ceil(np.log2(np.abs(difference) + 1.0)).astype(np.int32)  # the bits that its size takes
    by_frequency = np.argsort(-np.bincount(category, minlength=17), kind="stable")
    lengths = np.zeros(17, dtype=np.int64)
    codes = np.zeros(17, dtype=np.int64)
    code = 0
    for rank, length in enumerate(_LENGTHS):  # annex C: codes count up within a length and double between lengths
        code <<= length - (_LENGTHS[rank - 1] if rank else length)
        lengths[by_frequency[rank]], codes[by_frequency[rank]] = length, code
        code += 1
    # F.1.2.1: a negative difference is sent as its ones' complement; category 16 sends nothing more (H.1.2.2).
    extra = np.where(category == 16, 0, category)
    tail = np.where(difference < 0, difference + (1 << category) - 1, difference) & ((1 << extra) - 1)
    words = (codes[category] << extra) | tail
    scan: bytes = _packed(words, lengths[category] + extra).replace(b"\xff", b"\xff\x00")  # F.1.2.3
    rows, columns = (int(side) for side in plane.shape)
    counts = bytes(_LENGTHS.count(length) for length in range(1, 17))
    table = b"\x00" + counts + bytes(by_frequency.tolist())
    frame = bytes([bits]) + rows.to_bytes(2, "big") + columns.to_bytes(2, "big") + b"\x01\x01\x11\x00"
    return (
        b"\xff\xd8"
        + b"\xff\xc3" + (len(frame) + 2).to_bytes(2, "big") + frame
        + b"\xff\xc4" + (len(table) + 2).to_bytes(2, "big") + table
        + b"\xff\xda\x00\x08\x01\x01\x00\x01\x00\x00"
        + scan + b"\xff\xd9"
    )  # fmt: skip


def _packed(words: NDArray[np.int64], lengths: NDArray[np.int64]) -> bytes:
    """The low *lengths* bits of each word one after the other, the last byte filled with ones."""
    pieces = []
    held: NDArray[np.uint8] = np.zeros(0, dtype=np.uint8)
    for start in range(0, len(words), 1 << 17):  # a block at a time bounds the memory
        block, widths = words[start : start + (1 << 17)], lengths[start : start + (1 << 17)]
        ends = np.cumsum(widths)
        owner = np.repeat(np.arange(len(block)), widths)
        spread = (block[owner] >> (ends[owner] - 1 - np.arange(ends[-1]))) & 1
        bits = np.concatenate([held, spread.astype(np.uint8)])
        whole = len(bits) // 8 * 8
        pieces.append(np.packbits(bits[:whole]).tobytes())
        held = bits[whole:]
    if len(held):
        pieces.append(np.packbits(np.concatenate([held, np.ones(8 - len(held), dtype=np.uint8)])).tobytes())
    return b"".join(pieces)
