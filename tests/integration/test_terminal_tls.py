"""What programs in a terminal say of a balancer that they cannot talk to by TLS, or without."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from balancer.terminal.doctor.client import CannotReach, Client
from balancer.terminal.top.feed import has_remedy, reason_of
from balancer.terminal.trust import trust_of
from tests.support.authority import Authority
from tests.support.running_balancer import running_balancer


async def told(url: str, ca_file: str | None = None) -> tuple[str, str]:
    """Why it cannot be asked, by `top` and by `doctor`."""
    trust = trust_of(ca_file)
    connector = aiohttp.TCPConnector(ssl=trust)
    async with aiohttp.ClientSession(connector=connector) as session:
        with pytest.raises(aiohttp.ClientError) as caught:
            await session.ws_connect(f"{url}/ws/control")
        assert has_remedy(caught.value)
        with pytest.raises(CannotReach) as unreached:
            await Client(session, url, trust=trust).get("/health")
    return reason_of(caught.value), str(unreached.value)


async def test_trouble_with_tls_is_told_with_its_remedy(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("balancer")
    async with running_balancer(
        tls_certificate=str(certificate), tls_key=str(key), trust=authority.trust()
    ) as balancer:
        url = balancer.management_url
        for words in await told(url):
            assert words.startswith("its certificate is not taken: ")
            assert words.endswith("--ca-file FILE")
        for words in await told(url.replace("https", "http")):
            assert words.endswith("write https:// in --url")
    async with running_balancer() as balancer:
        for words in await told(balancer.management_url.replace("http", "https")):
            assert words.endswith("write http:// in --url")


async def test_a_certificate_of_another_name_is_told_as_such(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    certificate, key = authority.issue("balancer", "balancer.example")
    async with running_balancer(tls_certificate=str(certificate), tls_key=str(key)) as balancer:
        for words in await told(balancer.management_url, str(authority.ca_file)):
            assert words.endswith("call it by a name that is in its certificate")
