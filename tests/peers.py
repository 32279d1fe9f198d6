"""Real peers for the tests: Orthanc as the PACS, the daemon as a process, DCMTK by full path."""

import io
import json
import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from pydicom import dcmread
from pynetdicom import AE
from pynetdicom.sop_class import Verification

from pacs_agent.record.reading import query

ORTHANC = "/usr/sbin/Orthanc"
# Waiting for a port to open makes it log every refusal as an error.
logging.getLogger("pynetdicom").setLevel(logging.CRITICAL)

SAMPLES = Path(__file__).parents[2] / "shared" / "samples"


def free_port() -> int:
    """A port that nobody listens on, below those that the kernel gives to connections meanwhile."""
    first_given = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    while True:
        port = random.SystemRandom().randrange(10_000, max(first_given, 20_000))
        with socket.socket() as probe, suppress(OSError):  # in use
            probe.bind(("127.0.0.1", port))
            return port


def wait_for(condition: Callable[[], Any], timeout_s: float = 60.0, what: str = "condition") -> Any:
    """The first true value of *condition*; fails after a bound."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.05)
    pytest.fail(f"{what} did not come true within {timeout_s:g} s")


def accepts_tcp(port: int) -> bool:
    """Whether anybody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def answers_echo(port: int, called: str) -> bool:
    """Whether an SCP answers C-ECHO."""
    ae = AE(ae_title="TESTS")
    ae.add_requested_context(Verification)
    ae.connection_timeout = ae.acse_timeout = ae.dimse_timeout = 2
    assoc = ae.associate("127.0.0.1", port, ae_title=called)
    if not assoc.is_established:
        return False
    status = assoc.send_c_echo().get("Status")
    assoc.release()
    return status == 0


@dataclass
class Orthanc:
    """A running Orthanc."""

    dicom_port: int
    http_port: int
    ae_title: str = "ORTHANC"

    def get(self, path: str) -> Any:
        """GET of its REST API, JSON decoded."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=10) as answer:
            return json.load(answer)

    def send(self, method: str, path: str, body: Any = None) -> None:
        """PUT, POST or DELETE of its REST API."""
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.http_port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
        )
        urllib.request.urlopen(request, timeout=10).close()

    def file(self, instance: str) -> bytes:
        """The Part 10 file of an instance."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}/instances/{instance}/file", timeout=10) as file:
            return bytes(file.read())

    def instances(self, modality: str = "SR") -> list[str]:
        """Orthanc's identifiers of the instances of a modality."""
        return [
            instance
            for series in self.get("/series?expand")
            if series["MainDicomTags"].get("Modality") == modality
            for instance in series["Instances"]
        ]


@contextmanager
def running_orthanc(folder: Path) -> Iterator[Orthanc]:
    """A fresh Orthanc on free ports, its settings and storage in *folder*."""
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


@dataclass
class DaemonProcess:
    """`pacs-agent serve` as a process of its own."""

    config: Path
    port: int
    process: subprocess.Popen[bytes] | None = None
    arguments: tuple[str, ...] = ()
    umask: int = -1  # the test's own
    environment: dict[str, str] = field(default_factory=dict)  # beside the test's own

    @property
    def log_path(self) -> Path:
        """What it wrote on stderr, all runs together."""
        return self.config.with_suffix(".log")

    def start(self) -> None:
        """Start it and wait until it answers C-ECHO."""
        self.launch()
        wait_for(self._is_ready, 90, "the daemon's C-ECHO")

    def launch(self, **environment: str) -> None:
        """Start it and wait for nothing."""
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "pacs_agent", "serve", "--config", str(self.config), *self.arguments],
                stdout=log,
                stderr=log,
                umask=self.umask,
                start_new_session=True,
                env=os.environ | self.environment | environment,
            )

    def _is_ready(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log_path.read_text()
        return answers_echo(self.port, "PACS_AGENT")

    def kill_all(self) -> None:
        """SIGKILL to every process of the daemon, as a power cut would."""
        assert self.process is not None
        os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)

    def stop(self) -> int:
        """SIGTERM; its exit code."""
        assert self.process is not None
        if self.process.poll() is None:
            self.process.terminate()
        return self.process.wait(60)

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """One of the other commands on the same settings."""
        return subprocess.run(
            [sys.executable, "-m", "pacs_agent", *arguments, "--config", str(self.config)],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    def sql(self, statement: str) -> list[dict[str, Any]]:
        """Rows of its database, read as `pacs-agent sql` reads them."""
        return query(self.config.parent / "data" / "pacs-agent.db", statement).records()


def write_config(folder: Path, port: int, orthanc: Orthanc | None = None, more: str = "") -> Path:
    """A settings file for a quick daemon in *folder*."""
    destination = ""
    if orthanc:
        destination = (
            f'[[destination]]\nname = "pacs"\nae_title = "{orthanc.ae_title}"\nhost = "127.0.0.1"\n'
            f"port = {orthanc.dicom_port}\nretry_seconds = 1\n"
        )
    config = folder / "pacs-agent.toml"
    config.write_text(
        f'[agent]\ndata_dir = "{folder / "data"}"\nmin_free_mb = 1\n[listener]\nport = {port}\n'
        f"[study]\nquiet_seconds = 1\n{more}\n{destination}"
    )
    return config


def data_set(encoded: bytes) -> bytes:
    """Of a Part 10 file what comes after the file meta information."""
    meta = dcmread(io.BytesIO(encoded), stop_before_pixels=True).file_meta
    return encoded[128 + 4 + 12 + meta.FileMetaInformationGroupLength :]


def dcmtk(name: str) -> str:
    """The full path of a DCMTK or dicom3tools program; pynetdicom's namesakes come first on a venv's PATH."""
    path = f"/usr/bin/{name}"
    if not shutil.which(path):
        pytest.skip(f"{path} is not installed (Debian packages dcmtk, dicom3tools)")
    return path
