"""A certificate authority for tests: certificates of balancers, agents, and of strangers."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization


class Authority:
    """One CA; what it issues lies in files of `directory`. `ca_file` has its own certificate."""

    def __init__(self, directory: Path) -> None:
        self._ca = trustme.CA()
        self._directory = directory
        self.ca_file = directory / "ca.pem"
        self._ca.cert_pem.write_to_path(self.ca_file)

    def issue(
        self, name: str, *hosts: str, ends: datetime | None = None, common_name: str | None = None
    ) -> tuple[Path, Path]:
        """The files of a certificate for these hosts (127.0.0.1 and localhost) and of its key."""
        issued = self._ca.issue_cert(
            *(hosts or ("127.0.0.1", "localhost")), not_after=ends, common_name=common_name
        )
        certificate, key = self._directory / f"{name}.pem", self._directory / f"{name}.key"
        certificate.write_bytes(b"".join(blob.bytes() for blob in issued.cert_chain_pems))
        key.touch(mode=0o600)
        key.write_bytes(issued.private_key_pem.bytes())
        return certificate, key

    def lock(self, key: Path, name: str, *, password: str) -> Path:
        """The file of the same key, encrypted."""
        private = serialization.load_pem_private_key(key.read_bytes(), None)
        locked = self._directory / name
        locked.touch(mode=0o600)
        locked.write_bytes(
            private.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.BestAvailableEncryption(password.encode()),
            )
        )
        return locked

    def trust(self, *, of: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """What a client that trusts this CA connects with; `of`: showing this certificate."""
        context = ssl.create_default_context(cafile=self.ca_file)
        if of is not None:
            context.load_cert_chain(*of)
        return context


EXPIRED = datetime(2020, 1, 1, tzinfo=UTC)
