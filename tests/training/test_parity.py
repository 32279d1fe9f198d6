"""The daemon and the trainer see the same picture: as PNG in the trainer's cache, as DICOM in the analysis process."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Raster
from radiographs import cr

from pacs_agent.analyse.bundle import Bundle
from pacs_agent.analyse.ensemble import normalised
from pacs_agent.analyse.pixels import InputSpec, model_input, read_picture
from pacs_agent.prediction import predict_files
from training.cache import open_cache
from training.evaluate import predict_images
from training.export import seed_bundle
from training.mura import Image

SHAPE = (700, 460)  # larger than the training pictures: the reduction is part of the way


def grey(bits: int) -> np.ndarray:
    rows, columns = np.mgrid[: SHAPE[0], : SHAPE[1]]
    noise = np.random.default_rng(1).normal(0, 9, SHAPE)
    eight = np.clip(rows * 0.2 + columns * 0.15 + noise, 0, 255).astype(np.uint8)
    if bits == 8:
        return eight
    return eight.astype(np.uint16) * 200 + np.random.default_rng(2).integers(0, 200, SHAPE, dtype=np.uint16)


def as_dicom(path: Path, pixels: np.ndarray, **elements: Any) -> Path:
    bits = pixels.dtype.itemsize * 8
    stored = {"BitsAllocated": bits, "BitsStored": bits, "HighBit": bits - 1, "PixelData": pixels.tobytes()}
    size = {"Rows": pixels.shape[0], "Columns": pixels.shape[1], "QualityControlSubject": "YES"}
    cr(**stored, **size, **elements).save_as(path, enforce_file_format=True)
    return path


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return seed_bundle(tmp_path_factory.mktemp("bundle") / "seeded", 3)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("fit", ["stretch", "letterbox"])
def test_the_same_tensor(tmp_path: Path, bits: int, fit: Any) -> None:
    """A PNG in the trainer's cache and a DICOM file (MONOCHROME2 and 1) give the same tensor, to the last bit."""
    spec = InputSpec(160, fit, 512, 3, 0.485, 0.229)
    pixels = grey(bits)
    Raster.fromarray(pixels).save(tmp_path / "image1.png")
    image = Image(tmp_path / "image1.png", "hand", "patient00001", "hand/patient00001/study1", 0)
    cached = open_cache(tmp_path / "cache", [image], spec, workers=0).pictures
    assert cached.std() > 20
    inverted = np.iinfo(pixels.dtype).max - pixels
    for path in (
        as_dicom(tmp_path / "2.dcm", pixels),
        as_dicom(tmp_path / "1.dcm", inverted, PhotometricInterpretation="MONOCHROME1"),
    ):
        of_dicom = model_input(read_picture(path, max_pixels=10**6), spec)
        cpu = torch.device("cpu")
        assert torch.equal(normalised(np.array(cached), spec, cpu), normalised(np.stack([of_dicom]), spec, cpu))


@pytest.mark.parametrize("bits", [8, 16])
def test_the_same_probability(tmp_path: Path, bundle: Bundle, bits: int) -> None:
    """`evaluate` of the PNG and the analysis process for PNG, MONOCHROME2 and MONOCHROME1 agree."""
    pixels = grey(bits)
    png = tmp_path / "image1.png"
    Raster.fromarray(pixels).save(png)
    inverted = np.iinfo(pixels.dtype).max - pixels
    files = [
        png,
        as_dicom(tmp_path / "2.dcm", pixels),
        as_dicom(tmp_path / "1.dcm", inverted, PhotometricInterpretation="MONOCHROME1"),
    ]
    image = Image(png, "shoulder", "patient00001", "shoulder/patient00001/study1", 0)
    evaluated = predict_images(bundle, [image], device="cpu").probabilities[0]
    analysed = predict_files(files, body_part="shoulder", bundle_name=str(bundle.path))
    assert [prediction.reason for prediction in analysed] == [analysed[0].reason] * 3
    for prediction in analysed:
        assert prediction.abnormal_probability == pytest.approx(evaluated, abs=1e-6)
    # It tells pictures apart at all: another picture has another probability.
    Raster.fromarray(pixels[::-1, ::-1]).save(png)
    assert predict_images(bundle, [image], device="cpu").probabilities[0] != pytest.approx(evaluated, abs=1e-6)
