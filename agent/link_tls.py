"""How the link to the balancer is encrypted: whom the agent trusts, what it shows of itself, and in
plain words what was wrong."""

from __future__ import annotations

import ssl
from pathlib import Path

from msgspec import Struct

from agent.errors import ConfigError

_EXPIRED = 10
_WRONG_NAMES = (62, 64)
"""X509_V_ERR_CERT_HAS_EXPIRED, …_HOSTNAME_MISMATCH, …_IP_ADDRESS_MISMATCH of OpenSSL's
x509_vfy.h."""
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "UNKNOWN_PROTOCOL", "HTTP_REQUEST")


class LinkTls(Struct, frozen=True, kw_only=True):
    """Files, all PEM. They are read at each dial, so that renewed ones are used."""

    ca_file: Path | None = None
    """Who may have signed the balancer's certificate; None: whom this machine trusts."""
    client_certificate: Path | None = None
    client_key: Path | None = None
    """None: it is in the certificate's file."""

    def context(self) -> ssl.SSLContext:
        """What to connect with. Raises `ConfigError` where a file cannot be used."""
        try:
            context = ssl.create_default_context(cafile=self.ca_file)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"--ca-file {self.ca_file} cannot be used ({_words(error)}); allowed: a PEM file "
                "with the certificate of the CA that signed the balancer's"
            ) from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        if self.client_certificate is not None:
            self._show(context, self.client_certificate)
        return context

    def _show(self, context: ssl.SSLContext, certificate: Path) -> None:
        def no_password() -> str:
            raise ConfigError(
                f"--client-key {self.client_key or certificate} is encrypted; allowed: a key that "
                "is not, readable for the agent's user alone"
            )

        try:
            context.load_cert_chain(certificate, self.client_key, no_password)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"--client-certificate {certificate} cannot be used with its key "
                f"({_words(error)}); allowed: PEM files that belong together"
            ) from error


def trouble_of(error: Exception, *, is_encrypted: bool) -> str:
    """Why a link did not come about, and where TLS is the reason, what to do."""
    cause = error if isinstance(error, ssl.SSLError) else error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        return _of_certificate(cause)
    if isinstance(cause, ssl.SSLError):
        reason = cause.reason or ""
        if reason in _NO_TLS:
            return (
                "the balancer's port does not speak TLS; write --balancer HOST:PORT without "
                "wss://, or have the balancer speak it (tls_certificate)"
            )
        if "ALERT" in reason:
            return (
                f"the balancer ended the handshake ({_words(cause)}); if it wants a client "
                "certificate, give one that its tls_client_ca has signed: --client-certificate, "
                "--client-key"
            )
    words = str(error) or type(error).__name__
    if isinstance(cause, EOFError):  # it closed the connection without a word
        words += (
            "; if it wants a client certificate, give one that its tls_client_ca has signed"
            if is_encrypted
            else "; if its port speaks TLS, write --balancer wss://HOST:PORT"
        )
    return words


def _of_certificate(error: ssl.SSLCertVerificationError) -> str:
    said = f"the balancer's certificate is not taken: {error.verify_message}"
    if error.verify_code == _EXPIRED:
        return f"{said}; renew it"
    if error.verify_code in _WRONG_NAMES:
        return f"{said}; dial a name that is in it, or issue one with this name"
    return f"{said}; give the certificate of the CA that signed it: --ca-file"


def _words(error: Exception) -> str:
    """OpenSSL's own, without its file and line."""
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None)
    return str(reason or error).lower().replace("_", " ")
