"""Mutual TLS: who has a certificate of the authority is served, nobody else, and one warning says why."""

import socket
import ssl
import subprocess
import threading
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import trustme
from peers import dcmtk, wait_for
from pydicom.uid import ComputedRadiographyImageStorage
from pynetdicom import AE
from radiographs import cr
from structlog.testing import capture_logs

from pacs_agent.errors import SettingsError
from pacs_agent.receive.listener import server_tls
from pacs_agent.record.reading import query
from pacs_agent.record.store import Store
from pacs_agent.settings import Tls


class Certificates:
    """An authority, and files of certificates that it or another one made."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._ca = trustme.CA()
        self.ca = folder / "ca.pem"
        self._ca.cert_pem.write_to_path(self.ca)
        self.listener = self._files("listener", self._ca)
        self.sender = self._files("sender", self._ca)
        self.stranger = self._files("stranger", trustme.CA())
        self.expired = self._files("expired", self._ca, datetime.now(tz=UTC) - timedelta(days=1))

    def _files(self, name: str, ca: trustme.CA, until: datetime | None = None) -> Tls:
        made = ca.issue_cert("127.0.0.1", not_after=until)
        tls = Tls(certificate=self._folder / f"{name}.pem", key=self._folder / f"{name}.key", ca=self.ca)
        made.private_key_pem.write_to_path(tls.key)
        tls.certificate.write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
        return tls


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """The listener's, a good sender's, a stranger's and one of yesterday."""
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def listener(make_listener: Callable[..., Any], certificates: Certificates) -> Any:
    """A listener that speaks TLS only; two silent handshakes more than its association and it is full."""
    return make_listener(tls=certificates.listener, max_associations=1, max_pending_connections=2)


@pytest.fixture
def warned() -> Iterator[list[dict[str, Any]]]:
    """The warnings logged so far."""
    with capture_logs() as logs:
        yield logs


def client_context(certificates: Certificates, identity: Tls | None) -> ssl.SSLContext:
    """A client's side, with a certificate or without."""
    context = ssl.create_default_context(cafile=str(certificates.ca))
    if identity:
        context.load_cert_chain(identity.certificate, identity.key)
    return context


def is_refused(port: int, context: ssl.SSLContext) -> bool:
    """Whether the handshake fails; with TLS 1.3 a client learns of it at its first read."""
    with socket.create_connection(("127.0.0.1", port), timeout=20) as plain:
        try:
            with context.wrap_socket(plain, server_hostname="127.0.0.1") as secured:
                secured.settimeout(2)
                return secured.recv(1) == b""
        except TimeoutError:
            return False
        except OSError:
            return True


