"""The transfer syntaxes of phantoms: every one decodes to the pixels that went in."""

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.uid import ExplicitVRBigEndian, JPEGLosslessSV1, JPEGLSLossless, RLELossless

from pacs_agent.errors import PacsAgentError
from pacs_agent.phantom.dataset import dataset, write_study
from pacs_agent.phantom.encoding import TRANSFER_SYNTAXES, jpeg_lossless
from pacs_agent.phantom.radiograph import Radiograph, radiograph


@pytest.fixture(scope="module")
def wrist() -> Radiograph:
    return radiograph("wrist", abnormal=False, seed=1, longest_side=160)


@pytest.mark.parametrize("bits", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("uid", TRANSFER_SYNTAXES, ids=lambda uid: uid.keyword)
def test_decodes(uid, bits, wrist, tmp_path) -> None:
    """pydicom reads the same pixels from the file of each transfer syntax and depth as from the native one."""
    native = dataset(wrist, bits_stored=bits).pixel_array
    (path,) = write_study([dataset(wrist, bits_stored=bits, transfer_syntax_uid=uid)], tmp_path)
    ds = dcmread(path)
    assert ds.file_meta.TransferSyntaxUID == uid
    assert np.array_equal(ds.pixel_array, native)
    assert np.ptp(native) > 0.8 * (1 << bits)


@pytest.mark.parametrize("uid", [uid for uid in TRANSFER_SYNTAXES if uid not in (JPEGLosslessSV1, JPEGLSLossless)])
def test_signed_decodes(uid, wrist, tmp_path) -> None:
    """Signed pixels survive where the syntax carries them, and are shown as the unsigned ones are."""
    (path,) = write_study([dataset(wrist, signed=True, transfer_syntax_uid=uid)], tmp_path)
    ds = dcmread(path)
    assert ds.pixel_array.min() < 0
    assert np.array_equal(ds.pixel_array.astype(int) + 2048, dataset(wrist).pixel_array)


@pytest.mark.parametrize(
    ("uid", "signed"), [(ExplicitVRBigEndian, False), (JPEGLosslessSV1, True), (JPEGLSLossless, True)]
)
def test_refuses(uid, signed, wrist) -> None:
    """A syntax that phantoms are not written in, or that leaves the sign open, is refused."""
    with pytest.raises(PacsAgentError, match="not written"):
        dataset(wrist, transfer_syntax_uid=uid, signed=signed)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_jpeg_lossless_extremes(bits, wrist) -> None:
    """JPEG lossless keeps noise and the largest steps there are, of an odd size, as two decoders see it."""
    imagecodecs = pytest.importorskip("imagecodecs")
    plane = np.random.default_rng(bits).integers(0, 1 << bits, (37, 53)).astype(np.uint16)
    plane[5:9] = np.arange(53) % 2 * ((1 << bits) - 1)
    plane[0, 0] = 0
    assert np.array_equal(imagecodecs.jpegsof3_decode(jpeg_lossless(plane, bits)), plane)


def test_rle_is_smaller(wrist) -> None:
    """A compressed phantom is really compressed."""
    assert len(dataset(wrist, transfer_syntax_uid=RLELossless).PixelData) < len(dataset(wrist).PixelData)
