"""Every transfer syntax that is decoded against independent encoders and decoders, and every way pixel data can lie."""

import io
import struct
import subprocess
import time
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import openjpeg.utils
import pytest
from pydicom import dcmread, uid
from pydicom.data import get_testdata_file
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames

from pacs_agent.analyse.codecs import decode
from pacs_agent.analyse.codestream import read_jpeg_2000_header, read_jpeg_header
from pacs_agent.analyse.imagepixel import DECODED, read_image_pixel
from pacs_agent.analyse.pixels import read_dicom_picture, read_picture, reduce_picture
from pacs_agent.errors import PixelsError, UnsupportedImageError

MAX_PIXELS = 10_000_000
HAND = Path(__file__).parents[4] / "shared/samples/dicom/HAND_kodak_cr500_J2KR.dcm"
DEPTHS = [(bits, signed) for bits in (8, 10, 12, 14, 16) for signed in (False, True)]


def radiograph(bits: int, signed: bool = False, shape: tuple[int, int] = (96, 80)) -> np.ndarray:
    """A picture with all values from lowest to highest of *bits*, smooth shapes and some noise."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    noise = np.random.default_rng(7).normal(0, 0.01, shape)
    picture = np.clip((np.sin(columns / 9) * np.cos(rows / 7) + 1) / 2 + noise, 0, 1) * (2**bits - 1)
    picture -= 2 ** (bits - 1) if signed else 0
    return picture.round().astype(f"{'i' if signed else 'u'}{1 if bits == 8 else 2}")


def instance(array: np.ndarray, bits: int, photometric: str = "MONOCHROME2") -> Dataset:
    """A CR instance of *array*, uncompressed."""
    ds = Dataset()
    ds.file_meta = FileMetaDataset()
    ds.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    ds.SOPClassUID = ds.file_meta.MediaStorageSOPClassUID = uid.ComputedRadiographyImageStorage
    ds.SOPInstanceUID = ds.file_meta.MediaStorageSOPInstanceUID = "2.25.1"
    ds.Modality = "CR"
    ds.Rows, ds.Columns = array.shape[:2]
    ds.SamplesPerPixel = 3 if array.ndim == 3 else 1
    if array.ndim == 3:
        ds.PlanarConfiguration = 0
    ds.PhotometricInterpretation = photometric
    ds.BitsAllocated, ds.BitsStored, ds.HighBit = array.dtype.itemsize * 8, bits, bits - 1
    ds.PixelRepresentation = int(array.dtype.kind == "i")
    ds.PixelData = array.tobytes()
    ds["PixelData"].VR = "OB" if array.dtype.itemsize == 1 else "OW"
    return ds


def compressed(ds: Dataset, syntax: str, frame: bytes) -> Dataset:
    """*ds* with *frame* as its pixel data."""
    ds.file_meta.TransferSyntaxUID = uid.UID(syntax)
    ds.PixelData = encapsulate([frame])
    ds["PixelData"].VR = "OB"
    ds["PixelData"].is_undefined_length = True
    return ds


def stored_values(ds: Dataset, longest_side: int | None = None) -> np.ndarray:
    """What the module under test decodes, with its sign."""
    samples = decode(ds, read_image_pixel(ds, MAX_PIXELS), longest_side)
    values = samples.codes.astype(np.int64)
    return np.where(samples.signed & (values >> (samples.bits - 1) == 1), values - (1 << samples.bits), values)


def run_dcmtk(tool: str, *arguments: Any) -> None:
    """Call a tool of DCMTK, skip where it is not installed."""
    if not Path("/usr/bin", tool).exists():
        pytest.skip(f"DCMTK's {tool} is not installed")
    subprocess.run([f"/usr/bin/{tool}", *map(str, arguments)], check=True, capture_output=True)


@pytest.mark.parametrize(("bits", "signed"), DEPTHS)
@pytest.mark.parametrize(
    "syntax",
    [
        uid.ImplicitVRLittleEndian,
        uid.ExplicitVRLittleEndian,
        uid.ExplicitVRBigEndian,
        uid.DeflatedExplicitVRLittleEndian,
    ],
    ids=lambda syntax: syntax.keyword,
)
def test_native_syntaxes_show_the_same_picture(tmp_path: Path, syntax: uid.UID, bits: int, signed: bool) -> None:
    """Uncompressed and deflated files of any depth and sign give the picture that the data set in memory gives."""
    array = radiograph(bits, signed)
    ds = instance(array, bits)
    assert np.array_equal(stored_values(ds), array)
    expected = read_dicom_picture(ds, max_pixels=MAX_PIXELS)
    ds.file_meta.TransferSyntaxUID = syntax
    if syntax == uid.ExplicitVRBigEndian:
        ds.PixelData = array.astype(array.dtype.newbyteorder(">")).tobytes()
        ds["PixelData"].VR = "OW" if bits > 8 else "OB"
    ds.save_as(tmp_path / "instance.dcm", enforce_file_format=True)
    assert np.array_equal(read_picture(tmp_path / "instance.dcm", max_pixels=MAX_PIXELS), expected)


@pytest.mark.dcmtk
@pytest.mark.parametrize(("bits", "signed"), DEPTHS)
@pytest.mark.parametrize(
    ("encoder", "decoder"),
    [
        (["dcmcjpeg", "+e1"], "dcmdjpeg"),
        (["dcmcjpeg", "+el", "+sv", "4"], "dcmdjpeg"),
        (["dcmcjpeg", "+eb"], "dcmdjpeg"),
        (["dcmcjpeg", "+ee"], "dcmdjpeg"),
        (["dcmcjpls", "+el"], "dcmdjpls"),
        (["dcmcjpls", "+en"], "dcmdjpls"),
        (["dcmcrle"], "dcmdrle"),
    ],
    ids=" ".join,
)
def test_dcmtk_agrees(tmp_path: Path, encoder: list[str], decoder: str, bits: int, signed: bool) -> None:
    """What DCMTK encodes is decoded to what DCMTK decodes; lossless processes give the original."""
    if encoder == ["dcmcjpls", "+en"] and signed:
        pytest.skip("DCMTK refuses near-lossless JPEG-LS of signed pixels")
    array = radiograph(bits, signed)
    original, coded, plain = (tmp_path / name for name in ("original.dcm", "coded.dcm", "plain.dcm"))
    instance(array, bits, "MONOCHROME1").save_as(original, enforce_file_format=True)
    run_dcmtk(encoder[0], *encoder[1:], original, coded)
    run_dcmtk(decoder, coded, plain)
    values = stored_values(dcmread(coded))
    assert np.array_equal(values, dcmread(plain).pixel_array)
    if encoder[-1] not in ("+eb", "+ee", "+en"):
        assert np.array_equal(values, array)


@pytest.mark.dcmtk
def test_a_frame_in_fragments_is_whole(tmp_path: Path) -> None:
    """A frame that lies in several fragments is put together (PS3.5 A.4)."""
    array = np.random.default_rng(1).integers(0, 4096, (96, 80), np.uint16)
    instance(array, 12).save_as(tmp_path / "original.dcm", enforce_file_format=True)
    run_dcmtk("dcmcjpls", "+fs", "2", tmp_path / "original.dcm", tmp_path / "coded.dcm")
    ds = dcmread(tmp_path / "coded.dcm")
    assert ds.PixelData.count(b"\xfe\xff\x00\xe0") > 3
    assert np.array_equal(stored_values(ds), array)


@pytest.mark.parametrize(("bits", "signed"), DEPTHS)
@pytest.mark.parametrize("syntax", [uid.JPEG2000Lossless, uid.JPEGLSLossless, uid.RLELossless], ids=lambda s: s.keyword)
def test_pydicoms_encoders_come_back_exact(syntax: uid.UID, bits: int, signed: bool) -> None:
    """What pydicom's encoders make is decoded to the original."""
    array = radiograph(bits, signed)
    ds = instance(array, bits)
    ds.compress(syntax, encoding_plugin="gdcm" if syntax == uid.RLELossless else "")
    assert np.array_equal(stored_values(ds), array)


