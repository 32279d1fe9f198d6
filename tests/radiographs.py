"""Small CR data sets for the tests, made header by header."""

from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from pacs_agent.phantom.radiograph import radiograph


def cr(*, seed: int = 0, side: int = 64, **elements: Any) -> FileDataset:
    """A CR hand of *side* × *side* noisy pixels, 12 bit; *elements* replace or add, None takes away."""
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    ds = FileDataset("", {}, file_meta=meta, preamble=b"\0" * 128, is_implicit_VR=False)
    ds.SOPClassUID = ComputedRadiographyImageStorage
    ds.SOPInstanceUID = generate_uid()
    ds.StudyInstanceUID = generate_uid()
    ds.SeriesInstanceUID = generate_uid()
    ds.PatientName, ds.PatientID, ds.PatientBirthDate, ds.PatientSex = "PHANTOM^TEST", "PHANTOM-1", "19700101", "O"
    ds.StudyDate, ds.StudyTime, ds.StudyID, ds.AccessionNumber = "20260105", "101500", "1", "ACC1"
    ds.ReferringPhysicianName = ""
    ds.Modality, ds.Manufacturer, ds.SeriesNumber, ds.InstanceNumber = "CR", "phantom", 1, seed + 1
    ds.BodyPartExamined, ds.ViewPosition, ds.Laterality = "HAND", "PA", "R"
    ds.Rows = ds.Columns = side
    ds.SamplesPerPixel, ds.PhotometricInterpretation = 1, "MONOCHROME2"
    ds.BitsAllocated, ds.BitsStored, ds.HighBit, ds.PixelRepresentation = 16, 12, 11, 0
    ramp = np.linspace(200, 3500, side * side).reshape(side, side)
    noise = np.random.default_rng(seed).normal(0, 80, (side, side))
    ds.PixelData = np.clip(ramp + noise, 0, 4095).astype("<u2").tobytes()
    for keyword, value in elements.items():
        if value is None:
            delattr(ds, keyword)
        else:
            setattr(ds, keyword, value)
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = ds.SOPClassUID, ds.SOPInstanceUID
    return ds


def hand(*, seed: int = 0, **elements: Any) -> FileDataset:
    """As `cr`, of a phantom's hand: the model that ships knows such pictures, and its guard lets them pass."""
    rows, columns, pixels = _hand_pixels(seed % 4)
    return cr(seed=seed, Rows=rows, Columns=columns, PixelData=pixels, **elements)


@cache
def _hand_pixels(seed: int) -> tuple[int, int, bytes]:
    picture = radiograph("hand", abnormal=False, seed=seed, view="PA", longest_side=256).picture
    return *picture.shape, np.rint(200 + picture * 3300).astype("<u2").tobytes()


def deep(path: Path) -> None:
    """A Part 10 file of a CR whose header has sequences 10,000 deep."""
    whole = BytesIO()
    cr().save_as(whole, enforce_file_format=True)
    at = whole.getvalue().index(b"\xe0\x7f\x10\x00OW")
    begin = b"\x40\x00\x75\x02SQ\0\0\xff\xff\xff\xff\xfe\xff\x00\xe0\xff\xff\xff\xff"
    end = b"\xfe\xff\x0d\xe0\0\0\0\0\xfe\xff\xdd\xe0\0\0\0\0"
    path.write_bytes(whole.getvalue()[:at] + begin * 10_000 + end * 10_000 + whole.getvalue()[at:])
