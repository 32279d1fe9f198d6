"""A picture as a viewer would show it, and the model's input made of it."""

import io
import subprocess
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydicom import dcmread, uid
from pydicom.data import get_testdata_file
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from torchvision.transforms.v2 import functional

from pacs_agent.analyse.pixels import InputSpec, model_input, read_dicom_picture, read_picture, reduce_picture
from pacs_agent.errors import PixelsError, UnsupportedImageError

MAX_PIXELS = 10_000_000
SAMPLES = Path(__file__).parents[4] / "shared/samples"
STRETCH = InputSpec(size=160, fit="stretch", source_longest_side=512, channels=3, mean=0.485, std=0.229)
LETTERBOX = InputSpec(size=320, fit="letterbox", source_longest_side=512, channels=3, mean=0.485, std=0.229)


def instance(array: np.ndarray, bits: int, photometric: str = "MONOCHROME2", **attributes: Any) -> Dataset:
    """A CR instance of *array* with further *attributes*."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = uid.ComputedRadiographyImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
    ds.Rows, ds.Columns = array.shape
    ds.SamplesPerPixel = 1
    ds.PhotometricInterpretation = photometric
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = array.dtype.itemsize * 8, bits, bits - 1
    ds.PixelRepresentation = int(array.dtype.kind == "i")
    ds.PixelData = array.tobytes()
    ds["PixelData"].VR = "OB" if array.dtype.itemsize == 1 else "OW"
    for keyword, value in attributes.items():
        setattr(ds, keyword, value)
    return ds


def ramp(bits: int = 12, signed: bool = False) -> np.ndarray:
    """Every value of *bits* in order, 64 a row (16 for 8 bits)."""
    low = -(1 << (bits - 1)) if signed else 0
    values = np.arange(low, low + (1 << bits))
    return values.astype(f"{'i' if signed else 'u'}{1 if bits == 8 else 2}").reshape(-1, 64 if bits > 8 else 16)


def shown(ds: Dataset) -> np.ndarray:
    return read_dicom_picture(ds, max_pixels=MAX_PIXELS)


def lut(first: int, outputs: np.ndarray, bits: int) -> Dataset:
    """An item of a LUT sequence."""
    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(outputs) % 65536, first, bits])
    item.add_new("LUTData", "US", [int(value) for value in outputs])
    return item


# -- the order of PS3.3: modality LUT, VOI LUT, one inversion


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID", None])
@pytest.mark.parametrize(("center", "width"), [(2048, 4096), (1000, 500), (3000.5, 1), (40, 400)])
def test_windows_follow_the_standards_formulas(function: str | None, center: float, width: float) -> None:
    """Each VOI function gives what the pseudo code of PS3.3 C.11.2.1.2 and C.11.2.1.3 gives."""
    array = ramp()
    ds = instance(array, 12, WindowCenter=center, WindowWidth=width)
    if function:
        ds.VOILUTFunction = function
    x = array.astype(float)
    if function == "SIGMOID":
        expected = 255 / (1 + np.exp(np.clip(-4 * (x - center) / width, -700, 700)))
    elif function == "LINEAR_EXACT":
        expected = np.select(
            [x <= center - width / 2, x > center + width / 2], [0, 255], (x - center) / width * 255 + 127.5
        )
    else:
        inside = ((x - (center - 0.5)) / max(width - 1, 1) + 0.5) * 255
        bounds = [x <= center - 0.5 - (width - 1) / 2, x > center - 0.5 + (width - 1) / 2]
        expected = np.select(bounds, [0, 255], inside)
    assert np.abs(shown(ds) - expected).max() <= 0.51


def test_the_first_of_several_windows_counts() -> None:
    """Of several windows the first is applied, as a viewer does on opening."""
    several = shown(instance(ramp(), 12, WindowCenter=[1000, 3000], WindowWidth=[500, 100]))
    assert np.array_equal(several, shown(instance(ramp(), 12, WindowCenter=1000, WindowWidth=500)))


def test_rescale_comes_before_the_window() -> None:
    """A window counts in rescaled values, a negative slope turns the picture, a slope of 0 is passed over."""
    plain = shown(instance(ramp(), 12, WindowCenter=1000, WindowWidth=500))
    rescaled = instance(ramp(), 12, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=1899.5, WindowWidth=999)
    assert np.abs(shown(rescaled).astype(int) - plain).max() <= 1
    turned = instance(ramp(), 12, RescaleSlope=-1, RescaleIntercept=4095)
    assert np.array_equal(shown(turned), shown(instance(ramp(), 12))[::-1, ::-1])
    assert np.array_equal(shown(instance(ramp(), 12, RescaleSlope=0, RescaleIntercept=5)), shown(instance(ramp(), 12)))


def test_a_modality_lut_comes_before_the_window() -> None:
    """A modality LUT's outputs are windowed; it stands before a rescale (PS3.3 C.11.1)."""
    outputs = 4095 - np.arange(4096)
    ds = instance(ramp(), 12, ModalityLUTSequence=[lut(0, outputs, 12)], WindowCenter=1000, WindowWidth=500)
    ds.RescaleSlope, ds.RescaleIntercept = 7, 7
    expected = shown(instance(4095 - ramp(), 12, WindowCenter=1000, WindowWidth=500))
    assert np.array_equal(shown(ds), expected)


