"""From where images may be fetched."""

from __future__ import annotations

import pytest
from yarl import URL

from balancer.upstreams.image_hosts import ImageHosts

HOSTS = ImageHosts(
    ["images.example.com", "cdn.example.com:8443", "10.0.0.5", "192.0.2.1:9000", "[fd00::1]:80"]
)


@pytest.mark.parametrize(
    "url",
    [
        "http://images.example.com/cat.png",
        "https://images.example.com/cat.png?size=1#top",
        "HTTPS://IMAGES.example.com./cat.png",
        "https://images.example.com:443/cat.png",
        "http://cdn.example.com:8443/cat.png",
        "http://10.0.0.5/cat.png",
        "http://192.0.2.1:9000/cat.png",
        "http://[fd00:0::1]/cat.png",
    ],
)
def test_a_listed_host_may_be_asked_on_its_port(url: str) -> None:
    assert HOSTS.allow_url(URL(url))


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "http://images.example.com.evil.example/",
        "http://evil.example/images.example.com",
        "http://images.example.com@evil.example/",
        "http://evil.example#@images.example.com/",
        "http://user:pass@images.example.com/",
        "http://user@images.example.com/",
        "http://images.example.com:8080/",
        "http://images.example.com:22/",
        "https://images.example.com:80/",
        "http://cdn.example.com/",
        "http://192.0.2.1/",
        "http://0x0a000005/",
        "http://167772165/",
        "http://[fd00::2]/",
        "http://127.0.0.1/",
        "ftp://images.example.com/",
        "file:///etc/passwd",
        "//images.example.com/cat.png",
        "/cat.png",
        "",
    ],
)
def test_others_may_not(url: str) -> None:
    assert not HOSTS.allow_url(URL(url))


@pytest.mark.parametrize(
    "address",
    ["93.184.215.14", "2606:2800:21f::1", "10.0.0.5", "fd00::1", "::ffff:93.184.215.14"],
)
def test_outer_addresses_and_listed_ones_may_be_called(address: str) -> None:
    assert HOSTS.allow_address(address, 80)


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "0.0.0.0", "10.0.0.6", "172.16.0.1", "192.168.1.1", "169.254.169.254",
        "100.64.0.1", "198.18.0.1", "224.0.0.1", "239.1.1.1", "255.255.255.255", "::", "::1",
        "fe80::1", "fe80::1%eth0", "fd00::2", "ff0e::1", "::ffff:127.0.0.1", "::ffff:10.0.0.6",
        "64:ff9b::7f00:1", "64:ff9b::a00:6", "2002:7f00:1::1", "2002:a00:6::1", "no address", "",
        "fec0::1", "64:ff9b:1::7f00:1", "::7f00:1", "::ffff:0:7f00:1", "5f00::1", "4000::1",
    ],
)  # fmt: skip
def test_inner_addresses_may_not(address: str) -> None:
    assert not HOSTS.allow_address(address, 80)


def test_an_inner_address_is_listed_with_its_port() -> None:
    hosts = ImageHosts(["10.0.0.5", "10.0.0.6:9000"])
    allowed = [(5, 80), (5, 443), (6, 9000)]
    for last, port in [*allowed, (5, 9000), (6, 80), (7, 80)]:
        assert hosts.allow_address(f"10.0.0.{last}", port) == ((last, port) in allowed)


def test_nothing_is_allowed_where_nothing_is_listed() -> None:
    assert HOSTS
    assert not ImageHosts([])
    assert not ImageHosts([]).allow_url(URL("http://images.example.com/"))
