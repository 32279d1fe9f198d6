"""Phantom instances and studies: radiographs as complete CR and DX data sets.

Enters: a `Radiograph`, or a body part and a seed. Leaves: pydicom data sets of artificial persons,
QualityControlSubject YES, the same for the same seed, UIDs included. It reads no clock, and only `write_study` writes.
"""

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import (
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
)

from pacs_agent.errors import PacsAgentError
from pacs_agent.phantom.encoding import TRANSFER_SYNTAXES, UNSIGNED_ONLY, encode
from pacs_agent.phantom.header import HEADER_STYLES, HeaderStyle, describe
from pacs_agent.phantom.lesion import Lesion
from pacs_agent.phantom.radiograph import Radiograph, radiograph, study_views

Kind = Literal["CR", "DX"]
Photometric = Literal["MONOCHROME1", "MONOCHROME2"]
FIRST_DAY = date(2025, 1, 6)
# A sigmoid shows the ends of the stored range as this share of black and of white, and is as wide as that asks for.
_SIGMOID_END = 0.01
_SIGMOID_WIDTH = 2 / math.log((1 - _SIGMOID_END) / _SIGMOID_END)

# Row and column direction of a right arm's picture (PS3.3 C.7.6.1.1.1); a left one's rows run the other way.
_ORIENTATION = {
    ("hand", "LATERAL"): ("P", "H"), ("wrist", "LATERAL"): ("P", "H"), ("finger", "LATERAL"): ("P", "H"),
    ("elbow", "LATERAL"): ("A", "F"), ("humerus", "LATERAL"): ("A", "F"), ("forearm", "LATERAL"): ("P", "F"),
}  # fmt: skip
_OPPOSITE = {"A": "P", "P": "A", "L": "R", "R": "L"}


@dataclass(frozen=True, slots=True)
class Place:
    """Where an instance belongs: the seed of its study, and its numbers in it."""

    seed: int
    series: int = 1
    instance: int = 1


def uid(*what: object) -> UID:
    """A UID that follows from *what* alone (PS3.5 B.2)."""
    text = "\x1f".join(str(part) for part in ("phantom", *what))
    return UID(f"2.25.{int.from_bytes(hashlib.sha256(text.encode()).digest()[:16], 'big')}")


def dataset(
    picture: Radiograph,
    *,
    kind: Kind = "CR",
    transfer_syntax_uid: str = ExplicitVRLittleEndian,
    bits_stored: int = 12,
    photometric: Photometric = "MONOCHROME2",
    signed: bool = False,
    style: HeaderStyle = HEADER_STYLES["standard"],
    place: Place = Place(0),
) -> FileDataset:
    """The radiograph as an instance that a modality could send.

    Args:
        picture: the radiograph.
        kind: CR Image or Digital X-Ray Image For Presentation.
        transfer_syntax_uid: one of `encoding.TRANSFER_SYNTAXES`.
        bits_stored: 8 to 16; 8 are allocated for 8, else 16.
        photometric: MONOCHROME1 stores bone dark and says so.
        signed: two's complement around zero.
        style: how the header tells the part and the side.
        place: study, series and instance.

    Raises:
        PacsAgentError: the transfer syntax is none of them, or does not carry signed pixels.
    """
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128)
    ds.SpecificCharacterSet = "ISO_IR 100"
    ds.SOPClassUID = ComputedRadiographyImageStorage if kind == "CR" else DigitalXRayImageStorageForPresentation
    ds.SOPInstanceUID = uid("instance", picture.body_part, place.seed, place.series, place.instance)
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    ds.Modality = kind
    _identify(ds, picture, place)
    describe(ds, style, picture.body_part, picture.laterality, picture.view)
    _acquisition(ds, picture)
    shown = _before_sigmoid(picture.picture) if style.window == "sigmoid" else picture.picture
    _pixels(ds, shown, bits_stored, photometric, signed)
    _presentation(ds, style.window, bits_stored, photometric, signed)
    encode(ds, transfer_syntax_uid)
    return ds


