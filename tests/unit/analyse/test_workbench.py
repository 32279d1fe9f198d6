"""Inside the analysis process: a bad picture costs itself alone, and no NaN becomes a finding."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from pacs_agent.analyse import workbench
from pacs_agent.analyse.bundle import load_bundle
from pacs_agent.analyse.ensemble import Ensemble


@pytest.fixture
def ensemble() -> Ensemble:
    """The shipped bundle's, on the CPU."""
    return Ensemble(load_bundle("demonstration"), "cpu")


@pytest.fixture
def decoders() -> Iterator[ThreadPoolExecutor]:
    """Two decoding threads."""
    with ThreadPoolExecutor(2) as pool:
        yield pool


@pytest.fixture
def requests(tmp_path: Path) -> list[dict[str, str | None]]:
    """Three good pictures."""
    for name in "abc":
        Image.fromarray(np.tile(np.arange(64, dtype=np.uint8), (64, 1))).save(tmp_path / f"{name}.png")
    return [{"key": name, "path": str(tmp_path / f"{name}.png"), "body_part": "wrist"} for name in "abc"]


@pytest.mark.parametrize(
    ("error", "tells"),
    [
        (MemoryError(), "needs more memory"),
        (ZeroDivisionError("first line\nsecond"), "could not be read: ZeroDivisionError: first line"),
        (KeyError(), "could not be read: KeyError"),
    ],
)
def test_any_failure_of_a_decoder_is_a_reason(
    ensemble: Ensemble,
    decoders: ThreadPoolExecutor,
    requests: list[dict[str, str | None]],
    monkeypatch: pytest.MonkeyPatch,
    *,
    error: Exception,
    tells: str,
) -> None:
    """Whatever a decoder raises becomes the reason of that picture, in one line; its neighbours are analysed."""
    read_picture = workbench.read_picture

    def read_or_fail(path: Path, *, max_pixels: int, longest_side: int | None = None) -> object:
        if path.name == "b.png":
            raise error
        return read_picture(path, max_pixels=max_pixels, longest_side=longest_side)

    monkeypatch.setattr(workbench, "read_picture", read_or_fail)
    good, bad, other = workbench.Workbench(ensemble, decoders, 2, 1_000_000).analyse(requests)
    assert bad["abnormal_probability"] is None
    assert tells in bad["reason"]
    assert "\n" not in bad["reason"]
    assert good["reason"] is other["reason"] is None
    assert good["abnormal_probability"] == pytest.approx(other["abnormal_probability"], abs=1e-5)


def test_network_without_a_number_is_a_reason(
    ensemble: Ensemble, decoders: ThreadPoolExecutor, requests: list[dict[str, str | None]]
) -> None:
    """NaN, which no threshold exceeds, never leaves as a probability."""
    with torch.no_grad():
        ensemble.network.get_parameter("model2.fc.bias").fill_(torch.nan)
    answers = workbench.Workbench(ensemble, decoders, 2, 1_000_000).analyse(requests)
    assert [answer["abnormal_probability"] for answer in answers] == [None] * 3
    assert {answer["reason"] for answer in answers} == {"the network gave no probability"}


def test_failure_of_the_network_is_not_caught(
    ensemble: Ensemble,
    decoders: ThreadPoolExecutor,
    requests: list[dict[str, str | None]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A network that fails (CUDA out of memory) must end the process: nothing in it can be trusted any more."""

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(ensemble, "examine", fail)
    with pytest.raises(RuntimeError, match="out of memory"):
        workbench.Workbench(ensemble, decoders, 2, 1_000_000).analyse(requests)


class _Reads:
    """Counts what is read, and how finely."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[int | None] = []
        self._read = workbench.read_picture
        monkeypatch.setattr(workbench, "read_picture", self)

    def __call__(self, path: Path, *, max_pixels: int, longest_side: int | None = None) -> object:
        self.asked.append(longest_side)
        return self._read(path, max_pixels=max_pixels, longest_side=longest_side)


def captured(bench: workbench.Workbench, path: Path) -> NDArray[np.uint8] | str:
    return bench.capture(str(path), "wrist", 5.0, "title", ("line",), ("none", "most"))


def test_a_capture_needs_no_second_decoding(
    ensemble: Ensemble, decoders: ThreadPoolExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was decoded for the network is shown; only what was decoded small (JPEG 2000) is read again."""
    large, small = tmp_path / "large.png", tmp_path / "small.png"
    Image.linear_gradient("L").resize((1200, 1500)).save(large)
    Image.linear_gradient("L").resize((300, 400)).save(small)
    reads = _Reads(monkeypatch)
    bench = workbench.Workbench(ensemble, decoders, 2, 10_000_000)
    bench.analyse([{"key": "", "path": str(path), "body_part": "wrist"} for path in (large, small)])
    assert reads.asked == [512, 512]
    shown = captured(bench, large)
    assert not isinstance(shown, str)
    assert shown.shape[:2] > (1500, 1199)
    assert reads.asked == [512, 512]
    shown = captured(bench, small)
    assert not isinstance(shown, str)
    assert reads.asked == [512, 512, workbench.CAPTURE_DETAIL]


def test_what_is_no_longer_kept_is_made_again(
    ensemble: Ensemble, decoders: ThreadPoolExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond its bound the oldest picture goes; its capture is the same when it is made again."""
    paths = [tmp_path / f"{name}.png" for name in "abc"]
    for number, path in enumerate(paths):
        Image.linear_gradient("L").rotate(30 * number).resize((1100, 1100)).save(path)
    bench = workbench.Workbench(ensemble, decoders, 3, 10_000_000)
    bench.analyse([{"key": "", "path": str(path), "body_part": "wrist"} for path in paths])
    kept = captured(bench, paths[0])
    monkeypatch.setattr(workbench, "KEPT_BYTES", 2_600_000)
    bench = workbench.Workbench(ensemble, decoders, 3, 10_000_000)
    bench.analyse([{"key": "", "path": str(path), "body_part": "wrist"} for path in paths])
    reads = _Reads(monkeypatch)
    made_again = captured(bench, paths[0])
    assert reads.asked == [512]
    np.testing.assert_allclose(np.asarray(made_again, int), np.asarray(kept, int), atol=1)


def test_a_capture_that_cannot_be_made_has_a_reason(
    ensemble: Ensemble, decoders: ThreadPoolExecutor, tmp_path: Path
) -> None:
    """A file that is no picture, or is gone, gives a line and no picture."""
    text = tmp_path / "text.dcm"
    text.write_text("not a picture")
    bench = workbench.Workbench(ensemble, decoders, 2, 1_000_000)
    for path in (text, tmp_path / "absent"):
        reason = captured(bench, path)
        assert isinstance(reason, str)
        assert reason
        assert "\n" not in reason


def test_answers_tell_how_high_the_map_is(
    ensemble: Ensemble, decoders: ThreadPoolExecutor, requests: list[dict[str, str | None]]
) -> None:
    """The highest value of each map, which scales a finding's captures, comes with the probability."""
    answers = workbench.Workbench(ensemble, decoders, 2, 1_000_000).analyse(requests)
    assert all(answer["attention"] >= 0 for answer in answers)
