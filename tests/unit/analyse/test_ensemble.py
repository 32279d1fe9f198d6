"""A bundle's network gives the same probabilities whatever the batch, and refuses what it cannot run."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from pacs_agent.analyse import ensemble as ensemble_module
from pacs_agent.analyse.bundle import load_bundle
from pacs_agent.analyse.ensemble import Ensemble, resolve_device
from pacs_agent.errors import BundleError, DeviceExhaustedError

PARTS = ["shoulder", "elbow", "wrist", None, "shoulder"]


@pytest.fixture(scope="module")
def ensemble() -> Ensemble:
    """The shipped bundle's, on the CPU."""
    return Ensemble(load_bundle("demonstration"), "cpu")


@pytest.fixture(scope="module")
def inputs() -> NDArray[np.uint8]:
    """Five pictures of noise on a ramp."""
    noise = np.random.default_rng(5).integers(0, 100, (5, 160, 160))
    return (noise + np.linspace(0, 150, 160)).astype(np.uint8)


def test_probability_is_softmax_of_the_logits(ensemble: Ensemble, inputs: NDArray[np.uint8]) -> None:
    """Pictures are scaled to 0–1, normalised with the bundle's mean and std, repeated to three channels."""
    probabilities, members = ensemble.predict(inputs, PARTS, 8)
    x = ((torch.from_numpy(inputs).float() / 255 - 0.485) / 0.229)[:, None].repeat(1, 3, 1, 1)
    with torch.inference_mode():
        logits, member_logits = ensemble.network(x, PARTS)
    assert probabilities.shape == (5,)
    assert members.shape == (5, 3)
    np.testing.assert_allclose(probabilities, logits.softmax(-1)[:, 1], atol=1e-5)
    np.testing.assert_allclose(members, member_logits.softmax(-1)[:, :, 1], atol=1e-5)


def test_batch_size_does_not_matter(ensemble: Ensemble, inputs: NDArray[np.uint8]) -> None:
    """One at a time, two at a time or all at once: the same probabilities, in order."""
    whole, whole_members = ensemble.predict(inputs, PARTS, 100)
    for batch_size in (1, 2):
        probabilities, members = ensemble.predict(inputs, PARTS, batch_size)
        np.testing.assert_allclose(probabilities, whole, atol=1e-5)
        np.testing.assert_allclose(members, whole_members, atol=1e-5)
    assert len(set(whole.round(6))) > 1


