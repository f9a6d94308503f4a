"""Names with passwords over HTTP: who comes in, and what guessing costs."""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import AsyncIterator
from functools import cache
from typing import Any

import pytest
from argon2 import PasswordHasher
from msgspec import structs
from structlog.testing import capture_logs

from balancer.access import Auth, Introspection
from balancer.config_file.auth_section import auth as auth_section
from balancer.http.passwords import Passwords
from balancer.secret import Secret
from tests.support.keys import USER, bearer, credential, unlimited
from tests.support.provider_host import provider_host
from tests.support.running_balancer import Answer, RunningBalancer, eventually, running_balancer

PASSWORD = "correct horse: battery"
PROXY = ("127.0.0.0/8",)


@cache
def hashed(password: str = PASSWORD) -> str:
    """As quickly as it may be."""
    return PasswordHasher(time_cost=1, memory_cost=7 * 1024, parallelism=1).hash(password)


def holders(*more: dict[str, Any]) -> Auth:
    """One of role admin, and these, as the file has them; and a key."""
    ours = {"name": "ci", "password_hash": hashed(), "role": "admin"}
    found = auth_section({"basic": [ours, *more]}, _no_secret)
    return Auth(api_keys=(credential(USER),), basic=found.basic)


def _no_secret(kind: str, name: str) -> str:
    raise ValueError(f"no {kind} {name}")


def basic(name: str, password: str = PASSWORD) -> dict[str, str]:
    """The header."""
    return {"Authorization": "Basic " + b64encode(f"{name}:{password}".encode()).decode()}


class Compared:
    """Hashes that were compared with a password; `may_end` holds them up."""

    def __init__(self) -> None:
        self.hashes: list[str] = []
        self.may_end = asyncio.Event()
        self.may_end.set()


@pytest.fixture
def compared(monkeypatch: pytest.MonkeyPatch) -> Compared:
    compared, fits = Compared(), Passwords.fits

    async def counted(self: Passwords, password: str, password_hash: str) -> bool:
        compared.hashes.append(password_hash)
        await compared.may_end.wait()
        return await fits(self, password, password_hash)

    monkeypatch.setattr(Passwords, "fits", counted)
    return compared


@pytest.fixture
async def balancer(compared: Compared) -> AsyncIterator[RunningBalancer]:
    assert not compared.hashes
    far = {"name": "far", "password_hash": hashed(), "networks": ["10.0.0.0/8"]}
    old = {"name": "old", "password_hash": hashed(), "expires": "2020-01-01T00:00:00Z"}
    async with running_balancer(
        auth=holders(far, old), limits=unlimited(), trusted_proxies=PROXY
    ) as balancer:
        yield balancer


async def ask(
    balancer: RunningBalancer, headers: dict[str, str], address: str = "192.0.2.1"
) -> Answer:
    url = balancer.management_url + "/agents"
    given = {**headers, "X-Forwarded-For": address}
    async with balancer.session.get(url, headers=given) as answer:
        return Answer(status=answer.status, headers=answer.headers, body=await answer.read())


async def test_a_right_password_comes_in_and_is_compared_once(
    balancer: RunningBalancer, compared: Compared
) -> None:
    at_once = await asyncio.gather(*(ask(balancer, basic("ci")) for _ in range(5)))
    assert [answer.status for answer in at_once] == [200] * 5
    assert await ask(balancer, {"Authorization": f"bAsIc {basic('ci')['Authorization'][6:]}"})
    assert len(compared.hashes) == 1


@pytest.mark.parametrize(
    "headers",
    [
        basic("ci", "wrong"),
        basic("ci", ""),
        basic("nobody"),
        basic("far"),
        {"Authorization": "Basic"},
        {"Authorization": "Basic !!!"},
        {"Authorization": "Basic " + b64encode(b"no colon").decode()},
        {"Authorization": "Basic " + b64encode(b"ci:\xff").decode()},
        {"Authorization": "Basic " + b64encode(b"ci:" + b"x" * 3000).decode()},
        {**basic("ci", "wrong"), "X-API-Key": USER},
    ],
)
async def test_anything_else_is_refused_without_a_reason(
    balancer: RunningBalancer, headers: dict[str, str]
) -> None:
    answer = await ask(balancer, headers)
    assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
    assert answer.error["message"].startswith("nobody has this name and password here")


async def test_an_unknown_name_is_as_much_work_as_a_known_one(
    balancer: RunningBalancer, compared: Compared
) -> None:
    for name in ("ci", "nobody", "somebody"):
        assert (await ask(balancer, basic(name, "wrong"))).status == 401
    assert len(compared.hashes) == 3
    assert set(compared.hashes) == {hashed()}


async def test_networks_and_ends_bind_also_a_password_that_is_known(
    balancer: RunningBalancer,
) -> None:
    assert (await ask(balancer, basic("far"), "10.1.2.3")).status == 403  # no admin, but known
    assert (await ask(balancer, basic("far"), "192.0.2.7")).status == 401
    answer = await ask(balancer, basic("old"))
    assert (answer.status, answer.error["code"]) == (401, "token_expired")


async def test_guessing_is_stopped_before_it_costs_and_who_was_right_goes_on(
    balancer: RunningBalancer, compared: Compared
) -> None:
    assert (await ask(balancer, basic("ci"))).status == 200
    statuses = [(await ask(balancer, basic("ci", str(number)))).status for number in range(63)]
    assert statuses == [401] * 60 + [429] * 3
    assert len(compared.hashes) == 61
    assert (await ask(balancer, basic("ci"))).status == 200
    assert (await ask(balancer, basic("ci"), "192.0.2.9")).status == 200


async def test_others_are_served_while_passwords_are_compared_and_too_many_must_come_again(
    compared: Compared, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("balancer.http.methods.MOST_ASKED", 2)
    compared.may_end.clear()
    async with running_balancer(auth=holders(), limits=unlimited()) as balancer:
        asking = [asyncio.create_task(ask(balancer, basic(name))) for name in ("ci", "nobody")]
        await eventually(lambda: len(compared.hashes) == 2, "both are compared")
        async with balancer.session.get(
            balancer.url + "/v1/models", headers=bearer(USER)
        ) as answer:
            assert answer.status == 200
        late = await ask(balancer, basic("ci", "more"))
        assert (late.status, late.error["code"]) == (503, "identity_unavailable")
        compared.may_end.set()
        assert sorted([(await one).status for one in asking]) == [200, 401]


async def test_passwords_are_compared_while_a_provider_of_tokens_hangs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("balancer.http.methods.MOST_ASKED", 1)
    async with provider_host() as host:
        host.may_answer.clear()
        url, secret = host.introspection_url, Secret("s")
        provider = Introspection(url=url, client_id="paddler", client_secret=secret)
        auth = structs.replace(holders(), introspection=provider)
        async with running_balancer(auth=auth, limits=unlimited()) as balancer:
            waiting = asyncio.create_task(ask(balancer, bearer("a-token")))
            await eventually(lambda: host.asked, "the provider is asked")
            assert (await ask(balancer, bearer("another"))).status == 503
            assert (await ask(balancer, basic("ci"))).status == 200
            host.may_answer.set()
            assert (await waiting).status == 401


async def test_neither_password_nor_hash_is_shown(
    balancer: RunningBalancer,
) -> None:
    with capture_logs() as logs:
        async with balancer.session.get(
            balancer.management_url + "/config", headers=basic("ci")
        ) as answer:
            told = await answer.text()
    assert '"password_hash":"***"' in told
    told += str(logs)
    for secret in (PASSWORD, hashed(), basic("ci")["Authorization"]):
        assert secret not in told
