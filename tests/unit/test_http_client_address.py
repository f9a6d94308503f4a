"""Whom a request comes from: the peer, unless proxies that are trusted say more."""

from __future__ import annotations

from typing import Any
from unittest.mock import Mock

import pytest
from multidict import CIMultiDict, CIMultiDictProxy

from balancer.http.client_address import Client, ClientAddresses
from balancer.settings import LiveSettings, Settings

PROXIES = ("10.0.0.0/8", "2001:db8::/32", "127.0.0.1/32")
FORWARDED = "X-Forwarded-For"


def _client(
    peer: str | None, *headers: tuple[str, str], proxies: tuple[str, ...] = PROXIES
) -> Client:
    clients = ClientAddresses(LiveSettings(Settings(trusted_proxies=proxies)))
    return clients.client_of(_request(peer, *headers))


def _request(peer: str | None, *headers: tuple[str, str], secure: bool = False) -> Any:
    request = Mock(spec_set=["headers", "remote", "secure"])
    request.headers = CIMultiDictProxy(CIMultiDict(headers))
    request.remote, request.secure = peer, secure
    return request


@pytest.mark.parametrize("peer", ["192.0.2.1", "fe80::1%eth0", ""])
def test_a_peer_that_is_no_trusted_proxy_speaks_for_itself(peer: str) -> None:
    told = ((FORWARDED, "198.51.100.9"), ("X-Forwarded-Proto", "https"))
    assert _client(peer, *told) == Client(peer, is_proxied=True, is_secure=False)
    assert _client(peer) == Client(peer, is_proxied=False, is_secure=False)


def test_without_trusted_proxies_nobody_s_word_counts() -> None:
    assert _client("127.0.0.1", (FORWARDED, "192.0.2.1"), proxies=()).address == "127.0.0.1"
    assert _client(None, (FORWARDED, "192.0.2.1")).address == ""


@pytest.mark.parametrize(
    ("named", "address"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("192.0.2.1:5123", "192.0.2.1"),
        ("[2001:dead::1]:443", "2001:dead::1"),
        ("[2001:dead::1]", "2001:dead::1"),
        ("2001:DEAD:0::1", "2001:dead::1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("6.6.6.6, 192.0.2.1", "192.0.2.1"),
        ("6.6.6.6, 192.0.2.1, 10.1.1.1,2001:db8::7", "192.0.2.1"),
        ("6.6.6.6, 192.0.2.1, ::ffff:10.1.1.1", "192.0.2.1"),
        ("10.0.0.3, 10.0.0.4", "10.0.0.3"),
    ],
)
def test_the_client_is_the_first_from_the_right_that_is_not_trusted(
    named: str, address: str
) -> None:
    assert _client("10.0.0.5", (FORWARDED, named)).address == address


@pytest.mark.parametrize(
    "nonsense",
    [
        "",
        "unknown",
        "_hidden",
        "192.0.2.1:",
        "192.0.2.1:x",
        "192.0.2.1:123456",
        "192.0.2.1:\N{ARABIC-INDIC DIGIT ONE}",
        "192.0.2.999",
        "[192.0.2.1",
        "[2001:dead::1]x",
        "[2001:dead::1]80",
        "fe80::1%eth0",
        "192.0.2.1 10.0.0.1",
        "9" * 10_000,
        "::1:" * 1000,
    ],
)
def test_what_is_no_address_ends_the_chain_at_the_proxy_that_wrote_it(nonsense: str) -> None:
    assert _client("10.0.0.5", (FORWARDED, nonsense)).address == "10.0.0.5"
    chain = f"192.0.2.1, {nonsense}, 10.0.0.9"
    assert _client("10.0.0.5", (FORWARDED, chain)).address == "10.0.0.9"


def test_several_headers_are_one_list_in_their_order() -> None:
    headers = ((FORWARDED, "6.6.6.6"), ("x-forwarded-for", "192.0.2.1, 10.0.0.8"))
    assert _client("10.0.0.5", *headers).address == "192.0.2.1"


def test_a_chain_without_end_is_followed_for_a_while() -> None:
    longest = ", ".join(f"10.0.{number}.1" for number in range(200))
    assert _client("10.0.0.5", (FORWARDED, longest)).address == "10.0.184.1"
    headers = [(FORWARDED, "10.0.0.1")] * 200
    assert _client("10.0.0.5", (FORWARDED, "192.0.2.1"), *headers).address == "10.0.0.1"


@pytest.mark.parametrize(
    ("told", "is_secure"),
    [
        (["https"], True),
        (["WSS"], True),
        (["http"], False),
        (["https, http"], False),
        (["http", "https"], True),
        ([""], False),
        ([], False),
    ],
)
def test_a_trusted_proxy_tells_whether_its_client_used_tls(
    told: list[str], is_secure: bool
) -> None:
    headers = [("X-Forwarded-Proto", value) for value in told]
    assert _client("10.0.0.5", *headers).is_secure is is_secure


def test_tls_up_to_here_is_seen_without_anybody_s_word() -> None:
    clients = ClientAddresses(LiveSettings(Settings(trusted_proxies=PROXIES)))
    for peer in ("192.0.2.1", "10.0.0.5"):
        assert clients.client_of(_request(peer, secure=True)).is_secure


@pytest.mark.parametrize(
    "name",
    [
        *("Forwarded", "Via", "X-Forwarded-Host", "x-forwarded-for"),
        *("X-Real-IP", "X-Client-IP", "CF-Connecting-IP", "True-Client-IP"),
    ],
)
def test_whoever_says_so_is_a_proxy_trusted_or_not(name: str) -> None:
    assert _client("192.0.2.1", (name, "x")).is_proxied
    assert _client("10.0.0.5", (name, "x")).is_proxied
    assert not _client("10.0.0.5").is_proxied


def test_trust_follows_the_settings() -> None:
    live = LiveSettings(Settings())
    clients = ClientAddresses(live)
    request = _request("127.0.0.1", (FORWARDED, "192.0.2.1"))
    assert clients.client_of(request).address == "127.0.0.1"
    live.replace(Settings(trusted_proxies=("127.0.0.0/8",)))
    assert clients.client_of(request).address == "192.0.2.1"
    live.replace(Settings())
    assert clients.client_of(request).address == "127.0.0.1"
