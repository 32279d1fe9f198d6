"""What `check` finds of certificates, before anything is started."""

import contextlib
import socketserver
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from certificates import Authority

from pacs_agent.cli.checks import Check, run_checks
from pacs_agent.settings import Agent, Destination, Listener, Settings, Tls


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    """A certificate, its key and its authority."""
    authority = Authority(tmp_path_factory.mktemp("certificates"))
    made = authority.issue("listener")
    return Tls(certificate=made.certificate, key=made.key, ca=authority.certificate)


def tls_checks(folder: Path, tls: Tls) -> list[Check]:
    """The lines on TLS of a site that has it on both sides; nobody answers at the destination."""
    target = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=9, timeout_seconds=1, tls=tls)
    settings = Settings(
        agent=Agent(data_dir=folder / "data"),
        listener=Listener(port=0, tls=tls),
        destination=(target,),
    )
    return [check for check in run_checks(settings, None) if check.what.endswith("TLS")]


@pytest.fixture
def port(tls: Tls) -> Iterator[int]:
    """Where somebody does TLS, with that certificate, and nothing else."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tls.certificate, tls.key)

    class Handshake(socketserver.BaseRequestHandler):
        def handle(self) -> None:
            with contextlib.suppress(OSError), context.wrap_socket(self.request, server_side=True) as secure:
                secure.recv(1)

    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handshake) as server:
        threading.Thread(target=server.serve_forever).start()
        yield server.server_address[1]
        server.shutdown()


def handshake(port: int, tls: Tls, folder: Path) -> Check:
    """What `check` says of it."""
    target = Destination(name="pacs", ae_title="PACS", host="127.0.0.1", port=port, timeout_seconds=1, tls=tls)
    settings = Settings(agent=Agent(data_dir=folder / "data"), listener=Listener(port=0), destination=(target,))
    [found] = [check for check in run_checks(settings, None) if check.what == "destination pacs: TLS handshake"]
    return found


def test_whom_our_authority_did_not_sign_is_named(tmp_path: Path, tls: Tls, port: int) -> None:
    """An association would only say that it cannot be reached."""
    assert handshake(port, tls, tmp_path).ok
    stranger = Authority(tmp_path, "stranger")
    found = handshake(port, tls.model_copy(update={"ca": stranger.certificate}), tmp_path)
    assert (found.ok, "its certificate: unable to get local issuer certificate" in found.detail) == (False, True)
    assert not handshake(9, tls, tmp_path).ok


def test_certificates_that_can_be_used(tmp_path: Path, tls: Tls) -> None:
    """Ours and those for each destination are loaded, and named."""
    checks = tls_checks(tmp_path, tls)
    assert [(check.what, check.ok) for check in checks] == [("listener: TLS", True), ("destination pacs: TLS", True)]
    assert all(str(tls.certificate) in check.detail for check in checks)


@pytest.mark.parametrize("name", ["certificate", "key", "ca"])
@pytest.mark.parametrize("content", [None, "not PEM"], ids=["missing", "spoilt"])
def test_file_that_cannot_be_used_fails(tmp_path: Path, tls: Tls, name: str, content: str | None) -> None:
    """A failed check for each side, one line that names the file."""
    path = tmp_path / "file.pem"
    if content:
        path.write_text(content)
    checks = tls_checks(tmp_path, tls.model_copy(update={name: path}))
    assert [check.ok for check in checks] == [False, False]
    assert all(str(path) in check.detail and "\n" not in check.detail for check in checks)
