"""Whose certificates a server may show: an option of every program that talks to one."""

from __future__ import annotations

import ssl

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
