"""Certificates and keys: read, checked, and made into what a port encrypts with.

Everything that is wrong is a fault of the setting that names the file. What only looks wrong (an
expired certificate, a key that others may read) is a warning: the balancer serves all the same.
"""

from __future__ import annotations

import ssl
import stat
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from cryptography import x509
from msgspec import Struct

from balancer.config_file.faults import DEFAULT, Fault, FaultyConfiguration, Origin
from balancer.config_file.files import read_bounded
from balancer.settings import PortName, Settings

_PROTOCOLS = ["http/1.1"]
_KEY_REMEDY = "name the key that belongs to the certificate, in PEM"
_SOON_S = 7 * 86_400


class Encryption(Struct, frozen=True, kw_only=True):
    """What connections of the ports that are encrypted are made with from now on."""

    contexts: Mapping[PortName, ssl.SSLContext] = {}
    ends_s: float | None = None
    """When the certificate ends, in unix seconds; None: there is none, or it does not say so in a
    way that we read."""
    warnings: tuple[str, ...] = ()
    digest: bytes = b""
    """Of all that it was made of: another one has other certificates or keys."""

    @property
    def facts(self) -> dict[str, Any]:
        """For the log."""
        ends = None if self.ends_s is None else _day(datetime.fromtimestamp(self.ends_s, UTC))
        return {"ports": list(self.contexts), "certificate_ends": ends}


NO_ENCRYPTION = Encryption()


class _Wrong(Exception):
    """A file cannot be used."""

    def __init__(self, field: str, problem: str, remedy: str) -> None:
        super().__init__(problem)
        self.field = field
        self.problem = problem
        self.remedy = remedy


def files_of(settings: Settings) -> Iterator[Path]:
    """Which files encryption is made of: when one of them changes, it has to be made anew."""
    if settings.tls_certificate:
        for name in (
            settings.tls_certificate,
            settings.tls_key,
            settings.tls_key_password_file,
            settings.tls_client_ca,
        ):
            if name:
                yield Path(name)


def encryption(settings: Settings, origins: Mapping[str, Origin], *, unix_s: float) -> Encryption:
    """As the settings say. Reads files. Raises `FaultyConfiguration`."""
    if not settings.tls_certificate:
        return NO_ENCRYPTION
    try:
        return _made(settings, unix_s)
    except _Wrong as wrong:
        origin = origins.get(wrong.field, DEFAULT)
        fault = Fault(field=wrong.field, problem=wrong.problem, origin=origin, remedy=wrong.remedy)
        raise FaultyConfiguration([fault]) from wrong


def _made(settings: Settings, unix_s: float) -> Encryption:
    certificate = _content(settings.tls_certificate, "tls_certificate")
    key = _content(settings.tls_key, "tls_key") if settings.tls_key else ""
    client_ca = ""
    if settings.tls_client_ca:
        client_ca = _content(settings.tls_client_ca, "tls_client_ca")
    password = _password(settings)
    contexts: dict[PortName, ssl.SSLContext] = {}
    for port in settings.encrypted_ports:
        contexts[port] = context = _context(settings, password)
        if client_ca and port == settings.agents_port:
            _ask_for_certificates(context, client_ca)
    leaf = _leaf(certificate)
    return Encryption(
        contexts=contexts,
        ends_s=None if leaf is None else leaf.not_valid_after_utc.timestamp(),
        digest=sha256("\0".join((certificate, key, client_ca)).encode()).digest(),
        warnings=tuple(_warnings(settings, leaf, unix_s)),
    )


def _content(name: str, field: str) -> str:
    try:
        return read_bounded(Path(name), "file").decode()
    except FaultyConfiguration as error:
        fault = error.faults[0]
        raise _Wrong(field, f"{name}: {fault.problem}", fault.remedy) from error
    except UnicodeDecodeError as error:
        raise _Wrong(field, f"{name} is not PEM", "convert it with `openssl x509`") from error