class Device:
    """A device's memory in pictures, and what was tried on it."""

    def __init__(self, ensemble: Ensemble, holds: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tried: list[int] = []
        forward = ensemble.forward

        def bounded(inputs: NDArray[np.uint8], *arguments: Any, **named: Any) -> Any:
            self.tried.append(len(inputs))
            if len(inputs) > holds:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return forward(inputs, *arguments, **named)

        monkeypatch.setattr(ensemble, "forward", bounded)


def test_device_that_is_short_gets_smaller_batches(
    ensemble: Ensemble, inputs: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Halved until they fit, each picture once, the same answers: probabilities, members, verdicts, maps."""
    whole = ensemble.examine(inputs, PARTS, 100, with_maps=True)
    device = Device(ensemble, 2, monkeypatch)
    examined = ensemble.examine(inputs, PARTS, 100, with_maps=True)
    assert device.tried == [5, 2, 2, 1]
    np.testing.assert_allclose(examined.probabilities, whole.probabilities, atol=1e-5)
    np.testing.assert_allclose(examined.member_probabilities, whole.member_probabilities, atol=1e-5)
    np.testing.assert_allclose(examined.attention, whole.attention, atol=1e-4)
    assert [verdict and verdict.reason for verdict in examined.verdicts] == [
        verdict and verdict.reason for verdict in whole.verdicts
    ]


def test_device_that_holds_no_picture_gives_way_to_the_cpu(
    inputs: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only where the setting left it open; else it is said, as nobody's fault but the device's."""
    short = Ensemble(load_bundle("demonstration"), "cpu")
    whole = short.examine(inputs, PARTS, 100).probabilities
    Device(short, 0, monkeypatch)
    with pytest.raises(DeviceExhaustedError, match="not memory enough for one image"):
        short.examine(inputs, PARTS, 4)
    short._may_use_cpu = True
    np.testing.assert_allclose(short.examine(inputs, PARTS, 4).probabilities, whole, atol=1e-5)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
)
@pytest.mark.parametrize(("device", "ends"), [("auto", "cpu"), ("cuda", None)])
def test_weights_that_do_not_fit(
    monkeypatch: pytest.MonkeyPatch, device: str, ends: str | None, error: RuntimeError
) -> None:
    """`auto` goes on on the CPU; a device that was named is not exchanged for another."""

    def load(ensemble: Ensemble) -> None:
        if ensemble.device.type != "cpu":
            raise error

    monkeypatch.setattr(ensemble_module, "resolve_device", lambda _: torch.device("cuda", 0))
    monkeypatch.setattr(Ensemble, "_load", load)
    if ends:
        assert Ensemble(load_bundle("demonstration"), device).device.type == ends
    else:
        with pytest.raises(DeviceExhaustedError, match="cuda:0 has not memory enough for the weights"):
            Ensemble(load_bundle("demonstration"), device)


def test_unknown_part_takes_the_default_weights(ensemble: Ensemble, inputs: NDArray[np.uint8]) -> None:
    """A part that has no gate, or is none of ours, is weighted as one that is not known."""
    unknown, _ = ensemble.predict(inputs, ["knee"] * 5, 8)
    nothing, _ = ensemble.predict(inputs, [None] * 5, 8)
    np.testing.assert_array_equal(unknown, nothing)


def test_no_picture_no_probability(ensemble: Ensemble) -> None:
    """An empty batch gives empty arrays of the right shapes."""
    probabilities, members = ensemble.predict(np.zeros((0, 160, 160), np.uint8), [], 8)
    assert (probabilities.shape, members.shape) == ((0,), (0, 3))


def test_cuda_asked_for_and_absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA by name without a device is a clear line, `auto` is the CPU then."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == resolve_device("cpu") == torch.device("cpu")
    for name in ("cuda", "cuda:1"):
        with pytest.raises(BundleError, match=f"device {name} was asked for"):
            resolve_device(name)


def test_cuda_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number beyond the devices is refused; `auto` and `cuda` are the first."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert resolve_device("auto") == resolve_device("cuda") == torch.device("cuda", 0)
    assert resolve_device("cuda:1") == torch.device("cuda", 1)
    with pytest.raises(BundleError, match="has 2 usable"):
        resolve_device("cuda:2")


@pytest.mark.parametrize(
    ("arguments", "tells"), [({"num_classes": 3}, "weights do not fit"), ({"depth": 1}, "architecture.arguments")]
)
def test_weights_of_another_network(tmp_path: Path, arguments: dict[str, Any], tells: str) -> None:
    """Weights that do not fit the architecture are refused in one line."""
    folder = Path(shutil.copytree(load_bundle("demonstration").path, tmp_path / "other"))
    fields = json.loads((folder / "model.json").read_text())
    fields["architecture"]["arguments"] = arguments
    (folder / "model.json").write_text(json.dumps(fields))
    with pytest.raises(BundleError, match=tells) as caught:
        Ensemble(load_bundle(folder), "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_cuda_agrees_with_the_cpu(ensemble: Ensemble, inputs: NDArray[np.uint8]) -> None:
    """bfloat16 on CUDA gives the CPU's probabilities to two digits, on the device that `auto` chose."""
    on_cuda = Ensemble(ensemble.bundle, "auto")
    assert on_cuda.device.type == "cuda"
    expected, expected_members = ensemble.predict(inputs, PARTS, 8)
    probabilities, members = on_cuda.predict(inputs, PARTS, 8)
    np.testing.assert_allclose(probabilities, expected, atol=0.01)
    np.testing.assert_allclose(members, expected_members, atol=0.01)
