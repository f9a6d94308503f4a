"""Providers of identities on the wire: TLS, answers without end, connections that were closed."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID

from balancer.errors import ProviderFailed
from balancer.upstreams.jwks import KeySource
from balancer.upstreams.provider import ProviderClient
from tests.support.tokens import ec_signer, key_set

Serve = Callable[[asyncio.StreamWriter], Awaitable[None]]
SET = key_set(ec_signer().published())
HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"


@asynccontextmanager
async def serving(serve: Serve, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server's port; all its connections are closed in the end."""
    ended: list[asyncio.Event] = []

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ended.append(asyncio.Event())
        end = ended[-1]
        try:
            await reader.readuntil(b"\r\n\r\n")
            await serve(writer)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
            end.set()

    server = await asyncio.start_server(serve_one, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
        for one in ended:
            await one.wait()


@pytest.fixture
async def source() -> AsyncIterator[KeySource]:
    client = ProviderClient()
    yield KeySource(client, timeout_s=0.5)
    await client.close()


async def _answer_once(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD % len(SET) + SET)
    await writer.drain()


async def _say_no_end(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD % 1000)
    with suppress(ConnectionError):
        while not writer.is_closing():
            writer.write(b" ")
            await writer.drain()
            await asyncio.sleep(0.01)


async def _break_off(writer: asyncio.StreamWriter) -> None:
    writer.write(HEAD % len(SET) + SET[:20])
    await writer.drain()


async def test_a_connection_that_was_closed_meanwhile_is_opened_again(source: KeySource) -> None:
    async with serving(_answer_once) as port:
        for _ in range(3):
            (key,) = await source.fetch(f"http://127.0.0.1:{port}/keys")
            assert key.id == "ec-1"


@pytest.mark.parametrize(
    ("serve", "why"), [(_say_no_end, "within 0.5 s"), (_break_off, "could not be asked")]
)
async def test_an_answer_that_does_not_end_well_is_none(
    source: KeySource, serve: Serve, why: str
) -> None:
    async with serving(serve) as port:
        with pytest.raises(ProviderFailed, match=why):
            await source.fetch(f"http://127.0.0.1:{port}/keys")


async def test_nobody_is_no_provider(source: KeySource) -> None:
    async with serving(_answer_once) as port:
        pass
    with pytest.raises(ProviderFailed, match="could not be asked"):
        await source.fetch(f"http://127.0.0.1:{port}/keys")


async def test_a_certificate_that_nobody_vouches_for_is_refused(
    source: KeySource, tmp_path: Path
) -> None:
    async with serving(_answer_once, _self_signed(tmp_path)) as port:
        with pytest.raises(ProviderFailed, match="Certificate"):
            await source.fetch(f"https://127.0.0.1:{port}/keys")


def _self_signed(directory: Path) -> ssl.SSLContext:
    """For 127.0.0.1, by a key that everything else here is signed with, too."""
    key, name = ec_signer().key, x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "provider")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False
        )
        .sign(key, SHA256())
    )
    (directory / "provider.pem").write_bytes(certificate.public_bytes(Encoding.PEM))
    (directory / "provider.key").write_text(ec_signer().private_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / "provider.pem", directory / "provider.key")
    return context