def study(
    body_part: str,
    *,
    seed: int,
    abnormal: bool,
    views: int = 2,
    header_style: str | None = None,
    kind: Kind | None = None,
    transfer_syntax_uid: str | None = None,
    laterality: str | None = None,
    longest_side: int = 1024,
    lesion: Lesion | None = None,
) -> list[FileDataset]:
    """One study of one side; what is not given follows from the seed.

    Args:
        body_part: one of the seven.
        seed: of all chance, UIDs and identity included.
        abnormal: whether its views show a lesion; all show the same kind, equally severe.
        views: how many instances.
        header_style: a name of `HEADER_STYLES`.
        kind: CR or DX.
        transfer_syntax_uid: one of `encoding.TRANSFER_SYNTAXES`, for all instances.
        laterality: "R" or "L".
        longest_side: of each picture, in pixels.
        lesion: what an abnormal study shows; None: follows from the seed.

    Raises:
        PacsAgentError: the body part, style or transfer syntax is unknown.
    """
    # A stream of its own: which header a picture gets must not follow from what it shows.
    rng = np.random.default_rng([seed, 4021, *body_part.encode()])
    chosen_style = str(rng.choice(tuple(HEADER_STYLES)))
    chosen_kind: Kind = "CR" if rng.random() < 0.5 else "DX"
    side = laterality or str(rng.choice(("R", "L")))
    if header_style is not None and header_style not in HEADER_STYLES:
        raise PacsAgentError(f"unknown header style {header_style!r}: one of {', '.join(HEADER_STYLES)}")
    style = HEADER_STYLES[header_style or chosen_style]
    kind_of_lesion, severity = (None, None) if lesion is None else (lesion.kind, lesion.severity)
    age_years = None
    instances = []
    for number, (view, view_seed) in enumerate(study_views(body_part, seed, views)):
        picture = radiograph(
            body_part,
            abnormal=abnormal,
            seed=view_seed,
            laterality=side,
            view=view,
            longest_side=longest_side,
            lesion=kind_of_lesion,
            severity=severity,
            age_years=age_years,
        )
        kind_of_lesion, severity, age_years = picture.lesion, picture.severity, picture.age_years
        bits, photometric = int(rng.choice((10, 12, 14, 16))), str(rng.choice(("MONOCHROME1", "MONOCHROME2")))
        syntax = transfer_syntax_uid or str(rng.choice(np.array(TRANSFER_SYNTAXES, dtype=object)))
        # With signed pixels a LUTDescriptor is ambiguous in Implicit VR: its first value would be read as signed.
        may_be_signed = (kind or chosen_kind) == "CR" and syntax not in UNSIGNED_ONLY and style.window != "table"
        instances.append(
            dataset(
                picture,
                kind=kind or chosen_kind,
                transfer_syntax_uid=syntax,
                bits_stored=bits,
                photometric="MONOCHROME1" if photometric == "MONOCHROME1" else "MONOCHROME2",
                signed=bool(rng.random() < 0.25) and may_be_signed,
                style=style,
                place=Place(seed, 1 if style.one_series else number + 1, number + 1),
            )
        )
    return instances