@pytest.mark.parametrize("packing", ["US", "OW", "bytes"])
def test_a_voi_lut_comes_before_a_window(packing: str) -> None:
    """The first VOI LUT is applied and not the window, however its data is packed; outside it the ends hold."""
    outputs = (np.sqrt(np.arange(1000) / 999) * 255).astype(int)
    item = lut(100, outputs, 8)
    if packing != "US":
        item["LUTData"].VR = "OW"
        item["LUTData"].value = outputs.astype("<u2" if packing == "OW" else "u1").tobytes()
    ds = instance(ramp(), 12, VOILUTSequence=[item, lut(0, np.zeros(16), 8)], WindowCenter=3000, WindowWidth=10)
    expected = outputs[np.clip(ramp().astype(int) - 100, 0, 999)]
    assert np.array_equal(shown(ds), expected)


def test_a_voi_lut_over_signed_values() -> None:
    """A LUT's first value is signed where the pixels are, also when it was written as unsigned."""
    array = ramp(12, signed=True)
    for first in (-500, 65536 - 500):
        ds = instance(array, 12, VOILUTSequence=[lut(first, np.arange(1024), 10)])
        expected = np.clip(array.astype(int) + 500, 0, 1023) / 1023 * 255
        assert np.abs(shown(ds) - expected).max() <= 0.51


def test_a_voi_lut_with_a_wrong_descriptor_still_shows_white() -> None:
    """A LUT of 12-bit data that claims 16 bits would show a black picture: its maximum is white instead."""
    ds = instance(ramp(), 12, VOILUTSequence=[lut(0, np.arange(4096), 16)])
    assert shown(ds).max() == 255


@pytest.mark.parametrize("broken", ["descriptor", "short", "empty", "no data"])
def test_a_broken_voi_lut_gives_way_to_the_window(broken: str) -> None:
    """A VOI LUT that cannot be used does not hinder the window."""
    item = lut(0, np.arange(4096), 12)
    if broken == "descriptor":
        item.LUTDescriptor = [4096, 0, 99]
    elif broken == "short":
        item.LUTDescriptor = [5000, 0, 12]
    elif broken == "no data":
        del item.LUTData
    ds = instance(ramp(), 12, WindowCenter=1000, WindowWidth=500)
    ds.VOILUTSequence = [] if broken == "empty" else [item]
    assert np.array_equal(shown(ds), shown(instance(ramp(), 12, WindowCenter=1000, WindowWidth=500)))


@pytest.mark.parametrize(
    ("photometric", "shape", "inverted"),
    [
        ("MONOCHROME2", None, False),
        ("MONOCHROME1", None, True),
        ("MONOCHROME2", "IDENTITY", False),
        ("MONOCHROME1", "INVERSE", True),
        ("MONOCHROME2", "INVERSE", True),
        ("MONOCHROME1", "IDENTITY", False),
        ("MONOCHROME1", "LIN OD", True),
        ("MONOCHROME1", "", True),
    ],
)
@pytest.mark.parametrize("window", [{}, {"WindowCenter": 1000, "WindowWidth": 500}], ids=["range", "window"])
def test_inversion_happens_exactly_once(
    photometric: str, shape: str | None, inverted: bool, window: dict[str, int]
) -> None:
    """PresentationLUTShape decides where it is present, else MONOCHROME1; never both."""
    ds = instance(ramp(), 12, photometric, **window)
    if shape is not None:
        ds.PresentationLUTShape = shape
    upright = shown(instance(ramp(), 12, **window))
    assert np.array_equal(shown(ds), 255 - upright if inverted else upright)


