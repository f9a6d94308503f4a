"""Certificates and keys: what can be used, what is wrong of one, and what is only told."""

from __future__ import annotations

import shutil
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from balancer.config_file.configuration import Configuration
from balancer.config_file.faults import FaultyConfiguration
from balancer.config_file.load import Loaded, Sources, load
from tests.support.authority import EXPIRED, Authority

PASSWORD = "correct horse"


@pytest.fixture(scope="session")
def issued(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory of certificates and keys, good ones and others."""
    directory = tmp_path_factory.mktemp("issued")
    authority = Authority(directory)
    certificate, key = authority.issue("good")
    authority.issue("other")
    authority.issue("expired", ends=EXPIRED)
    authority.issue("soon", ends=datetime.now(UTC) + timedelta(days=2))
    (directory / "both.pem").write_bytes(certificate.read_bytes() + key.read_bytes())
    (directory / "both.pem").chmod(0o640)
    (directory / "nothing.pem").write_text("no certificate\n")
    (directory / "binary.pem").write_bytes(ssl.PEM_cert_to_DER_cert(certificate.read_text()))
    authority.lock(key, "locked.key", password=PASSWORD)
    (directory / "password").write_text(f"{PASSWORD}\n")
    return directory


def loaded(issued: Path, tmp_path: Path, *lines: str) -> Loaded:
    """A file with these lines, in which `issued/` is the directory above."""
    file = tmp_path / "paddler.yaml"
    file.write_text("max_waiting: 1\n" + "\n".join(lines).replace("issued/", f"{issued}/"))
    return load(Sources(config=file))


@pytest.mark.parametrize(
    "lines",
    [
        ("tls_certificate: issued/good.pem", "tls_key: issued/good.key"),
        ("tls_certificate: issued/both.pem",),
        (
            "tls_certificate: issued/good.pem",
            "tls_key: issued/locked.key",
            f"tls_key_password: {PASSWORD}",
        ),
        (
            "tls_certificate: issued/good.pem",
            "tls_key: issued/locked.key",
            "tls_key_password_file: issued/password",
        ),
    ],
)
def test_a_certificate_and_its_key_encrypt_both_ports(
    issued: Path, tmp_path: Path, lines: tuple[str, ...]
) -> None:
    made = loaded(issued, tmp_path, *lines)
    assert set(made.encryption.contexts) == {"inference", "management"}
    for context in made.encryption.contexts.values():
        assert context.minimum_version is ssl.TLSVersion.TLSv1_2
        assert context.verify_mode is ssl.CERT_NONE
    assert made.encryption.ends_s is not None
    assert made.warnings == ()


@pytest.mark.parametrize(
    ("ports", "encrypted"),
    [
        ("single_port: true", {"inference"}),
        ("tls_ports: inference", {"inference"}),
        ("tls_ports: management", {"management"}),
    ],
)
def test_one_port_alone_may_be_encrypted(
    issued: Path, tmp_path: Path, ports: str, encrypted: set[str]
) -> None:
    made = loaded(issued, tmp_path, "tls_certificate: issued/both.pem", ports)
    assert set(made.encryption.contexts) == encrypted


def test_only_where_agents_connect_certificates_are_asked_for(issued: Path, tmp_path: Path) -> None:
    contexts = loaded(
        issued, tmp_path, "tls_certificate: issued/both.pem", "tls_client_ca: issued/ca.pem"
    ).encryption.contexts
    assert contexts["inference"].verify_mode is ssl.CERT_NONE
    assert contexts["management"].verify_mode is ssl.CERT_OPTIONAL


GOOD = ("tls_certificate: issued/good.pem", "tls_key: issued/good.key")
WRONG: dict[str, tuple[tuple[str, ...], int, str, str]] = {
    "a certificate that is not there": (
        ("tls_certificate: issued/no.pem",), 2, "tls_certificate", "No such file",
    ),
    "a key that is not there": (
        ("tls_certificate: issued/good.pem", "tls_key: issued/no.key"), 3, "tls_key", "No such",
    ),
    "a certificate without its key": (
        ("tls_certificate: issued/good.pem",), 2, "tls_certificate", "set tls_key",
    ),
    "another certificate's key": (
        ("tls_certificate: issued/good.pem", "tls_key: issued/other.key"),
        3, "tls_key", "does not belong to the certificate",
    ),
    "a key that is none": (
        ("tls_certificate: issued/good.pem", "tls_key: issued/nothing.pem"),
        3, "tls_key", "in PEM",
    ),
    "a certificate that is none": (
        ("tls_certificate: issued/nothing.pem", "tls_key: issued/good.key"),
        2, "tls_certificate", "there is no certificate",
    ),
    "a certificate in another form": (
        ("tls_certificate: issued/binary.pem", "tls_key: issued/good.key"),
        2, "tls_certificate", "is not PEM",
    ),
    "a locked key without a password": (
        ("tls_certificate: issued/good.pem", "tls_key: issued/locked.key"),
        3, "tls_key", "is encrypted",
    ),
    "a locked key with a wrong password": (
        ("tls_certificate: issued/good.pem", "tls_key: issued/locked.key",
         "tls_key_password: xyzzy"),
        4, "tls_key_password", "cannot be decrypted",
    ),
    "a password's file that is not there": (
        (*GOOD, "tls_key_password_file: issued/no"), 4, "tls_key_password_file", "No such file",
    ),
    "a CA that is none": (
        (*GOOD, "tls_client_ca: issued/nothing.pem"), 4, "tls_client_ca", "no certificate in it",
    ),
    "a CA where agents come without TLS": (
        (*GOOD, "tls_client_ca: issued/ca.pem", "tls_ports: inference"),
        4, "tls_client_ca", "does not speak TLS",
    ),
    "names of certificates that nobody is asked for": (
        (*GOOD, "tls_agents_by_name: true"), 4, "tls_agents_by_name", "set tls_client_ca",
    ),
    "a port of one": (
        (*GOOD, "single_port: true", "tls_ports: management"), 5, "tls_ports", "one port",
    ),
    "a key without a certificate": (
        ("tls_key: issued/good.key",), 2, "tls_key", "set tls_certificate, too",
    ),
    "a CA without a certificate": (
        ("tls_client_ca: issued/ca.pem",), 2, "tls_client_ca", "set tls_certificate, too",
    ),
}  # fmt: skip


@pytest.mark.parametrize(("lines", "line", "field", "said"), WRONG.values(), ids=list(WRONG))
def test_what_is_wrong_is_told_with_its_line_and_what_to_do(
    issued: Path, tmp_path: Path, lines: tuple[str, ...], line: int, field: str, said: str
) -> None:
    with pytest.raises(FaultyConfiguration) as caught:
        loaded(issued, tmp_path, *lines)
    (fault,) = caught.value.faults
    assert (fault.field, fault.origin.line) == (field, line)
    assert said in str(fault)
    assert "xyzzy" not in str(fault)


@pytest.mark.parametrize(
    ("name", "said"),
    [("expired", "expired on 2020-01-01 00:00 UTC"), ("soon", "expires on")],
)
def test_a_certificate_that_ends_is_used_and_told_of(
    issued: Path, tmp_path: Path, name: str, said: str
) -> None:
    made = loaded(
        issued, tmp_path, f"tls_certificate: issued/{name}.pem", f"tls_key: issued/{name}.key"
    )
    (warning,) = made.warnings
    assert said in warning
    assert "renew it" in warning


def test_a_key_that_everybody_may_read_is_told_of(issued: Path, tmp_path: Path) -> None:
    key = tmp_path / "open.key"
    shutil.copyfile(issued / "good.key", key)
    key.chmod(0o644)
    made = loaded(issued, tmp_path, "tls_certificate: issued/good.pem", f"tls_key: {key}")
    (warning,) = made.warnings
    assert f"chmod o= {key}" in warning


async def test_a_renewed_certificate_is_noticed_and_makes_new_connections_encrypt_with_it(
    issued: Path, tmp_path: Path
) -> None:
    for ending in ("pem", "key"):
        shutil.copyfile(issued / f"good.{ending}", tmp_path / f"tls.{ending}")
        (tmp_path / f"tls.{ending}").chmod(0o600)
    file = tmp_path / "paddler.yaml"
    file.write_text(f"tls_certificate: {tmp_path}/tls.pem\ntls_key: {tmp_path}/tls.key\n")
    configuration = Configuration(Sources(config=file))
    before = configuration.loaded.encryption
    assert not configuration.changed_files()
    assert (await configuration.reload("file")).message == "nothing has changed"

    shutil.copyfile(issued / "other.pem", tmp_path / "tls.pem")
    assert set(configuration.changed_files()) == {tmp_path / "tls.pem"}
    refused = await configuration.reload("file")
    assert [fault.field for fault in refused.faults] == ["tls_key"]
    assert configuration.loaded.encryption.digest == before.digest

    shutil.copyfile(issued / "other.key", tmp_path / "tls.key")
    renewed = await configuration.reload("file")
    assert renewed.succeeded
    assert (renewed.message, renewed.version) == ("changed: what TLS is made of", 2)
    assert configuration.loaded.encryption.digest != before.digest
