"""Fixtures for every test: Orthanc as the PACS, the real samples."""

import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import pytest
from peers import ORTHANC, SAMPLES, Orthanc, answers_echo, free_port, wait_for

# A slow machine is no failure: no test asserts a time.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")


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
    folder = tmp_path_factory.mktemp("orthanc")
    peer = Orthanc(free_port(), free_port())
    settings = {
        "Name": "PACS of the tests",
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "storage"),
        "Plugins": [],
        "HttpPort": peer.http_port,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAet": peer.ae_title,
        "DicomPort": peer.dicom_port,
        "DicomAlwaysAllowStore": True,
        "DicomAlwaysAllowEcho": True,
    }
    (folder / "orthanc.json").write_text(json.dumps(settings))
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen([ORTHANC, str(folder / "orthanc.json")], stdout=log, stderr=log)
    try:
        wait_for(lambda: answers_echo(peer.dicom_port, peer.ae_title), what="Orthanc's C-ECHO")
        yield peer
    finally:
        process.terminate()
        process.wait(20)


@pytest.fixture
def samples() -> Path:
    """Real CR files and radiographs beside the checkout."""
    if not SAMPLES.is_dir():
        pytest.skip("the real samples are not beside this checkout")
    return SAMPLES