def handshake_failures(logs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What was said of handshakes."""
    return [line for line in logs if line["event"] == "TLS handshake failed"]


def test_sender_with_a_certificate_stores(listener: Any, certificates: Certificates, store: Store) -> None:
    """pynetdicom over mutual TLS: several instances of some size on one association are stored."""
    ae = AE(ae_title="XR1")
    ae.add_requested_context(ComputedRadiographyImageStorage)
    context = client_context(certificates, certificates.sender)
    assoc = ae.associate("127.0.0.1", listener.port, ae_title="PACS_AGENT", tls_args=(context, "127.0.0.1"))
    assert assoc.is_established
    assert [assoc.send_c_store(cr(seed=seed, side=512)).Status for seed in range(5)] == [0] * 5
    assoc.release()
    assert list(query(store.path, "SELECT count(*) FROM instance").rows) == [(5,)]


def storescu(listener: Any, path: Path, *tls: str | Path) -> int:
    """DCMTK's storescu of one instance; its exit code."""
    cr().save_as(path / "cr.dcm", enforce_file_format=True)
    command = [dcmtk("storescu"), *tls, "-aec", "PACS_AGENT", "127.0.0.1", str(listener.port), path / "cr.dcm"]
    return subprocess.run(command, check=False, timeout=30, capture_output=True).returncode


@pytest.mark.dcmtk
@pytest.mark.parametrize("profile", ["+py", "+px", "+pz"])
def test_dcmtk_stores_over_tls(
    listener: Any, certificates: Certificates, store: Store, tmp_path: Path, profile: str
) -> None:
    """DCMTK's storescu with each of its BCP 195 profiles is served."""
    sender = certificates.sender
    assert storescu(listener, tmp_path, "+tls", sender.key, sender.certificate, "+cf", certificates.ca, profile) == 0
    assert list(query(store.path, "SELECT count(*) FROM instance").rows) == [(1,)]


@pytest.mark.dcmtk
@pytest.mark.parametrize("who", ["plain", "anonymous", "stranger", "expired", "mistrustful"])
def test_dcmtk_without_trust_stores_nothing(
    listener: Any, certificates: Certificates, store: Store, tmp_path: Path, who: str
) -> None:
    """In clear, without a certificate, with another authority's or yesterday's; or itself not trusting ours."""
    trust: list[str | Path] = ["+cf", certificates.ca]
    identity = {"stranger": certificates.stranger, "expired": certificates.expired}.get(who, certificates.sender)
    tls: dict[str, list[str | Path]] = {
        "plain": [],
        "anonymous": ["+tla", *trust],
        "mistrustful": ["+tls", identity.key, identity.certificate],
    }
    assert storescu(listener, tmp_path, *tls.get(who, ["+tls", identity.key, identity.certificate, *trust])) != 0
    assert list(query(store.path, "SELECT count(*) FROM instance").rows) == [(0,)]
    sender = certificates.sender
    assert storescu(listener, tmp_path, "+tls", sender.key, sender.certificate, *trust) == 0


@pytest.mark.parametrize("who", ["nobody", "stranger", "expired"])
def test_client_without_a_certificate_of_ours_is_refused(
    listener: Any, certificates: Certificates, warned: list[dict[str, Any]], who: str
) -> None:
    """None, another authority's or yesterday's: the handshake fails, and one warning says so and from where."""
    identity = {"stranger": certificates.stranger, "expired": certificates.expired}.get(who)
    assert is_refused(listener.port, client_context(certificates, identity))
    wait_for(lambda: handshake_failures(warned), 10, "the warning")
    [line] = handshake_failures(warned)
    assert (line["log_level"], line["address"]) == ("warning", "127.0.0.1")
    assert "certificate" in line["reason"].lower()


def test_tls_1_1_is_refused(listener: Any, certificates: Certificates, warned: list[dict[str, Any]]) -> None:
    """A client that speaks nothing newer is refused for that; the same client with 1.2 is not. BCP 195"""
    for version, refused in ((ssl.TLSVersion.TLSv1_1, True), (ssl.TLSVersion.TLSv1_2, False)):
        context = client_context(certificates, certificates.sender)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of TLS 1.1, which is the point
            context.minimum_version = ssl.TLSVersion.TLSv1_1
            context.maximum_version = version
        context.set_ciphers("ALL:@SECLEVEL=0")  # else OpenSSL would not even ask for 1.1
        assert is_refused(listener.port, context) is refused
    wait_for(lambda: handshake_failures(warned), 10, "the warning")
    [line] = handshake_failures(warned)
    assert "protocol" in line["reason"].lower()


def test_silent_handshakes_give_way_to_a_sender(listener: Any, certificates: Certificates) -> None:
    """Clients that never begin their handshake are counted, and the oldest goes before a sender has to wait."""
    before = threading.active_count()
    silent = [socket.create_connection(("127.0.0.1", listener.port), timeout=20) for _ in range(6)]
    try:
        assert not is_refused(listener.port, client_context(certificates, certificates.sender))
        assert silent[0].recv(1) == b""
        assert len(listener._server.newcomers) <= 3
    finally:
        for each in silent:
            each.close()
    wait_for(lambda: threading.active_count() <= before, 20, "the end of their threads")


def test_stop_ends_handshakes(listener: Any) -> None:
    """Who has not shaken hands yet is hung up and does not become an association after it."""
    before = threading.active_count()
    with socket.create_connection(("127.0.0.1", listener.port), timeout=20) as silent:
        wait_for(lambda: listener._server.newcomers, 10, "the connection")
        listener.stop(0)
        assert silent.recv(1) == b""
    wait_for(lambda: threading.active_count() < before, 20, "the end of its thread")


@pytest.mark.parametrize("name", ["certificate", "key", "ca"])
@pytest.mark.parametrize("content", [None, b"not PEM"], ids=["missing", "spoilt"])
def test_file_that_cannot_be_used_is_named(
    certificates: Certificates, tmp_path: Path, name: str, content: bytes | None
) -> None:
    """One line with the setting and the file."""
    path = tmp_path / "file.pem"
    if content:
        path.write_bytes(content)
    with pytest.raises(SettingsError, match=rf"^listener\.tls: .*{path}.*$"):
        server_tls(certificates.listener.model_copy(update={name: path}))


def test_listener_that_lacks_its_certificate_opens_no_port(
    make_listener: Callable[..., Any], certificates: Certificates
) -> None:
    """It is the setting's fault, not the port's."""
    missing = certificates.listener.model_copy(update={"certificate": Path("missing.pem")})
    with pytest.raises(SettingsError, match=r"missing\.pem: No such file"):
        make_listener(tls=missing)
