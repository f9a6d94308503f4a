"""The dashboard over HTTP: its page, its files, and what browsers may keep."""

from __future__ import annotations

import gzip
import threading

import pytest

from balancer.http.dashboard.assets import assets
from tests.support.running_balancer import RunningBalancer

VENDORED = "/assets/vendor/preact@10.29.8/preact.module.js"


async def test_the_page_is_served_where_operators_call(balancer: RunningBalancer) -> None:
    for path in ("/", "/dashboard"):
        async with balancer.session.get(balancer.management_url + path) as answer:
            assert answer.status == 200
            assert answer.content_type == "text/html"
            assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
            assert '<div id="app">' in await answer.text()


async def test_only_what_can_be_shown_as_a_page_comes_with_a_policy(
    balancer: RunningBalancer,
) -> None:
    for path, has_policy in (("/assets/icon.svg", True), (VENDORED, False)):
        async with balancer.session.get(balancer.management_url + path) as answer:
            assert ("Content-Security-Policy" in answer.headers) == has_policy
            assert answer.headers["X-Content-Type-Options"] == "nosniff"


async def test_a_file_that_the_browser_has_is_not_sent_again(balancer: RunningBalancer) -> None:
    url = balancer.management_url + "/assets/app/main.js"
    async with balancer.session.get(url) as first:
        assert first.headers["Cache-Control"] == "no-cache"
        known = first.headers["ETag"]
    async with balancer.session.get(url, headers={"If-None-Match": f'"x", W/{known}'}) as again:
        assert again.status == 304
        assert await again.read() == b""
    async with balancer.session.get(url, headers={"If-None-Match": '"other"'}) as other:
        assert other.status == 200


async def test_a_vendored_file_may_be_kept_for_ever(balancer: RunningBalancer) -> None:
    async with balancer.session.get(balancer.management_url + VENDORED) as answer:
        assert "immutable" in answer.headers["Cache-Control"]


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
async def test_a_file_is_compressed_for_those_who_take_it(
    balancer: RunningBalancer, encoding: str
) -> None:
    url = balancer.management_url + VENDORED
    async with balancer.session.get(url, headers={"Accept-Encoding": encoding}) as answer:
        assert answer.headers.get("Content-Encoding", "identity") == encoding
        assert "export" in await answer.text()


@pytest.mark.parametrize("refused", ["gzip;q=0", "br, GZIP; Q=0.0", "xgzip"])
async def test_a_file_is_not_compressed_for_those_who_refuse_that(
    balancer: RunningBalancer, refused: str
) -> None:
    url = balancer.management_url + VENDORED
    async with balancer.session.get(url, headers={"Accept-Encoding": refused}) as answer:
        assert "Content-Encoding" not in answer.headers


async def test_the_headers_of_a_file_are_told_without_it(balancer: RunningBalancer) -> None:
    url = balancer.management_url + VENDORED
    async with balancer.session.get(url) as whole, balancer.session.head(url) as answer:
        assert answer.headers["ETag"] == whole.headers["ETag"]
        assert answer.headers["Content-Length"] == whole.headers["Content-Length"]
        assert await answer.read() == b""


async def test_streams_do_not_wait_for_the_files_to_be_compressed(
    balancer: RunningBalancer, monkeypatch: pytest.MonkeyPatch
) -> None:
    compress, threads = gzip.compress, set[int]()

    def watched(body: bytes, **how: int) -> bytes:
        threads.add(threading.get_ident())
        return compress(body, **how)

    monkeypatch.setattr(gzip, "compress", watched)
    assets.cache_clear()
    async with balancer.session.get(balancer.management_url + "/") as answer:
        assert answer.status == 200
    assert threads
    assert threading.get_ident() not in threads


@pytest.mark.parametrize(
    "path", ["/assets/no.js", "/assets/../handler.py", "/assets/..%2Fhandler.py"]
)
async def test_what_is_no_file_of_the_dashboard_is_not_found(
    balancer: RunningBalancer, path: str
) -> None:
    async with balancer.session.get(balancer.management_url + path) as answer:
        assert answer.status == 404
