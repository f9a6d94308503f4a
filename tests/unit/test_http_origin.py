"""Which hosts and origins are let in while nobody has to sign in."""

from __future__ import annotations

import pytest

from balancer.http.origin import is_allowed_host, is_embedded_elsewhere, is_own_origin
from balancer.settings import is_loopback


@pytest.mark.parametrize(
    "host",
    [
        "",
        "localhost",
        "localhost:8080",
        "a.localhost",
        "LOCALHOST",
        "localhost.",
        "127.0.0.1:80",
        "10.0.0.7:8080",
        "[::1]",
        "[::1]:8080",
        "box.lan:8080",
    ],
)
def test_loopback_names_addresses_and_listed_names_are_allowed(host: str) -> None:
    assert is_allowed_host(host, ("box.lan",))


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        "localhost.evil.example",
        "127.0.0.1.evil.example",
        "box.lan.evil",
        "localhost:x",
        "a@localhost",
        "localhost/a",
        "[::1",
        "::1",
        "a b",
        ".",
    ],
)
def test_other_names_and_nonsense_are_not(host: str) -> None:
    assert not is_allowed_host(host, ("box.lan",))


@pytest.mark.parametrize(
    ("origin", "host", "is_own"),
    [
        ("http://localhost:8080", "localhost:8080", True),
        ("https://LOCALHOST:8080", "localhost:8080", True),
        ("http://localhost:8081", "localhost:8080", False),
        ("http://127.0.0.1:8080", "localhost:8080", False),
        ("null", "localhost:8080", False),
        ("", "", False),
        ("file://localhost:8080", "localhost:8080", False),
        ("http://[::1", "[::1", False),
    ],
)
def test_only_the_address_asked_is_its_own_origin(origin: str, host: str, is_own: bool) -> None:
    assert is_own_origin(origin, host) is is_own


@pytest.mark.parametrize(
    ("site", "mode", "dest", "is_embedded"),
    [
        ("same-origin", "cors", "empty", False),
        ("same-origin", "websocket", "websocket", False),
        ("none", "navigate", "document", False),
        ("cross-site", "navigate", "document", False),
        ("same-site", "navigate", "document", False),
        ("cross-site", "navigate", "iframe", True),
        ("cross-site", "no-cors", "image", True),
        ("same-site", "no-cors", "script", True),
        ("same-site", "cors", "empty", True),
        ("cross-site", "websocket", "websocket", True),
        ("of a later standard", "cors", "empty", True),
    ],
)
def test_a_page_of_another_origin_may_only_lead_here(
    site: str, mode: str, dest: str, is_embedded: bool
) -> None:
    told = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": dest}
    assert is_embedded_elsewhere(told) is is_embedded


def test_a_program_that_says_nothing_of_pages_is_none() -> None:
    assert not is_embedded_elsewhere({})
    assert is_embedded_elsewhere({"Sec-Fetch-Site": "cross-site"})


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1", True),
        ("127.8.8.8", True),
        ("::1", True),
        ("::1%lo", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("", False),
    ],
)
def test_loopback_is_told_from_the_rest_of_the_world(address: str, expected: bool) -> None:
    assert is_loopback(address) is expected
