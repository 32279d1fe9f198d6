"""A daemon as a user starts it."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import DaemonProcess, Orthanc, free_port, write_config


@pytest.fixture
def daemon(tmp_path: Path, orthanc: Orthanc) -> Iterator[DaemonProcess]:
    """A daemon with Orthanc as its PACS."""
    port = free_port()
    running = DaemonProcess(write_config(tmp_path, port, orthanc), port)
    running.start()
    yield running
    if running.process and running.process.poll() is None:
        running.kill_all()