# -- no window, or none that shows anything


def test_the_full_range_is_robust() -> None:
    """Without a window real pixels fill the greys, and a few dead ones do not flatten the rest."""
    array = np.random.default_rng(5).integers(1000, 1200, (100, 100)).astype(np.uint16)
    array[0, :5] = 4095
    array[1, :5] = 0
    picture = shown(instance(array, 12))
    assert np.ptp(np.percentile(picture, [2, 98])) > 230
    assert picture[0, 0] == 255
    assert picture[1, 0] == 0


def test_unused_bits_have_no_part_in_the_range() -> None:
    """The range is that of the pixels: the same 12-bit picture in 12, 14 or 16 stored bits shows the same."""
    pictures = [shown(instance(ramp(), bits)) for bits in (12, 14, 16)]
    assert np.array_equal(pictures[0], pictures[1])
    assert np.array_equal(pictures[0], pictures[2])


def test_signed_pixels_show_as_their_unsigned_twins() -> None:
    """A sign moves values, not greys."""
    for bits in (10, 12, 14, 16):
        assert np.array_equal(shown(instance(ramp(bits, signed=True), bits)), shown(instance(ramp(bits), bits)))


@pytest.mark.parametrize(
    ("center", "width"),
    [
        (2048, 0),
        (2048, -5),
        ("nan", 100),
        (2048, "nan"),
        (2048, "inf"),
        (90000, 100),
        (-90000, 10),
        ("", ""),
        (5000, 1),
    ],
)
def test_absurd_windows_give_way_to_the_full_range(center: Any, width: Any) -> None:
    """A window that is no window, or shows a single grey, is passed over."""
    ds = instance(ramp(), 12)
    # Written as a file has them: pydicom's own checks would not let some of these be assigned.
    ds.add_new("WindowCenter", "DS", "1")
    ds.add_new("WindowWidth", "DS", "1")
    ds._dict[ds["WindowCenter"].tag] = _raw(ds["WindowCenter"].tag, str(center))
    ds._dict[ds["WindowWidth"].tag] = _raw(ds["WindowWidth"].tag, str(width))
    assert np.array_equal(shown(ds), shown(instance(ramp(), 12)))


def _raw(tag: Any, value: str) -> Any:
    encoded = value.encode()
    return RawDataElement(tag, "DS", len(encoded), encoded, 0, False, True)


def test_a_uniform_picture_is_no_picture() -> None:
    """All pixels alike, or nothing but padding, is of a kind that is not analysed."""
    with pytest.raises(UnsupportedImageError, match="uniform"):
        shown(instance(np.full((8, 8), 700, np.uint16), 12))
    ds = instance(np.full((8, 8), 700, np.uint16), 12)
    ds.add_new("PixelPaddingValue", "US", 700)
    with pytest.raises(UnsupportedImageError, match="padding"):
        shown(ds)


# -- padding and shutters


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_padding_is_black_and_not_counted(photometric: str) -> None:
    """Padding is black in either photometric interpretation and does not stretch the range (PS3.3 C.7.5.1.1.2)."""
    array = np.random.default_rng(5).integers(1000, 1200, (100, 100)).astype(np.uint16)
    array[:30], array[-30:] = 0, 4000
    for limit in (None, 4095):
        ds = instance(array, 12, photometric)
        ds.add_new("PixelPaddingValue", "US", 0 if limit is None else 4000)
        if limit:
            ds.add_new("PixelPaddingRangeLimit", "US", limit)
        picture = shown(ds)
        padded = array == 0 if limit is None else array >= 4000
        assert not picture[padded].any()
    both = instance(np.where(array == 4000, 0, array).astype(np.uint16), 12, photometric)
    both.add_new("PixelPaddingValue", "US", 0)
    picture = shown(both)
    assert not picture[:30].any()
    assert not picture[-30:].any()
    assert picture[30:70].min() < 5
    assert picture[30:70].max() > 250