@pytest.mark.parametrize("bits", [8, 16])
def test_imagecodecs_encoders_come_back_exact(bits: int) -> None:
    """JPEG 2000, high-throughput JPEG 2000 and lossless JPEG of a third encoder are decoded to the original."""
    array = radiograph(bits)
    frames = {
        uid.JPEG2000Lossless: imagecodecs.jpeg2k_encode(array, reversible=True, codecformat="j2k"),
        uid.HTJ2KLossless: imagecodecs.htj2k_encode(array, reversible=True),
        uid.JPEGLossless: imagecodecs.ljpeg_encode(array, bitspersample=bits),
        uid.JPEGLSLossless: imagecodecs.jpegls_encode(array),
    }
    for syntax, frame in frames.items():
        assert np.array_equal(stored_values(compressed(instance(array, bits), syntax, frame)), array), syntax.name


@pytest.mark.parametrize(("bits", "signed"), DEPTHS)
def test_lossy_jpeg_2000_is_near(bits: int, signed: bool) -> None:
    """Lossy JPEG 2000 gives nearly the original: no value wraps round at white or black."""
    array = radiograph(bits, signed)
    frame = openjpeg.utils.encode_array(array, bits_stored=bits, compression_ratios=[4])
    values = stored_values(compressed(instance(array, bits), uid.JPEG2000, frame))
    assert np.abs(values - array).max() < 2**bits / 10


