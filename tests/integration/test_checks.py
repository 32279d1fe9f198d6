"""What `check` finds of certificates, before anything is started."""

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