def test_signed_padding_written_either_way() -> None:
    """A padding value of signed pixels is understood as SS and as the US of the same bits."""
    array = np.random.default_rng(5).integers(-100, 100, (64, 64)).astype(np.int16)
    array[:20] = -2000
    pictures = []
    for vr, value in (("SS", -2000), ("US", 65536 - 2000)):
        ds = instance(array, 16)
        ds.add_new("PixelPaddingValue", vr, value)
        pictures.append(shown(ds))
    assert np.array_equal(*pictures)
    assert pictures[0][20:].min() < 5
    assert not pictures[0][:20].any()


def test_shutters_cover() -> None:
    """What lies outside a rectangular, circular or polygonal shutter is black and not counted (PS3.3 C.7.6.11)."""
    array = np.full((100, 120), 4000, np.uint16)
    array[20:80, 30:90] = np.random.default_rng(5).integers(1000, 1200, (60, 60))
    rows, columns = np.mgrid[1:101, 1:121]
    rectangle = (rows > 20) & (rows <= 80) & (columns > 30) & (columns <= 90)
    circle = (rows - 50) ** 2 + (columns - 60) ** 2 <= 25**2
    for shape, open_ in (("RECTANGULAR", rectangle), ("CIRCULAR", circle), ("POLYGONAL", rectangle)):
        ds = instance(array, 12, "MONOCHROME1", ShutterShape=shape)
        ds.ShutterLeftVerticalEdge, ds.ShutterRightVerticalEdge = 31, 90
        ds.ShutterUpperHorizontalEdge, ds.ShutterLowerHorizontalEdge = 21, 80
        ds.CenterOfCircularShutter, ds.RadiusOfCircularShutter = [50, 60], 25
        ds.VerticesOfThePolygonalShutter = [21, 31, 21, 90, 80, 90, 80, 31]
        picture = shown(ds)
        assert not picture[~open_].any(), shape
        assert picture[open_].min() < 5, shape
        assert picture[open_].max() > 250, shape
        ds.ShutterShape = ["CIRCULAR", "RECTANGULAR"]
        assert not shown(ds)[~(circle & rectangle)].any()


@pytest.mark.parametrize(
    "attributes",
    [
        {"ShutterShape": "RECTANGULAR"},
        {"ShutterShape": "BITMAP"},
        {"ShutterShape": "CIRCULAR", "CenterOfCircularShutter": [9000, 9000], "RadiusOfCircularShutter": 3},
        {"ShutterShape": "POLYGONAL", "VerticesOfThePolygonalShutter": [1, 1]},
    ],
)
def test_shutters_that_make_no_sense_cover_nothing(attributes: dict[str, Any]) -> None:
    """A shutter without its edges, or one that covers the whole picture, is passed over."""
    assert np.array_equal(shown(instance(ramp(), 12, **attributes)), shown(instance(ramp(), 12)))


def test_a_shutter_lies_right_over_a_reduced_decode() -> None:
    """A shutter counts in the rows and columns of the whole picture, also when that was decoded at a reduced size."""
    rows, columns = np.mgrid[:512, :512]
    array = ((np.sin(columns / 40) * np.cos(rows / 40) + 1) * 1000 + 1000).astype(np.uint16)
    ds = instance(array, 12, ShutterShape="RECTANGULAR", WindowCenter=2000, WindowWidth=4000)
    ds.ShutterLeftVerticalEdge, ds.ShutterRightVerticalEdge = 65, 448
    ds.ShutterUpperHorizontalEdge, ds.ShutterLowerHorizontalEdge = 129, 512
    ds.compress(uid.JPEG2000Lossless)
    picture = read_dicom_picture(ds, max_pixels=MAX_PIXELS, longest_side=128)
    assert picture.shape == (128, 128)
    open_ = np.zeros((128, 128), bool)
    open_[32:, 16:112] = True
    assert np.array_equal(picture > 0, open_)


# -- an independent viewer


