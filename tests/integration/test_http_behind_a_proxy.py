"""Behind proxies: whose address is limited and let in, and what TLS in front of us changes."""

from __future__ import annotations

import asyncio

from balancer.access import Limits, LimitTable
from tests.support.fake_agent import FakeAgent
from tests.support.keys import ADMIN, auth, bearer, credential
from tests.support.running_balancer import RunningBalancer, running_balancer

LOOPBACK = ("127.0.0.0/8",)
BODY = {"messages": [{"role": "user", "content": "hi"}]}


async def _ask(balancer: RunningBalancer, address: str, key: str = "roaming") -> int:
    headers = {**bearer(key), "X-Forwarded-For": address}
    return (await balancer.post("/v1/chat/completions", BODY, headers)).status


async def test_limits_and_networks_are_of_the_client_that_a_trusted_proxy_names() -> None:
    keys = auth(credential("roaming"), credential("at-home", networks=("192.0.2.0/24",)))
    limits = LimitTable(classes={}, address=Limits(requests_per_minute=1))
    async with (
        running_balancer(auth=keys, limits=limits, trusted_proxies=LOOPBACK) as balancer,
        FakeAgent(balancer.management_port, token="system-key"),
    ):
        assert await _ask(balancer, "192.0.2.1") == 200
        assert await _ask(balancer, "192.0.2.1") == 429
        assert await _ask(balancer, "6.6.6.6, 192.0.2.1") == 429
        assert await _ask(balancer, "192.0.2.2", "at-home") == 200
        assert await _ask(balancer, "198.51.100.1", "at-home") == 401
        assert await _ask(balancer, "192.0.2.3, 198.51.100.2", "at-home") == 401


async def test_of_a_proxy_that_is_not_trusted_its_own_address_counts() -> None:
    keys = auth(credential("roaming"))
    limits = LimitTable(classes={}, address=Limits(requests_per_minute=2))
    async with (
        running_balancer(auth=keys, limits=limits) as balancer,
        FakeAgent(balancer.management_port, token="system-key"),  # the address's first request
    ):
        assert await _ask(balancer, "192.0.2.1") == 200
        assert await _ask(balancer, "192.0.2.2") == 429


async def test_what_is_no_http_is_told_so_also_to_a_trusted_proxy() -> None:
    async with running_balancer(trusted_proxies=LOOPBACK) as balancer:
        reader, writer = await asyncio.open_connection("127.0.0.1", balancer.inference_port)
        writer.write(b"X-Forwarded-For: 192.0.2.1\r\n\r\n")
        assert (await reader.readline()).startswith(b"HTTP/1.0 400 ")
        writer.close()


async def test_while_nobody_signs_in_a_proxy_is_refused_however_trusted() -> None:
    async with running_balancer(trusted_proxies=LOOPBACK) as balancer:
        told = {"X-Forwarded-For": "127.0.0.1"}
        answer = await balancer.post("/v1/chat/completions", BODY, told)
        assert answer.status == 403
        assert "--insecure" in answer.error["message"]


async def test_a_session_behind_tls_has_a_cookie_for_tls_alone() -> None:
    async with running_balancer(auth=auth(), trusted_proxies=LOOPBACK) as balancer:
        for protocol, is_secure in (("https", True), ("http", False)):
            async with balancer.session.post(
                balancer.management_url + "/session",
                json={"key": ADMIN},
                headers={"X-Forwarded-Proto": protocol},
            ) as opened:
                assert opened.status == 201
                assert ("Secure" in opened.headers["Set-Cookie"]) is is_secure


async def test_behind_tls_a_page_without_tls_is_a_foreign_one() -> None:
    async with running_balancer(auth=auth(), trusted_proxies=LOOPBACK) as balancer:
        host = f"127.0.0.1:{balancer.management_port}"
        for scheme, status in (("https", 201), ("http", 403)):
            async with balancer.session.post(
                balancer.management_url + "/session",
                json={"key": ADMIN},
                headers={"X-Forwarded-Proto": "https", "Origin": f"{scheme}://{host}"},
            ) as opened:
                assert opened.status == status
