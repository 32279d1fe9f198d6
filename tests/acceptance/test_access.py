"""Who may call, seen from outside: the daemon on every address of the machine."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from peers import DaemonProcess, accepts_tcp, free_port, write_config
from pynetdicom import AE
from pynetdicom.sop_class import Verification

EVERYWHERE = {"PACS_AGENT__LISTENER__HOST": "0.0.0.0"}


@pytest.fixture(scope="module")
def daemon(tmp_path_factory: pytest.TempPathFactory) -> Iterator[DaemonProcess]:
    """A daemon that serves a network, to two callers at one address and to a third from one network."""
    callers = ["TESTS@127.0.0.1", "XR1@127.0.0.1", "XR2@192.0.2.0/24"]
    allowed = {"PACS_AGENT__LISTENER__ALLOWED_CALLING_AE_TITLES": json.dumps(callers)}
    port = free_port()
    config = write_config(tmp_path_factory.mktemp("access"), port)
    running = DaemonProcess(config, port, environment=EVERYWHERE | allowed)
    running.start()
    yield running
    running.stop()


def is_served(port: int, calling: str, source: str) -> bool:
    """Whether this AE title is answered when it calls from this address."""
    ae = AE(ae_title=calling)
    ae.add_requested_context(Verification)
    assoc = ae.associate("127.0.0.1", port, ae_title="PACS_AGENT", bind_address=(source, 0))
    if not assoc.is_established:
        return False
    status = assoc.send_c_echo().get("Status")
    assoc.release()
    return status == 0


@pytest.mark.parametrize(
    ("calling", "source", "served"),
    [
        ("XR1", "127.0.0.1", True),
        ("XR1", "127.0.0.2", False),
        ("XR2", "127.0.0.1", False),
        ("XR3", "127.0.0.1", False),
    ],
)
def test_a_caller_is_its_title_and_its_address(daemon: DaemonProcess, calling: str, source: str, served: bool) -> None:
    """Both must be on the list together."""
    assert is_served(daemon.port, calling, source) is served


def test_serve_refuses_a_network_to_any_caller(tmp_path: Path) -> None:
    """One line that names the settings, exit 2; no port, no data directory."""
    port = free_port()
    daemon = DaemonProcess(write_config(tmp_path, port), port, environment=EVERYWHERE)
    daemon.launch()
    assert daemon.process is not None
    assert daemon.process.wait(60) == 2
    [line] = daemon.log_path.read_text().splitlines()
    for word in ("listener", "0.0.0.0", "allowed_calling_ae_titles", "allow_any"):
        assert word in line
    assert not accepts_tcp(port)
    assert not (tmp_path / "data").exists()