def test_boxes_before_the_codestream_are_passed_over() -> None:
    """A JP2 file as a frame, which PS3.5 A.4.4 forbids and vendors send, is decoded."""
    array = radiograph(12)
    frame = openjpeg.utils.encode_array(array, bits_stored=12, codec_format=1)
    assert frame[4:8] == b"jP  "
    assert np.array_equal(stored_values(compressed(instance(array, 12), uid.JPEG2000Lossless, frame)), array)


def test_bits_are_taken_where_the_header_says() -> None:
    """Only BitsStored bits below HighBit count: what lies above or below them is no part of the value (PS3.5 8.1.1)."""
    array = radiograph(12, signed=True)
    above = (array.astype(np.uint16) & 0x0FFF) | 0xA000
    ds = instance(above, 12)
    ds.PixelRepresentation = 1
    assert np.array_equal(stored_values(ds), array)
    ds = instance((array.astype(np.uint16) << 4) | 0x0005, 12)
    ds.HighBit, ds.PixelRepresentation = 15, 1
    assert np.array_equal(stored_values(ds), array)


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        ("SC_rgb_rle.dcm", "SC_rgb.dcm"),
        ("SC_rgb_jpeg_gdcm.dcm", "SC_rgb.dcm"),
        ("SC_rgb_gdcm_KY.dcm", "SC_rgb.dcm"),
        ("SC_rgb_dcmtk_+eb+cr.dcm", "SC_rgb.dcm"),
        ("SC_rgb_dcmtk_+eb+cy+s4.dcm", "SC_rgb.dcm"),
        ("SC_rgb_dcmtk_+eb+cy+np.dcm", "SC_rgb.dcm"),
        ("SC_rgb_jls_lossy_sample.dcm", "SC_rgb.dcm"),
        ("SC_ybr_full_uncompressed.dcm", "SC_rgb.dcm"),
        ("SC_ybr_full_422_uncompressed.dcm", "SC_rgb.dcm"),
        ("SC_rgb_expb_16bit.dcm", "SC_rgb.dcm"),
        ("SC_rgb_jpeg_dcmtk.dcm", "SC_rgb.dcm"),
        ("SC_rgb_jpeg.dcm", "SC_rgb_jpeg_dcmd.dcm"),
    ],
)
def test_colour_becomes_luminance(name: str, reference: str) -> None:
    """Colour of every coding shows the luminance that the uncompressed RGB of the same picture shows."""
    plain = dcmread(get_testdata_file(reference, download=False))
    expected = plain.pixel_array @ np.array([0.299, 0.587, 0.114])
    picture = read_picture(Path(get_testdata_file(name, download=False)), max_pixels=MAX_PIXELS)
    # Rows next to a colour edge may differ by what subsampling and quantisation do to it.
    assert np.abs(picture - expected).mean() < 1.5


