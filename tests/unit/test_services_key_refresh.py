"""When the keys that issuers publish are fetched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

from balancer.access import Auth, JwtIssuer
from balancer.errors import ProviderFailed
from balancer.services.key_refresh import LEAST_GAP_S, KeyRefresh, Keys
from balancer.settings import LiveSettings, Settings
from balancer.signing_keys import SigningKey
from tests.support.virtual_time import in_virtual_time, settle

A, B = "https://a.example/keys", "https://b.example/keys"
KEYS: Keys = (SigningKey(algorithm="ES256", key=None, digest=b"1"),)


def settings(*urls: str, refresh_s: float = 600.0) -> Settings:
    issuers = tuple(
        JwtIssuer(algorithms=("ES256",), jwks_url=url, refresh_s=refresh_s) for url in urls
    )
    return Settings(auth=Auth(jwt=issuers))


class Providers:
    """What is published, and when it was asked for, in seconds since the start."""

    def __init__(self, *urls: str) -> None:
        self.live = LiveSettings(settings(*urls))
        self.loop = asyncio.get_running_loop()
        self.began_s = self.loop.time()
        self.asked: list[tuple[float, str]] = []
        self.taken: list[str] = []
        self.fault: Exception | None = None
        self.delay_s = 0.0
        self.refresh = KeyRefresh(self.live, fetch=self._fetch, take=self._take, now=self.loop.time)

    async def _fetch(self, url: str) -> Keys:
        self.asked.append((self.loop.time() - self.began_s, url))
        await asyncio.sleep(self.delay_s)
        if self.fault is not None:
            raise self.fault
        return KEYS

    def _take(self, url: str, keys: Keys) -> None:
        assert keys is KEYS
        self.taken.append(url)

    @property
    def times(self) -> list[float]:
        return [when for when, _ in self.asked]


@asynccontextmanager
async def running(*urls: str, fault: Exception | None = None) -> AsyncIterator[Providers]:
    providers = Providers(*urls)
    providers.fault = fault
    task = asyncio.ensure_future(providers.refresh.run())
    await settle()
    try:
        yield providers
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@in_virtual_time
async def test_keys_are_fetched_at_the_start_and_then_now_and_again() -> None:
    async with running(A, B) as providers:
        assert providers.taken == [A, B]
        await asyncio.sleep(1250)
        assert providers.asked == [(0, A), (0, B), (600, A), (600, B), (1200, A), (1200, B)]


@in_virtual_time
async def test_an_unknown_key_has_them_fetched_soon_and_never_more_often_than_that() -> None:
    async with running(A) as providers:
        for _ in range(50):
            providers.refresh.ask(A)
            await asyncio.sleep(1)
        assert providers.times[:3] == [0, LEAST_GAP_S, 2 * LEAST_GAP_S]
        assert len(providers.times) <= 50 / LEAST_GAP_S + 1
        providers.refresh.ask("https://nobody.example")
        await asyncio.sleep(700)
        assert {url for _, url in providers.asked} == {A}


@in_virtual_time
async def test_who_fails_is_asked_again_later_each_time_and_at_last_as_often_as_usual() -> None:
    async with running(A, fault=ProviderFailed("it is down")) as providers:
        await asyncio.sleep(1500)
        assert providers.times == [0, 5, 15, 35, 75, 155, 315, 635, 1235]
        assert not providers.taken
        for _ in range(20):
            providers.refresh.ask(A)
            await asyncio.sleep(1)
        assert len(providers.times) == 9
        providers.fault = None
        await asyncio.sleep(600)
        assert providers.taken == [A]


@in_virtual_time
async def test_a_mistake_of_ours_does_not_end_the_loop() -> None:
    async with running(A, fault=KeyError("oops")) as providers:
        providers.fault = None
        await asyncio.sleep(6)
        assert providers.taken == [A]


def call_later_in_the_loop(turns: int, call: Callable[[], None]) -> None:
    """After so many turns of the loop that runs."""
    if not turns:
        call()
        return
    asyncio.get_running_loop().call_soon(call_later_in_the_loop, turns - 1, call)


@in_virtual_time
async def test_an_issuer_that_goes_when_its_turn_comes_ends_nothing() -> None:
    for turns in range(6):
        async with running(A, B) as providers:
            gone = partial(providers.live.replace, settings(A))
            providers.loop.call_later(600, call_later_in_the_loop, turns, gone)
            await asyncio.sleep(1250)
            assert providers.taken.count(A) == 3


@in_virtual_time
async def test_issuers_come_and_go_with_the_settings() -> None:
    async with running() as providers:
        assert not providers.asked
        providers.live.replace(settings(A))
        await settle()
        providers.live.replace(settings(A, B, refresh_s=100.0))
        await settle()
        assert providers.asked == [(0, A), (0, B)]
        await asyncio.sleep(150)
        assert providers.asked[2:] == [(100, A), (100, B)]
        providers.live.replace(settings(B, refresh_s=100.0))
        await asyncio.sleep(100)
        assert providers.asked[4:] == [(200, B)]
        providers.live.replace(settings())
        await asyncio.sleep(1000)
        assert len(providers.asked) == 5


@in_virtual_time
async def test_settings_that_change_during_a_fetch_leave_the_others_their_turns() -> None:
    async with running(A) as providers:
        providers.delay_s = 3
        await asyncio.sleep(601)
        providers.live.replace(settings(B))
        await asyncio.sleep(7)
        assert providers.asked == [(0, A), (600, A), (603, B)]
        assert providers.taken == [A, A, B]