@pytest.mark.dcmtk
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("function", ["LINEAR", "SIGMOID"])
def test_dcmtk_shows_the_same(tmp_path: Path, photometric: str, signed: bool, function: str) -> None:
    """DCMTK's renderer shows the same picture with the same window, within rounding."""
    if not Path("/usr/bin/dcm2pnm").exists():
        pytest.skip("DCMTK's dcm2pnm is not installed")
    center = 900 - (2048 if signed else 0)
    ds = instance(ramp(12, signed), 12, photometric, WindowCenter=center, WindowWidth=1300, VOILUTFunction=function)
    ds.Modality = "CR"
    ds.save_as(tmp_path / "instance.dcm", enforce_file_format=True)
    sigmoid = ["+Wfs"] if function == "SIGMOID" else ["+Wfl"]
    command = ["/usr/bin/dcm2pnm", "+opb", "+Wi", "1", *sigmoid, "instance.dcm", "picture.pgm"]
    subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    theirs = np.asarray(Image.open(tmp_path / "picture.pgm")).astype(int)
    ours = read_picture(tmp_path / "instance.dcm", max_pixels=MAX_PIXELS)
    assert np.abs(ours - theirs).max() <= 1


@pytest.mark.dcmtk
@pytest.mark.parametrize("name", ["RG3_UNCR.dcm", "RG1_UNCI.dcm", "693_UNCR.dcm"])
def test_dcmtk_shows_real_files_the_same(tmp_path: Path, name: str) -> None:
    """DCMTK shows real CR and CT files as this does."""
    if not Path("/usr/bin/dcm2pnm").exists():
        pytest.skip("DCMTK's dcm2pnm is not installed")
    path = get_testdata_file(name, download=False)
    subprocess.run(["/usr/bin/dcm2pnm", "+opb", "+Wi", "1", path, tmp_path / "p.pgm"], check=True, capture_output=True)
    theirs = np.asarray(Image.open(tmp_path / "p.pgm")).astype(int)
    ours = read_picture(Path(path), max_pixels=MAX_PIXELS).astype(int)
    assert np.abs(ours - theirs).max() <= 1


def test_bones_are_bright_in_every_real_radiograph() -> None:
    """In real files of either photometric interpretation the bone is brighter than the air beside it."""
    files = SAMPLES / "dicom"
    if not files.exists():
        pytest.skip("the real samples are not here")
    hand = reduce_picture(read_picture(files / "HAND_kodak_cr500_J2KR.dcm", max_pixels=MAX_PIXELS), 400)
    assert hand[300:330, 120:200].mean() > hand[300:330, 280:310].mean() + 60
    for name in ("EXTREMITY_fuji_RG3_J2KR.dcm", "EXTREMITY_fuji_RG3_J2KI.dcm"):
        leg = reduce_picture(read_picture(files / name, max_pixels=MAX_PIXELS), 400)
        assert leg[320:360, 180:215].mean() > leg[100:300, 110:125].mean() + 100


# -- PNG and JPEG


def saved(tmp_path: Path, image: Image.Image, name: str = "picture.png", **options: Any) -> Path:
    image.save(tmp_path / name, **options)
    return tmp_path / name


def grey_picture(shape: tuple[int, int] = (90, 70)) -> np.ndarray:
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    return ((np.sin(columns / 9) * np.cos(rows / 7) + 1) * 110 + 20).astype(np.uint8)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P"])
def test_eight_bit_pngs_are_shown_as_they_are(tmp_path: Path, mode: str) -> None:
    """Grey stays the same grey in every 8-bit PNG."""
    image = Image.fromarray(grey_picture())
    converted = image.convert("P", palette=Image.Palette.ADAPTIVE, colors=256) if mode == "P" else image.convert(mode)
    assert converted.mode == mode
    path = saved(tmp_path, converted)
    assert np.array_equal(read_picture(path, max_pixels=MAX_PIXELS), grey_picture())


def test_transparency_is_black(tmp_path: Path) -> None:
    """Transparent pixels show black, not what lies hidden in them."""
    alpha = np.full((90, 70), 255, np.uint8)
    alpha[:20] = 0
    image = Image.merge("LA", [Image.fromarray(grey_picture()), Image.fromarray(alpha)])
    picture = read_picture(saved(tmp_path, image), max_pixels=MAX_PIXELS)
    assert not picture[:20].any()
    assert np.array_equal(picture[20:], grey_picture()[20:])


def test_jpeg_is_read_upright(tmp_path: Path) -> None:
    """A JPEG is near its original, and its orientation tag is obeyed as a viewer does."""
    picture = read_picture(saved(tmp_path, Image.fromarray(grey_picture()), "p.jpg", quality=95), max_pixels=MAX_PIXELS)
    assert np.abs(picture.astype(int) - grey_picture()).max() < 12
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = saved(tmp_path, Image.fromarray(grey_picture()), "turned.jpg", exif=exif)
    assert read_picture(turned, max_pixels=MAX_PIXELS).shape == (70, 90)