@pytest.mark.parametrize("name", ["JPGExtended.dcm", "JPEG-lossy.dcm"])
@pytest.mark.dcmtk
def test_a_real_12_bit_jpeg_agrees_with_dcmtk(tmp_path: Path, name: str) -> None:
    """Real JPEG Extended of 12 bits is what dcmdjpeg makes of it."""
    path = get_testdata_file(name, download=False)
    run_dcmtk("dcmdjpeg", path, tmp_path / "plain.dcm")
    assert np.array_equal(stored_values(dcmread(path)), dcmread(tmp_path / "plain.dcm").pixel_array)


@pytest.mark.parametrize("name", ["693_J2KR.dcm", "J2K_pixelrep_mismatch.dcm", "RG3_J2KR.dcm", "explicit_VR-UN.dcm"])
def test_headers_that_differ_from_the_codestream_are_read_as_pydicom_reads_them(name: str) -> None:
    """Real JPEG 2000 files whose precision or sign is not the header's give the values that pydicom gives."""
    ds = dcmread(get_testdata_file(name, download=False))
    assert np.array_equal(stored_values(ds), ds.pixel_array)


# -- JPEG 2000 at a reduced size


def area_average(array: np.ndarray, step: int) -> np.ndarray:
    """Means of *step* × *step* blocks; what does not fill a block is left out."""
    rows, columns = (side // step for side in array.shape)
    return array[: rows * step, : columns * step].reshape(rows, step, columns, step).mean((1, 3))


@pytest.mark.parametrize(("bits", "signed"), DEPTHS)
@pytest.mark.parametrize("step", [2, 4, 8])
@pytest.mark.parametrize("ratios", [None, [8]], ids=["lossless", "lossy"])
def test_reduced_is_the_full_picture_smaller(bits: int, signed: bool, step: int, ratios: list[int] | None) -> None:
    """A reduced decode has the values of the full one, for any depth and sign, and lies where its average lies."""
    smooth = radiograph(16, shape=(1024, 768))
    smooth = np.sin(np.mgrid[:1024, :768][1] / 60) * np.cos(np.mgrid[:1024, :768][0] / 45) * 0.45 + 0.5
    array = (smooth * (2**bits - 1) - (2 ** (bits - 1) if signed else 0)).astype(radiograph(bits, signed).dtype)
    frame = openjpeg.utils.encode_array(array, bits_stored=bits, compression_ratios=ratios)
    ds = compressed(instance(array, bits), uid.JPEG2000 if ratios else uid.JPEG2000Lossless, frame)
    values = stored_values(ds, longest_side=1024 // step)
    assert values.shape == (1024 // step, 768 // step)
    inner = (slice(2, -2), slice(2, -2))
    error = np.abs(values - area_average(array.astype(float), step))[inner]
    assert error.mean() < 2**bits * 0.004 + 0.5
    # The displacement that is undone would alone make an error of the slope times half a step.
    displaced = np.abs(array[::step, ::step] - area_average(array.astype(float), step))[inner]
    assert bits == 8 or step == 2 or error.mean() < displaced.mean() / 3


def test_overshoot_of_a_reduced_decode_does_not_wrap() -> None:
    """White lines stay white where the codestream holds more bits than BitsStored, as a Kodak CR's does."""
    array = np.zeros((1024, 1024), np.uint16)
    array[::64] = array[1::64] = array[2::64] = array[3::64] = array[4::64] = array[5::64] = 4095
    frame = openjpeg.utils.encode_array(array, bits_stored=16)
    values = stored_values(compressed(instance(array, 12), uid.JPEG2000Lossless, frame), longest_side=256)
    assert values.shape == (256, 256)
    assert (values[::16] > 2500).all()


@pytest.mark.parametrize("shape", [(1000, 901), (901, 1000), (1001, 517), (640, 640)])
@pytest.mark.parametrize("longest_side", [100, 130, 250, 490, 501])
def test_odd_sizes_reduce_or_fall_back(shape: tuple[int, int], longest_side: int) -> None:
    """Any size gives the full decode's picture after reduction, never smaller than asked for."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    array = ((np.sin(columns / 90) * np.cos(rows / 70) + 1) * 2000).astype(np.uint16)
    ds = compressed(instance(array, 12), uid.JPEG2000Lossless, openjpeg.utils.encode_array(array, bits_stored=12))
    ds.WindowCenter, ds.WindowWidth = 2048, 4096
    full = read_dicom_picture(ds, max_pixels=MAX_PIXELS)
    small = read_dicom_picture(ds, max_pixels=MAX_PIXELS, longest_side=longest_side)
    assert full.shape == shape
    assert max(small.shape) >= longest_side
    expected, got = (reduce_picture(picture, longest_side).astype(int) for picture in (full, small))
    assert np.abs(np.subtract(expected.shape, got.shape)).max() <= 1
    rows, columns = np.minimum(expected.shape, got.shape)
    assert np.abs(expected[:rows, :columns] - got[:rows, :columns]).mean() < 3


def test_padding_asks_for_a_full_decode() -> None:
    """Where PixelPaddingValue is given the picture is decoded whole: averages would hide padding."""
    array = radiograph(12, shape=(512, 512))
    ds = compressed(instance(array, 12), uid.JPEG2000Lossless, openjpeg.utils.encode_array(array, bits_stored=12))
    assert stored_values(ds, longest_side=128).shape == (128, 128)
    ds.add_new("PixelPaddingValue", "US", 0)
    assert stored_values(ds, longest_side=128).shape == (512, 512)


def test_a_real_hand_is_the_same_reduced() -> None:
    """A real CR hand decoded at 1/4 differs from its full decode by less than a grey level in the mean."""
    if not HAND.exists():
        pytest.skip("the real samples are not here")
    full = read_picture(HAND, max_pixels=MAX_PIXELS)
    small = read_picture(HAND, max_pixels=MAX_PIXELS, longest_side=512)
    assert full.shape == (2500, 2048)
    assert small.shape == (625, 512)
    assert np.abs(reduce_picture(full, 512).astype(int) - reduce_picture(small, 512)).mean() < 1


# -- pixel data that lies


def refused(ds: Dataset, error: type[PixelsError] = PixelsError) -> str:
    """The one line with which *ds* is refused."""
    with pytest.raises(error) as caught:
        read_dicom_picture(ds, max_pixels=MAX_PIXELS)
    message = str(caught.value)
    assert message
    assert "\n" not in message
    return message


@pytest.mark.parametrize(
    ("keyword", "value", "error", "words"),
    [
        ("PresentationIntentType", "FOR PROCESSING", UnsupportedImageError, "PresentationIntentType"),
        ("SOPClassUID", uid.DigitalXRayImageStorageForProcessing, UnsupportedImageError, "FOR PROCESSING"),
        ("NumberOfFrames", 2, UnsupportedImageError, "NumberOfFrames 2"),
        ("Rows", 0, PixelsError, "Rows × Columns are 0 × 80"),
        ("Rows", None, PixelsError, "Rows is missing"),
        ("Columns", 60000, PixelsError, "cut short"),
        ("Rows", 97, PixelsError, "cut short: 15360 bytes where Rows × Columns ask for 15520"),
        ("BitsStored", 17, PixelsError, "BitsStored 17"),
        ("BitsStored", 0, PixelsError, "BitsStored 0"),
        ("HighBit", 3, PixelsError, "HighBit 3"),
        ("BitsAllocated", 32, UnsupportedImageError, "BitsAllocated 32"),
        ("BitsAllocated", 12, UnsupportedImageError, "BitsAllocated 12"),
        ("SamplesPerPixel", 2, UnsupportedImageError, "SamplesPerPixel 2"),
        ("PhotometricInterpretation", "PALETTE COLOR", UnsupportedImageError, "PALETTE COLOR"),
        ("PhotometricInterpretation", None, UnsupportedImageError, "PhotometricInterpretation (none)"),
    ],
)
def test_attributes_that_cannot_be(keyword: str, value: Any, error: type[PixelsError], words: str) -> None:
    """An attribute that is absurd or of another kind of image is named in the refusal."""
    ds = instance(radiograph(12), 12)
    setattr(ds, keyword, value)
    assert words in refused(ds, error)


def test_no_pixel_data() -> None:
    """An instance without pixel data is of no kind that is analysed."""
    ds = instance(radiograph(12), 12)
    del ds.PixelData
    assert "no pixel data" in refused(ds, UnsupportedImageError)


def test_a_transfer_syntax_that_is_not_decoded() -> None:
    """Video is refused by the name of its transfer syntax; every syntax of the list is known to pydicom."""
    ds = compressed(instance(radiograph(12), 12), uid.MPEG2MPML, b"\0" * 100)
    assert "MPEG2" in refused(ds, UnsupportedImageError)
    assert all(syntax.is_transfer_syntax for syntax in DECODED)


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.JPEG2000Lossless, uid.RLELossless])
def test_60000_by_60000_is_refused_at_once(syntax: uid.UID) -> None:
    """Rows and columns beyond the bound are refused before anything is allocated."""
    ds = instance(radiograph(12), 12)
    ds.Rows = ds.Columns = 60000
    ds.file_meta.TransferSyntaxUID = syntax
    refused(ds)
    began = time.perf_counter()
    assert "60000 × 60000" in refused(ds)
    assert time.perf_counter() - began < 0.02


def jpeg_frames() -> dict[uid.UID, bytes]:
    """A 12-bit (or 8-bit) frame of each compressed syntax."""
    array, eight = radiograph(12), radiograph(8)

    def encoded(syntax: uid.UID) -> bytes:
        ds = instance(array, 12)
        ds.compress(syntax)
        return next(generate_frames(ds.PixelData, number_of_frames=1))

    return {
        uid.JPEGBaseline8Bit: imagecodecs.jpeg8_encode(eight, level=90),
        uid.JPEGExtended12Bit: imagecodecs.jpeg8_encode(array, level=90, bitspersample=12),
        uid.JPEGLosslessSV1: imagecodecs.ljpeg_encode(array, bitspersample=12),
        uid.JPEGLSLossless: encoded(uid.JPEGLSLossless),
        uid.JPEG2000Lossless: openjpeg.utils.encode_array(array, bits_stored=12),
        uid.HTJ2KLossless: imagecodecs.htj2k_encode(array, reversible=True),
        uid.RLELossless: encoded(uid.RLELossless),
    }


FRAMES = jpeg_frames()
EACH_SYNTAX = pytest.mark.parametrize("syntax", FRAMES, ids=lambda syntax: syntax.keyword)


def of(syntax: uid.UID, frame: bytes) -> Dataset:
    bits = 8 if syntax == uid.JPEGBaseline8Bit else 12
    return compressed(instance(radiograph(bits), bits), syntax, frame)


@EACH_SYNTAX
def test_frames_used_below_are_good(syntax: uid.UID) -> None:
    """The frames that the following tests break are decoded while they are whole."""
    assert stored_values(of(syntax, FRAMES[syntax])).shape == (96, 80)


@EACH_SYNTAX
@pytest.mark.parametrize("share", [0.001, 0.02, 0.3, 0.5, 0.9, 0.99])
def test_a_frame_that_was_cut(syntax: uid.UID, share: float) -> None:
    """A frame of which the end is missing is refused in one line, wherever it was cut."""
    refused(of(syntax, FRAMES[syntax][: int(len(FRAMES[syntax]) * share) + 2]))


def test_damage_in_lossless_jpeg_is_told(capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    """Damage that gdcm only mentions on standard error is the reason given; nothing is written there or logged."""
    frame = bytearray(FRAMES[uid.JPEGLosslessSV1])
    middle = len(frame) // 2
    frame[middle : middle + 400] = b"\xff\x00" * 200
    assert "damaged" in refused(of(uid.JPEGLosslessSV1, bytes(frame)))
    assert stored_values(of(uid.JPEGLosslessSV1, FRAMES[uid.JPEGLosslessSV1])).max() > 4000
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


@EACH_SYNTAX
def test_nothing_but_an_empty_fragment(syntax: uid.UID) -> None:
    """Encapsulated pixel data without a byte in it is refused."""
    ds = of(syntax, FRAMES[syntax])
    ds.PixelData = b"\xfe\xff\x00\xe0\0\0\0\0" * 2
    assert "empty" in refused(ds)


@EACH_SYNTAX
def test_broken_bytes_never_raise_anything_else(syntax: uid.UID) -> None:
    """Bytes overwritten at random give a picture or one line: no other exception, no warning, no crash."""
    random = np.random.default_rng(3)
    outcomes = set()
    for _ in range(60):
        frame = bytearray(FRAMES[syntax])
        for at in random.integers(0, len(frame), 8):
            frame[at] = random.integers(0, 256)
        try:
            picture = read_dicom_picture(of(syntax, bytes(frame)), max_pixels=MAX_PIXELS)
            assert picture.shape == (96, 80)
            outcomes.add("picture")
        except PixelsError as error:
            outcomes.add(f"refused: {error}")
    refusals = outcomes - {"picture"}
    assert refusals
    assert not [line for line in refusals if "\n" in line]


@EACH_SYNTAX
@pytest.mark.parametrize(("rows", "columns"), [(48, 80), (96, 40), (960, 800), (80, 96)])
def test_the_codestream_has_another_size(syntax: uid.UID, rows: int, columns: int) -> None:
    """Rows and Columns that are not the codestream's are refused; nothing is decoded into the wrong shape."""
    if syntax == uid.RLELossless and rows * columns == 96 * 80:
        pytest.skip("RLE knows no rows and columns, only how many pixels there are")
    ds = of(syntax, FRAMES[syntax])
    ds.Rows, ds.Columns = rows, columns
    message = refused(ds)
    assert syntax == uid.RLELossless or f"96 × 80, Rows × Columns say {rows} × {columns}" in message


@pytest.mark.parametrize("syntax", [s for s in FRAMES if s != uid.RLELossless], ids=lambda syntax: syntax.keyword)
def test_a_codestream_that_claims_60000_by_60000(syntax: uid.UID) -> None:
    """A header that lies small over a codestream that claims to be huge is refused before the decoder runs."""
    frame = FRAMES[syntax]
    if frame.startswith(b"\xff\x4f"):
        huge = frame[:8] + struct.pack(">II", 60000, 60000) + frame[16:]
    else:
        huge = frame.replace(struct.pack(">HH", 96, 80), struct.pack(">HH", 60000, 60000), 1)
    assert "60000 × 60000, Rows × Columns say 96 × 80" in refused(of(syntax, huge))


def test_components_and_precision_that_are_not_the_headers() -> None:
    """A colour codestream under a grey header, or 12 bits under 8 allocated ones, is refused."""
    rgb = np.repeat(radiograph(8)[..., None], 3, 2)
    coloured = compressed(instance(radiograph(8), 8), uid.JPEGBaseline8Bit, imagecodecs.jpeg8_encode(rgb, level=90))
    assert "3 components, SamplesPerPixel says 1" in refused(coloured)
    for syntax in (uid.JPEGExtended12Bit, uid.JPEGLSLossless, uid.JPEG2000Lossless):
        deeper = compressed(instance(radiograph(8), 8), syntax, FRAMES[syntax])
        assert "12 bits a sample, BitsAllocated says 8" in refused(deeper)


def test_rle_headers_that_lie() -> None:
    """An RLE header with another number of segments, or offsets outside the frame, is refused before decoding."""
    frame = FRAMES[uid.RLELossless]
    assert "3 segments where 2" in refused(of(uid.RLELossless, struct.pack("<I", 3) + frame[4:]))
    assert "offsets" in refused(of(uid.RLELossless, frame[:8] + struct.pack("<I", 10**9) + frame[12:]))
    assert "offsets" in refused(of(uid.RLELossless, frame[:4] + struct.pack("<I", 0) + frame[8:]))


def test_hidden_frames_are_told() -> None:
    """Two frames under a header that says one are refused, with and without an offset table."""
    frame = FRAMES[uid.JPEGLSLossless]
    for has_table in (True, False):
        ds = of(uid.JPEGLSLossless, frame)
        ds.PixelData = encapsulate([frame, frame], has_bot=has_table)
        assert "2 frames" in refused(ds, UnsupportedImageError)


def test_native_bytes_under_a_compressed_syntax() -> None:
    """Pixel data that is not encapsulated where its transfer syntax says so is refused in one line."""
    ds = instance(radiograph(12), 12)
    ds.file_meta.TransferSyntaxUID = uid.JPEG2000Lossless
    refused(ds)


def test_headers_of_codestreams_are_read() -> None:
    """Size, components, precision, sign and levels are read from the codestream itself."""
    twelve = read_jpeg_header(FRAMES[uid.JPEGExtended12Bit])
    assert (twelve.process, twelve.rows, twelve.columns, twelve.components, twelve.precision) == ("JPEG", 96, 80, 1, 12)
    assert read_jpeg_header(FRAMES[uid.JPEGLosslessSV1]).process == "JPEG lossless"
    assert read_jpeg_header(FRAMES[uid.JPEGLSLossless]).process == "JPEG-LS"
    signed = openjpeg.utils.encode_array(radiograph(10, signed=True), bits_stored=10)
    header, bare = read_jpeg_2000_header(signed)
    assert (header.rows, header.columns, header.precision, header.signed, header.levels) == (96, 80, 10, True, 5)
    assert bare == signed


def test_a_deflated_bomb_is_not_inflated(tmp_path: Path) -> None:
    """A deflated data set that would grow beyond what its pixels may ask for is refused."""
    ds = instance(radiograph(12), 12)
    ds.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    buffer = io.BytesIO()
    ds.save_as(buffer, enforce_file_format=True)
    ds = dcmread(io.BytesIO(buffer.getvalue()))
    head = buffer.getvalue()[: 144 + ds.file_meta.FileMetaInformationGroupLength]
    deflater = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    zeros = deflater.compress(b"\xe0\x7f\x10\x00OB\0\0" + struct.pack("<I", 2**31 - 2) + bytes(100_000_000))
    (tmp_path / "bomb.dcm").write_bytes(head + zeros + deflater.flush())
    with pytest.raises(PixelsError, match="deflated"):
        read_picture(tmp_path / "bomb.dcm", max_pixels=1_000_000)
