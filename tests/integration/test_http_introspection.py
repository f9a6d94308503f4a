"""Opaque tokens over HTTP: whoever knows them is asked, once, and may be slow, down or wrong."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec import structs
from structlog.testing import capture_logs

from balancer.access import Auth, ClaimRules, Introspection, JwtIssuer
from balancer.secret import Secret
from tests.support.keys import USER, auth, bearer, credential, unlimited
from tests.support.provider_host import ProviderHost, provider_host
from tests.support.running_balancer import Answer, RunningBalancer, eventually, running_balancer
from tests.support.tokens import SECRET, by_secret

TOKEN = "an-opaque-token"
CLIENT_SECRET = "hunter2&%"


@pytest.fixture
async def host() -> AsyncIterator[ProviderHost]:
    async with provider_host() as host:
        host.said[TOKEN] = {"active": True, "sub": "alice", "aud": "paddler", "role": "admin"}
        yield host


@pytest.fixture
async def balancer(host: ProviderHost) -> AsyncIterator[RunningBalancer]:
    async with running_balancer(auth=asking(host), limits=unlimited()) as balancer:
        yield balancer


def asking(host: ProviderHost, **facts: Any) -> Auth:
    provider = Introspection(
        url=host.introspection_url,
        client_id="paddler id",
        client_secret=Secret(CLIENT_SECRET),
        audience=("paddler",),
        claims=ClaimRules(role="role"),
        **facts,
    )
    return Auth(api_keys=auth().api_keys, introspection=provider)


async def ask(balancer: RunningBalancer, token: str) -> Answer:
    url = balancer.management_url + "/agents"
    async with balancer.session.get(url, headers=bearer(token)) as answer:
        return Answer(status=answer.status, headers=answer.headers, body=await answer.read())


async def until_asked(host: ProviderHost, times: int) -> None:
    await eventually(lambda: len(host.asked) >= times, "the provider is asked")


async def test_an_active_token_comes_in_and_is_asked_about_once(
    balancer: RunningBalancer, host: ProviderHost
) -> None:
    host.may_answer.clear()
    asking = [asyncio.create_task(ask(balancer, TOKEN)) for _ in range(100)]
    await eventually(
        lambda: balancer.app.wiring.gate.methods.waiting == 100, "all wait for one answer"
    )
    host.may_answer.set()
    assert [(await one).status for one in asking] == [200] * 100
    assert (await ask(balancer, TOKEN)).status == 200
    ((form, authorization),) = host.forms
    assert form["token"] == TOKEN
    assert authorization == "Basic cGFkZGxlcitpZDpodW50ZXIyJTI2JTI1"  # paddler+id:hunter2%26%25


async def test_keys_are_never_sent_to_the_provider(
    balancer: RunningBalancer, host: ProviderHost
) -> None:
    async with balancer.session.get(balancer.url + "/v1/models", headers=bearer(USER)) as answer:
        assert answer.status == 200
    assert not host.forms


async def test_the_first_method_that_applies_decides(host: ProviderHost) -> None:
    like_a_token = by_secret(sub="somebody else", iss=None, aud=None)
    issuer = JwtIssuer(algorithms=("HS256",), secret=Secret(SECRET))
    keys = auth(credential(like_a_token, role="admin"), credential("opaque-key", role="admin"))
    host.said |= {"opaque-key": {"active": False}, "eyJ.a": {"active": True, "sub": "a"}}
    settings = structs.replace(asking(host), api_keys=keys.api_keys, jwt=(issuer,))
    async with running_balancer(auth=settings, limits=unlimited()) as balancer:
        for key in ("opaque-key", like_a_token):
            assert (await ask(balancer, key)).status == 200
        as_admin = by_secret(sub="a", iss=None, aud=None, role="admin")
        assert (await ask(balancer, as_admin)).status == 403  # a JWT, whose roles nobody reads
        assert (await ask(balancer, "eyJ.a")).error["code"] == "invalid_token"
        assert not host.forms
        assert (await ask(balancer, TOKEN)).status == 200
        assert len(host.forms) == 1


@pytest.mark.parametrize(
    ("said", "code", "reason"),
    [
        ({"active": False, "sub": "alice"}, "invalid_token", "inactive"),
        ({"active": True, "aud": "paddler"}, "invalid_token", "claim"),
        ({"active": True, "sub": "a", "aud": "billing"}, "invalid_token", "audience"),
        ({"active": True, "sub": "a"}, "invalid_token", "audience"),
        ({"active": True, "sub": "a", "aud": "paddler", "exp": 1}, "token_expired", None),
        ({"active": True, "sub": "a", "aud": "paddler", "exp": "soon"}, "invalid_token", "claim"),
    ],
)
async def test_a_token_that_is_not_good_is_refused_with_its_reason(
    balancer: RunningBalancer, host: ProviderHost, said: Any, code: str, reason: str | None
) -> None:
    host.said[TOKEN] = said
    for _ in range(2):
        answer = await ask(balancer, TOKEN)
        assert (answer.status, answer.error["code"]) == (401, code)
        assert answer.error["details"].get("reason") == reason
    assert len(host.forms) == 1


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"<html>Sign in</html>", 200),
        (b'{"sub":"alice"}', 200),
        (b'{"active":"true"}', 200),
        (b'{"active":false,"active":true,"sub":"alice","aud":"paddler"}', 200),
        (b'{"active":true,"note":"' + b"x" * 70_000 + b'"}', 200),
        (b'{"active":true,', 200),
        (b"{}", 500),
        (b"{}", 401),
        (b"", 302),
    ],
)
async def test_a_provider_that_is_down_or_lies_is_no_fault_of_the_token(
    balancer: RunningBalancer, host: ProviderHost, data: bytes, status: int
) -> None:
    host.publish(data, status=status)
    answer = await ask(balancer, TOKEN)
    assert (answer.status, answer.error["code"]) == (503, "identity_unavailable")
    assert int(answer.headers["Retry-After"]) >= 1
    host.publish(b"")
    assert (await ask(balancer, TOKEN)).status == 200


async def test_a_slow_provider_holds_up_nobody_else_and_is_given_up(host: ProviderHost) -> None:
    host.may_answer.clear()
    async with running_balancer(auth=asking(host, timeout_s=0.1), limits=unlimited()) as balancer:
        waiting = asyncio.create_task(ask(balancer, TOKEN))
        await eventually(lambda: host.asked, "the provider is asked")
        async with balancer.session.get(
            balancer.url + "/v1/models", headers=bearer(USER)
        ) as answer:
            assert answer.status == 200
        assert (await waiting).status == 503


async def test_a_client_that_leaves_takes_nobody_s_answer_along(
    balancer: RunningBalancer, host: ProviderHost
) -> None:
    host.may_answer.clear()
    first = asyncio.create_task(ask(balancer, TOKEN))
    await eventually(lambda: host.asked, "the provider is asked")
    second = asyncio.create_task(ask(balancer, TOKEN))
    await eventually(
        lambda: balancer.app.wiring.gate.methods.waiting == 2, "both wait for the answer"
    )
    first.cancel()
    await eventually(lambda: len(host.asked) == 2, "the second one asks")
    host.may_answer.set()
    assert (await second).status == 200
    assert balancer.app.wiring.gate.methods.waiting == 0


async def test_an_answer_is_good_for_no_longer_than_its_token_and_the_setting(
    host: ProviderHost,
) -> None:
    async with running_balancer(auth=asking(host, keep_s=0.0), limits=unlimited()) as balancer:
        assert (await ask(balancer, TOKEN)).status == 200
        host.said[TOKEN] = {"active": False}
        assert (await ask(balancer, TOKEN)).status == 401
    long_ago = time.time() - 1
    host.said["ended"] = {"active": True, "sub": "a", "aud": "paddler", "exp": long_ago}
    async with running_balancer(auth=asking(host), limits=unlimited()) as balancer:
        assert (await ask(balancer, "ended")).status == 401


async def test_guesses_reach_the_provider_only_as_long_as_few_were_wrong(
    balancer: RunningBalancer, host: ProviderHost
) -> None:
    assert (await ask(balancer, TOKEN)).status == 200
    statuses = [(await ask(balancer, f"guess-{number}")).status for number in range(65)]
    assert statuses == [401] * 60 + [429] * 5
    assert len(host.forms) == 61
    assert (await ask(balancer, TOKEN)).status == 200


async def test_guesses_whose_senders_do_not_wait_for_the_answer_count_as_well(
    balancer: RunningBalancer, host: ProviderHost
) -> None:
    host.may_answer.clear()
    for number in range(60):
        guess = asyncio.create_task(ask(balancer, f"guess-{number}"))
        await until_asked(host, number + 1)
        guess.cancel()
    methods = balancer.app.wiring.gate.methods
    await eventually(lambda: methods.waiting == 0, "nobody waits any more")
    assert (await ask(balancer, "one more")).status == 429
    assert len(host.asked) == 60


async def test_what_was_asked_of_a_provider_lets_nobody_in_once_another_is_set(
    balancer: RunningBalancer, host: ProviderHost
) -> None:
    host.may_answer.clear()
    url = balancer.management_url + "/session"
    host.said[TOKEN] = {"active": True, "sub": "a", "aud": "paddler", "role": "admin"}
    asking = asyncio.create_task(balancer.session.post(url, json={"key": TOKEN}))
    await eventually(lambda: host.asked, "the provider is asked")
    live = balancer.app.wiring.configuration.live
    live.replace(structs.replace(live.current, auth=auth()))
    host.may_answer.set()
    async with await asking as answer:
        assert answer.status == 503
    assert not len(balancer.app.wiring.gate.sessions)


@pytest.mark.parametrize(
    "header",
    [
        b"Authorization: Bearer \xff\xfe",
        b"Authorization: Bearer eyJ\xff.e30.e30",
        b"Authorization: Bearer a b",
        b"Authorization: Bearer",
        b"X-API-Key: \xed\xa0\x80",
        b"X-API-Key: " + b"x" * 9000,
    ],
)
async def test_what_cannot_be_a_token_is_refused_unasked(
    balancer: RunningBalancer, host: ProviderHost, header: bytes
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", balancer.inference_port)
    head = b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    writer.write(head + header + b"\r\n\r\n")
    answer = await reader.read()
    writer.close()
    assert answer.startswith(b"HTTP/1.1 401 ")
    assert b'"invalid_token"' in answer
    assert not host.forms


async def test_the_secret_is_shown_nowhere(
    balancer: RunningBalancer,
) -> None:
    with capture_logs() as logs:
        async with balancer.session.get(
            balancer.management_url + "/config", headers=bearer(TOKEN)
        ) as answer:
            told = await answer.text()
    assert '"client_secret":"***"' in told
    told += str(logs)
    assert "hunter2" not in told
    assert TOKEN not in told