def write_study(instances: Sequence[FileDataset] | Iterable[FileDataset], folder: Path) -> list[Path]:
    """Write each instance as a Part 10 file into *folder*, made where it is missing; gives their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for number, ds in enumerate(instances, start=1):
        path = folder / f"{number:03d}.dcm"
        ds.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths


def _identify(ds: Dataset, picture: Radiograph, place: Place) -> None:
    """Patient, study, series and equipment: nobody, and told so."""
    part = picture.body_part
    chance = np.random.default_rng([place.seed, 77, *part.encode()])
    day = FIRST_DAY + timedelta(days=int(chance.integers(0, 360)))
    start_s = int(chance.integers(8 * 3600, 17 * 3600))
    ds.PatientName = f"PHANTOM^{part.upper()}"
    ds.PatientID = f"PHANTOM-{part.upper()}-{place.seed:06d}"
    ds.PatientBirthDate = f"{day.year - picture.age_years - 1}0101" if place.seed % 7 else ""
    ds.PatientSex = "O"
    ds.QualityControlSubject = "YES"
    ds.StudyInstanceUID = uid("study", part, place.seed)
    ds.SeriesInstanceUID = uid("series", part, place.seed, place.series)
    ds.StudyID, ds.SeriesNumber, ds.InstanceNumber = str(place.seed), place.series, place.instance
    ds.AccessionNumber = f"PH{place.seed:06d}"
    ds.ReferringPhysicianName = ""
    ds.StudyDate = ds.SeriesDate = ds.AcquisitionDate = ds.ContentDate = f"{day:%Y%m%d}"
    ds.StudyTime, ds.SeriesTime = _clock(start_s), _clock(start_s + 300 * place.series)
    ds.AcquisitionTime = ds.ContentTime = _clock(start_s + 300 * place.series + 60 * place.instance)
    ds.Manufacturer = "pacs-agent"
    ds.ManufacturerModelName = "digital phantom"
    ds.StationName = "PHANTOM"
    ds.DeviceSerialNumber = "0"
    ds.SoftwareVersions = "1"


def _clock(seconds: int) -> str:
    """Seconds of a day as a time (PS3.5 6.2, VR TM)."""
    return f"{seconds // 3600:02d}{seconds // 60 % 60:02d}{seconds % 60:02d}"


def _acquisition(ds: Dataset, picture: Radiograph) -> None:
    """Image, acquisition and detector."""
    row, column = _ORIENTATION.get((picture.body_part, picture.view), ("L", "F"))
    if picture.view != "LATERAL" and picture.body_part in ("hand", "wrist", "finger"):
        column = "H"  # fingertips up
    ds.PatientOrientation = [_OPPOSITE[row] if picture.laterality == "L" else row, column]
    ds.AcquisitionNumber = 1
    ds.KVP = "55"
    ds.BurnedInAnnotation = "YES"  # the lead letter is no identity, but it is there
    ds.LossyImageCompression = "00"
    spacing = [f"{picture.spacing_mm:.6f}"] * 2
    ds.ImagerPixelSpacing = spacing
    if ds.Modality == "CR":
        ds.ImageType = ["ORIGINAL", "PRIMARY"]
        ds.PixelSpacing = spacing
        ds.PlateType = "PHANTOM"
        return
    # PS3.3 A.26
    ds.ImageType = ["ORIGINAL", "PRIMARY", ""]
    ds.PresentationIntentType = "FOR PRESENTATION"
    ds.DetectorType = "DIRECT"
    ds.DetectorID = "PHANTOM"
    ds.PositionerType = ""
    ds.AcquisitionContextSequence = Items([])


def _pixels(ds: Dataset, picture: NDArray[np.float32], bits: int, photometric: str, signed: bool) -> None:
    """Quantise 0..1 to what is stored; the ends of the range stay free, as detectors leave them."""
    top = (1 << bits) - 1
    low, high = _range(bits)
    stored = np.rint(low + np.clip(picture, 0, 1) * (high - low)).astype(np.int64)
    if photometric == "MONOCHROME1":
        stored = top - stored
    if signed:
        stored -= 1 << (bits - 1)
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = photometric
    ds.Rows, ds.Columns = picture.shape
    ds.BitsAllocated = 8 if bits == 8 else 16
    ds.BitsStored, ds.HighBit, ds.PixelRepresentation = bits, bits - 1, int(signed)
    data = stored.astype(("<i" if signed else "<u") + str(ds.BitsAllocated // 8)).tobytes()
    ds.PixelData = data + b"\0" * (len(data) % 2)
    ds["PixelData"].VR = "OB" if bits == 8 else "OW"


def _before_sigmoid(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """What is stored so that the sigmoid shows *picture*, as modalities do that store the logarithm of exposure."""
    seen = np.clip(picture, _SIGMOID_END, 1 - _SIGMOID_END)
    return np.asarray(0.5 + _SIGMOID_WIDTH / 4 * np.log(seen / (1 - seen)), np.float32)


def _range(bits: int) -> tuple[float, float]:
    """The stored values of black and white: the ends of the range are not used."""
    top = (1 << bits) - 1
    return 0.04 * top, 0.9 * top


def _presentation(ds: Dataset, window: str, bits: int, photometric: str, signed: bool) -> None:
    """Modality LUT, VOI LUT and presentation LUT."""
    is_dx = ds.Modality == "DX"
    top = (1 << bits) - 1
    low, high = _range(bits)
    if photometric == "MONOCHROME1":
        low, high = top - high, top - low
    offset = 1 << (bits - 1) if signed else 0
    if is_dx:
        # PS3.3 C.8.11.3: the logarithm of exposure; white bone is less of it. In CR the elements do not occur.
        ds.PixelIntensityRelationship = "LOG"
        ds.PixelIntensityRelationshipSign = -1 if photometric == "MONOCHROME2" else 1
        ds.PresentationLUTShape = "IDENTITY" if photometric == "MONOCHROME2" else "INVERSE"
    if is_dx or signed:
        ds.RescaleIntercept, ds.RescaleSlope, ds.RescaleType = str(offset), "1", "US"
    if window == "none" and not is_dx:  # DX For Presentation must say (C.8.11.3)
        return
    if window == "table":
        ds.VOILUTSequence = Items([_table(bits if is_dx else 16, low, high)])
        return
    width = high - low
    ds.WindowCenter, ds.WindowWidth = f"{(low + high) / 2:.1f}", f"{width:.1f}"
    if window == "sigmoid":  # C.11.2.1.3.1
        ds.WindowWidth = f"{width * _SIGMOID_WIDTH:.1f}"
        ds.VOILUTFunction = "SIGMOID"


def _table(bits: int, low: float, high: float) -> Dataset:
    """A VOI LUT of *bits* from *low*..*high* to the full range, gently curved (PS3.3 C.11.2.1.1)."""
    first, count = int(low), min(int(high) - int(low) + 1, 65535)
    share = np.linspace(0, 1, count)
    curve = share + 0.06 * np.sin(2 * np.pi * share)
    item = Dataset()
    item.LUTDescriptor = [count, first, bits]
    item.LUTExplanation = "PHANTOM"
    item.LUTData = np.rint(np.clip(curve, 0, 1) * ((1 << bits) - 1)).astype("<u2").tobytes()
    item["LUTDescriptor"].VR = "US"
    item["LUTData"].VR = "OW"
    return item
