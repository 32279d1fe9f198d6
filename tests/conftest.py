"""Fixtures for every test: Orthanc as the PACS, the real samples."""

import os
import socketserver
import threading
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from peers import ORTHANC, SAMPLES, Orthanc, running_orthanc

# Where two tests run at once, torch's threads would spin for a core that the other test has; read as torch is loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

# A slow machine is no failure: no test asserts a time.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")

# A server looks every half second whether it is to stop (`poll_interval`): hundreds of tests would wait for that.
socketserver.BaseServer.serve_forever.__defaults__ = (0.02,)  # type: ignore[attr-defined]


@pytest.fixture(autouse=True)
def _hook_afterwards() -> Iterator[None]:
    """What our logging does with a thread's exception ends with its test: of the next one pytest wants to know."""
    hook = threading.excepthook
    yield
    threading.excepthook = hook


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """A fresh Orthanc on free ports, its settings and storage in a temporary folder."""
    if not Path(ORTHANC).exists():
        pytest.skip(f"{ORTHANC} is not installed (Debian package orthanc)")
    with running_orthanc(tmp_path_factory.mktemp("orthanc")) as peer:
        yield peer


@pytest.fixture
def samples() -> Path:
    """Real CR files and radiographs beside the checkout."""
    if not SAMPLES.is_dir():
        pytest.skip("the real samples are not beside this checkout")
    return SAMPLES