@pytest.mark.parametrize(
    "content", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0", b"%PDF-1.4", b"\0" * 128 + b"DICM"]
)
def test_files_that_are_no_pictures(tmp_path: Path, content: bytes) -> None:
    """A file that is no picture, or the mere beginning of one, is refused in one line."""
    (tmp_path / "file").write_bytes(content)
    with pytest.raises(PixelsError) as caught:
        read_picture(tmp_path / "file", max_pixels=MAX_PIXELS)
    assert "\n" not in str(caught.value)
    with pytest.raises(PixelsError):
        read_picture(tmp_path / "missing", max_pixels=MAX_PIXELS)
    with pytest.raises(PixelsError):
        read_picture(tmp_path, max_pixels=MAX_PIXELS)


def test_rasters_that_are_cut_large_or_uniform(tmp_path: Path) -> None:
    """Cut PNG and JPEG files, those beyond the bound and uniform ones are refused."""
    for name in ("p.png", "p.jpg"):
        path = saved(tmp_path, Image.fromarray(grey_picture()), name)
        with pytest.raises(PixelsError, match="more than the 6000 pixels"):
            read_picture(path, max_pixels=6000)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
        with pytest.raises(PixelsError):
            read_picture(path, max_pixels=MAX_PIXELS)
    with pytest.raises(UnsupportedImageError, match="uniform"):
        read_picture(saved(tmp_path, Image.new("L", (9, 9), 80)), max_pixels=MAX_PIXELS)


def test_a_png_bomb_is_refused(tmp_path: Path) -> None:
    """A PNG of 60,000 × 60,000 is refused by its header."""
    path = saved(tmp_path, Image.fromarray(grey_picture()))
    data = bytearray(path.read_bytes())
    data[16:24] = (60000).to_bytes(4, "big") * 2
    data[29:33] = zlib.crc32(bytes(data[12:29])).to_bytes(4, "big")
    path.write_bytes(bytes(data))
    with pytest.raises(PixelsError):
        read_picture(path, max_pixels=MAX_PIXELS)


# -- parity


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("spec", [STRETCH, LETTERBOX], ids=["stretch", "letterbox"])
def test_the_same_picture_as_png_and_as_dicom(tmp_path: Path, bits: int, spec: InputSpec) -> None:
    """The same pixels as PNG and as MONOCHROME2 or 1 without a window give the same input."""
    grey = grey_picture((900, 700))
    array = grey if bits == 8 else grey.astype(np.uint16) * 200 + 77
    picture = read_picture(saved(tmp_path, Image.fromarray(array)), max_pixels=MAX_PIXELS)
    top = np.iinfo(array.dtype).max
    for ds in (instance(array, bits), instance(top - array, bits, "MONOCHROME1")):
        assert np.array_equal(shown(ds), picture)
        assert np.array_equal(model_input(shown(ds), spec), model_input(picture, spec))


@pytest.mark.parametrize("name", ["0001_1297860395_01_WRI-L1_M014.png", "fracatlas_normal_IMG0004307.jpg"])
def test_a_real_radiograph_as_png_and_as_dicom(tmp_path: Path, name: str) -> None:
    """A real radiograph gives the same input from its PNG or JPEG as from an instance that holds its pixels."""
    path = SAMPLES / "radiographs" / name
    if not path.exists():
        pytest.skip("the real samples are not here")
    array = np.asarray(Image.open(path) if name.endswith(".png") else Image.open(path).convert("L"))
    picture = read_picture(path, max_pixels=MAX_PIXELS)
    assert np.array_equal(shown(instance(array, array.dtype.itemsize * 8)), picture)
    assert picture.std() > 20


# -- the model's input


def test_reduction_keeps_proportions_and_never_enlarges() -> None:
    """The longest side is what was asked for, a small picture stays as it is, a sliver keeps a pixel."""
    assert reduce_picture(grey_picture((2500, 2048)), 512).shape == (512, 419)
    assert reduce_picture(grey_picture((300, 400)), 512).shape == (300, 400)
    assert reduce_picture(grey_picture((5000, 2)), 512).shape == (512, 1)
    halved = reduce_picture(grey_picture((400, 300)), 200).astype(float)
    assert np.abs(halved - grey_picture((400, 300)).reshape(200, 2, 150, 2).mean((1, 3))).max() <= 1


