"""An authority of the tests' own and certificates by it, made by openssl in a temporary folder."""

import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

OPENSSL = "/usr/bin/openssl"


@dataclass(frozen=True)
class Certificate:
    """A certificate and its key, PEM."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority; two of them do not trust each other.

    Args:
        folder: where its files go; exists.
        name: tells its files from those of another one.
    """

    def __init__(self, folder: Path, name: str = "authority") -> None:
        if not shutil.which(OPENSSL):
            pytest.skip(f"{OPENSSL} is not installed (Debian package openssl)")
        self._folder = folder
        self._own = Certificate(folder / f"{name}.pem", folder / f"{name}.key")
        self._name = name
        self._openssl(
            "req", "-x509", "-newkey", "rsa:2048", "-noenc", "-days", "2", "-subj", f"/CN={name}",
            "-keyout", self._own.key, "-out", self._own.certificate,
        )  # fmt: skip

    @property
    def certificate(self) -> Path:
        """What the other side must trust."""
        return self._own.certificate

    def issue(self, name: str, host: str = "IP:127.0.0.1", days: int = 2) -> Certificate:
        """A certificate for a peer at *host* (`IP:…` or `DNS:…`), good for either side of a connection.

        Args:
            name: of its files and its subject.
            host: whose it is.
            days: until it ends; below 0: it has ended.
        """
        made = Certificate(self._folder / f"{self._name}-{name}.pem", self._folder / f"{self._name}-{name}.key")
        request, extensions = made.certificate.with_suffix(".csr"), made.certificate.with_suffix(".ext")
        extensions.write_text(f"subjectAltName={host}\n")
        self._openssl(
            "req", "-newkey", "rsa:2048", "-noenc", "-subj", f"/CN={name}", "-keyout", made.key, "-out", request
        )
        self._openssl(
            "x509", "-req", "-in", request, "-CA", self._own.certificate, "-CAkey", self._own.key, "-CAcreateserial",
            "-days", str(days), "-extfile", extensions, "-out", made.certificate,
        )  # fmt: skip
        return made

    @staticmethod
    def _openssl(*arguments: str | Path) -> None:
        subprocess.run([OPENSSL, *map(str, arguments)], check=True, capture_output=True)
