"""Agents over `wss://`: whom they trust, what they say when they do not, what they must show."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from agent.balancer_link import BalancerLink
from agent.errors import RegistrationRefused
from agent.link_tls import LinkTls
from agent.settings import BalancerAddress
from tests.support.authority import EXPIRED, Authority
from tests.support.introduced import Introduced
from tests.support.running_balancer import RunningBalancer, eventually, running_balancer


@pytest.fixture
async def balancer(encrypted: dict[str, Any]) -> AsyncIterator[RunningBalancer]:
    async with running_balancer(**encrypted) as balancer:
        yield balancer


@pytest.fixture
def audit_log(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def _read(path: Path) -> str:
    return path.read_text()


def _link(balancer: RunningBalancer, **files: Path | None) -> BalancerLink:
    address = BalancerAddress("127.0.0.1", balancer.management_port, tls=LinkTls(**files))
    return BalancerLink(address, Introduced("gpu-1"))


async def _trouble(link: BalancerLink) -> str:
    """What the agent says while it goes on trying."""
    with structlog.testing.capture_logs() as logs:
        running = asyncio.create_task(link.run())
        await eventually(lambda: link.trouble, "it says what is wrong")
        running.cancel()
    (line, *_) = [one for one in logs if "trying again" in one["event"]]
    assert line["reason"] == link.trouble
    return link.trouble


async def test_an_agent_that_trusts_another_ca_says_so_and_goes_on_trying(
    balancer: RunningBalancer, stranger: Authority
) -> None:
    said = await _trouble(_link(balancer, ca_file=stranger.ca_file))
    assert "not taken" in said
    assert "--ca-file" in said
    await eventually(
        lambda: balancer.metric("paddler_tls_handshakes_failed_total") == 1, "it is counted"
    )


async def test_a_plain_agent_is_told_that_the_port_speaks_tls(balancer: RunningBalancer) -> None:
    address = BalancerAddress("127.0.0.1", balancer.management_port)
    assert "wss://" in await _trouble(BalancerLink(address, Introduced("gpu-1")))


async def test_an_agent_of_a_balancer_without_tls_is_told_so(authority: Authority) -> None:
    async with running_balancer() as balancer:
        said = await _trouble(_link(balancer, ca_file=authority.ca_file))
        assert "does not speak TLS" in said


@pytest.mark.parametrize("what", ["expired", "of another host"])
async def test_an_agent_does_not_take_a_certificate_that_is(
    authority: Authority, what: str
) -> None:
    hosts = ("elsewhere.example",) if what == "of another host" else ()
    ends = EXPIRED if what == "expired" else None
    certificate, key = authority.issue("unfit", *hosts, ends=ends)
    async with running_balancer(
        tls_certificate=str(certificate), tls_key=str(key), tls_ports="management"
    ) as balancer:
        said = await _trouble(_link(balancer, ca_file=authority.ca_file))
        assert ("expired" if what == "expired" else "not valid for '127.0.0.1'") in said


@pytest.mark.parametrize(
    ("shows", "by_name", "said"),
    [
        ("gpu-1", True, ""),
        ("gpu-1", False, ""),
        ("gpu-2", False, ""),
        ("gpu-2", True, "is for gpu-2, gpu.example, and it is called 'gpu-1'"),
        (None, False, "--client-certificate"),
        ("stranger", False, "tls_client_ca"),
    ],
)
async def test_agents_may_have_to_show_a_certificate_of_their_own(
    encrypted: dict[str, Any],
    authority: Authority,
    stranger: Authority,
    audit_log: Path,
    shows: str | None,
    by_name: bool,
    said: str,
) -> None:
    files: dict[str, Path] = {"ca_file": authority.ca_file}
    if shows is not None:
        issuer = stranger if shows == "stranger" else authority
        certificate, key = issuer.issue(shows, "gpu.example", common_name=shows)
        files |= {"client_certificate": certificate, "client_key": key}
    async with running_balancer(
        tls_client_ca=str(authority.ca_file),
        tls_agents_by_name=by_name,
        audit_log=str(audit_log),
        **encrypted,
    ) as balancer:
        agent = Introduced("gpu-1")
        address = BalancerAddress("127.0.0.1", balancer.management_port, tls=LinkTls(**files))
        link = BalancerLink(address, agent)
        running = asyncio.create_task(link.run())
        await eventually(
            lambda: agent.is_welcome.is_set() or link.trouble or running.done(), "it is decided"
        )
        is_in = agent.is_welcome.is_set()
        running.cancel()
        (ended,) = await asyncio.gather(running, return_exceptions=True)
        assert is_in == (said == "")
        told = str(ended) if isinstance(ended, RegistrationRefused) else link.trouble
        assert said in told
        # operators come without
        assert (await balancer.get_json(f"{balancer.management_url}/agents")) is not None
    written = _read(audit_log)
    assert ("agent.join" in written) == is_in
    assert ("agent.refused" in written) == (not is_in and shows != "stranger")