@pytest.mark.parametrize("shape", [(512, 419), (300, 512), (120, 90), (160, 160)])
def test_stretch_is_torchvisions_antialiased_bilinear(shape: tuple[int, int]) -> None:
    """The stretched input is what torchvision makes of the tensor, within rounding."""
    picture = np.random.default_rng(2).integers(0, 256, shape).astype(np.uint8)
    tensor = torch.from_numpy(picture)[None].float()
    expected = functional.resize(tensor, [160, 160], antialias=True)[0].numpy()
    got = model_input(picture, STRETCH)
    assert got.dtype == np.uint8
    assert np.abs(got - expected).max() <= 1.01


def test_letterbox_keeps_proportions_between_black_bars() -> None:
    """The longer side fills the square, the bars are black and on both sides."""
    square = model_input(np.full((400, 200), 200, np.uint8), LETTERBOX)
    assert square.shape == (320, 320)
    assert (square[:, 80:240] == 200).all()
    assert not square[:, :80].any()
    assert not square[:, 240:].any()
    assert (model_input(np.full((64, 64), 9, np.uint8), LETTERBOX) == 9).all()


@pytest.mark.parametrize("spec", [STRETCH, LETTERBOX], ids=["stretch", "letterbox"])
@settings(max_examples=60)
@given(rows=st.integers(1, 700), columns=st.integers(1, 700))
def test_any_picture_fits(spec: InputSpec, rows: int, columns: int) -> None:
    """A picture of any size becomes the square of the bundle."""
    picture = model_input(np.zeros((rows, columns), np.uint8), spec)
    assert picture.shape == (spec.size, spec.size)
    assert picture.dtype == np.uint8


# -- whole files that are broken


def test_a_file_cut_anywhere_gives_one_line(tmp_path: Path) -> None:
    """A Part 10 file cut anywhere is refused in one line: never half a picture."""
    buffer = io.BytesIO()
    instance(ramp(), 12, WindowCenter=2048, WindowWidth=4096).save_as(buffer, enforce_file_format=True)
    whole = buffer.getvalue()
    for length in [*range(0, 600, 7), len(whole) // 2, len(whole) - 1]:
        (tmp_path / "cut.dcm").write_bytes(whole[:length])
        with pytest.raises(PixelsError) as caught:
            read_picture(tmp_path / "cut.dcm", max_pixels=MAX_PIXELS)
        assert "\n" not in str(caught.value)


@settings(max_examples=150)
@given(changes=st.lists(st.tuples(st.integers(128, 900), st.integers(0, 255)), min_size=1, max_size=12))
def test_a_file_with_broken_bytes_gives_a_picture_or_one_line(
    changes: list[tuple[int, int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Any bytes of the header overwritten: a picture or one line, nothing else."""
    buffer = io.BytesIO()
    ds = instance(ramp(), 12, WindowCenter=2048, WindowWidth=4096, ShutterShape="CIRCULAR")
    ds.CenterOfCircularShutter, ds.RadiusOfCircularShutter = [20, 20], 30
    ds.VOILUTSequence = [lut(0, np.arange(64), 10)]
    ds.save_as(buffer, enforce_file_format=True)
    data = bytearray(buffer.getvalue())
    for at, value in changes:
        data[at] = value
    path = tmp_path_factory.getbasetemp() / "broken.dcm"
    path.write_bytes(bytes(data))
    try:
        picture = read_picture(path, max_pixels=MAX_PIXELS)
    except PixelsError as error:
        message = str(error)
        picture = None
    assert "\n" not in message if picture is None else picture.dtype == np.uint8


def test_a_real_file_is_left_as_it_was() -> None:
    """Reading changes nothing in the data set."""
    ds = dcmread(get_testdata_file("RG3_J2KI.dcm", download=False))
    before = (ds.PhotometricInterpretation, ds.BitsStored, len(ds.PixelData), ds.file_meta.TransferSyntaxUID, len(ds))
    shown(ds)
    after = (ds.PhotometricInterpretation, ds.BitsStored, len(ds.PixelData), ds.file_meta.TransferSyntaxUID, len(ds))
    assert before == after