def _password(settings: Settings) -> str:
    if not settings.tls_key_password_file:
        return settings.tls_key_password.reveal()
    return _content(settings.tls_key_password_file, "tls_key_password_file").rstrip("\r\n")


def _context(settings: Settings, password: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    context.set_alpn_protocols(_PROTOCOLS)
    key_file = _key_file(settings)
    was_asked = False

    def told_password() -> str:
        """OpenSSL asks the terminal where nobody else answers."""
        nonlocal was_asked
        was_asked = True
        if not password:
            remedy = "set tls_key_password or tls_key_password_file"
            raise _Wrong("tls_key", f"{key_file} is encrypted", remedy)
        return password

    try:
        context.load_cert_chain(settings.tls_certificate, key_file, told_password)
    except (OSError, ValueError) as error:
        if was_asked:
            field = "tls_key_password" + "_file" * bool(settings.tls_key_password_file)
            problem = f"{key_file} cannot be decrypted with it"
            raise _Wrong(field, problem, "set the key's own password") from error
        raise _of_chain(error, settings) from error
    return context


def _key_file(settings: Settings) -> str:
    return settings.tls_key or settings.tls_certificate


def _of_chain(error: Exception, settings: Settings) -> _Wrong:
    """OpenSSL hardly says which of the two files is wrong."""
    certificate_file, key_file = settings.tls_certificate, settings.tls_key
    if getattr(error, "reason", None) == "KEY_VALUES_MISMATCH" and key_file:
        problem = f"{key_file} does not belong to the certificate in {certificate_file}"
        return _Wrong("tls_key", problem, _KEY_REMEDY)
    try:
        x509.load_pem_x509_certificate(Path(certificate_file).read_bytes())
    except (ValueError, OSError):
        remedy = "name a PEM file with the certificate first, then those between it and its CA"
        return _Wrong("tls_certificate", f"there is no certificate in {certificate_file}", remedy)
    if not key_file:
        problem = f"there is no key in {certificate_file} that belongs to the certificate"
        return _Wrong("tls_certificate", problem, "set tls_key to the file that has it")
    return _Wrong("tls_key", f"there is no key in {key_file} that can be used", _KEY_REMEDY)


def _ask_for_certificates(context: ssl.SSLContext, client_ca: str) -> None:
    """Browsers and programs may come without; agents may not (`management/agent_socket`)."""
    try:
        context.load_verify_locations(cadata=client_ca)
    except (ssl.SSLError, ValueError) as error:
        remedy = "name a PEM file with the certificates of those who sign the agents' ones"
        raise _Wrong("tls_client_ca", "there is no certificate in it", remedy) from error
    context.verify_mode = ssl.CERT_OPTIONAL


def _leaf(certificate: str) -> x509.Certificate | None:
    """The certificate itself; None where OpenSSL takes what the stricter reader does not."""
    try:
        return x509.load_pem_x509_certificate(certificate.encode())
    except ValueError:
        return None


def _warnings(settings: Settings, leaf: x509.Certificate | None, unix_s: float) -> Iterator[str]:
    if leaf is not None:
        file = settings.tls_certificate
        ends, begins = leaf.not_valid_after_utc, leaf.not_valid_before_utc
        if ends.timestamp() <= unix_s:
            yield f"tls_certificate: {file} expired on {_day(ends)}; renew it"
        elif ends.timestamp() < unix_s + _SOON_S:
            yield f"tls_certificate: {file} expires on {_day(ends)}; renew it"
        elif begins.timestamp() > unix_s:
            yield f"tls_certificate: {file} is not valid before {_day(begins)}"
    key_file = _key_file(settings)
    if Path(key_file).stat().st_mode & stat.S_IROTH:
        yield f"tls_key: everybody on this machine may read {key_file}; `chmod o= {key_file}`"


def _day(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%d %H:%M UTC")
