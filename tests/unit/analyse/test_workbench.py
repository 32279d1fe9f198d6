"""Inside the analysis process: a bad picture costs itself alone, and no NaN becomes a finding."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
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
