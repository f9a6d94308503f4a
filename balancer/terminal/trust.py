"""Whose certificates a server may show: an option of every program that talks to one."""

from __future__ import annotations

import ssl

import aiohttp
import click

ca_file_option = click.option(
    "--ca-file",
    type=click.Path(),
    metavar="FILE",
    help="Who signed the certificate of an https:// server, in PEM (the system's CAs).",
)


def trust_of(ca_file: str | None) -> ssl.SSLContext:
    """What to connect with. Raises `ClickException` where the file cannot be used."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        reason = error.strerror or "there is no certificate in it"
        raise click.ClickException(f"--ca-file {ca_file}: {reason}; name a PEM file") from error


def trouble_of(error: BaseException) -> str:
    """Why there is no connection where TLS, or that there is none, is the reason, and what to do;
    empty: it is not."""
    match error:
        case aiohttp.ClientConnectorCertificateError(
            certificate_error=ssl.SSLCertVerificationError() as cause
        ):
            if cause.verify_code in _OTHER_NAME:
                remedy = "call it by a name that is in its certificate"
            else:
                remedy = "give the certificate of the CA that signed it: --ca-file FILE"
            return f"its certificate is not taken: {cause.verify_message.rstrip('.')}; {remedy}"
        case aiohttp.ClientConnectorSSLError():
            return "it does not speak TLS; write http:// in --url"
        case aiohttp.ServerDisconnectedError():
            return "it closed the connection; if it speaks TLS, write https:// in --url"
        case _:
            return ""


_OTHER_NAME = (62, 64)
"""OpenSSL's codes for a certificate of another name, and of another address."""
