"""What clients try with credentials, their own and others': stopped, with a record of it each."""

from __future__ import annotations

import asyncio
import hmac
import json
from base64 import urlsafe_b64encode
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec import structs

from balancer.access import JwtIssuer
from balancer.secret import Secret
from tests.support.attempts import recorded
from tests.support.fake_agent import FakeAgent, Script
from tests.support.keys import ADMIN, SYSTEM, USER, auth, bearer, credential, unlimited
from tests.support.running_balancer import Answer, RunningBalancer, running_balancer

ANN, BOB = "ann-key", "bob-key"
CHAT, RESPONSES = "/v1/chat/completions", "/v1/responses"
HI = {"messages": [{"role": "user", "content": "hi"}]}
RESUMABLE = {"X-Paddler-Resumable": "1"}
FORWARDED = ("X-Forwarded-For", "Forwarded", "X-Real-IP", "X-Client-IP", "True-Client-IP")


@pytest.fixture
async def balancer() -> AsyncIterator[RunningBalancer]:
    keys = auth(credential(ANN), credential(BOB), credential("inner", networks=("10.0.0.0/8",)))
    tokens = JwtIssuer(algorithms=("HS256",), secret=Secret("x" * 40))
    keys = structs.replace(keys, jwt=(tokens,))
    async with running_balancer(auth=keys, limits=unlimited()) as balancer:
        yield balancer


@pytest.fixture
async def agent(balancer: RunningBalancer) -> AsyncIterator[FakeAgent]:
    async with FakeAgent(balancer.management_port, token=SYSTEM) as agent:
        yield agent


async def ask(url: str, balancer: RunningBalancer, key: str, method: str = "GET") -> Answer:
    async with balancer.session.request(method, url, headers=bearer(key)) as answer:
        return Answer(status=answer.status, headers=answer.headers, body=await answer.read())


def said(answer: Answer, *names: str) -> str:
    """An error without what differs in each: its ids, and the name that was asked for."""
    error = {**answer.error, "request_id": ""}
    text = json.dumps(error)
    for name in names:
        text = text.replace(name, "NAME")
    return text


async def test_guessing_keys_ends_with_an_address_that_is_not_heard(
    balancer: RunningBalancer,
) -> None:
    with recorded() as records:
        for guess in range(61):
            answer = await balancer.post(CHAT, HI, bearer(f"pk_guess{guess}"))
    assert (answer.status, answer.error["code"]) == (429, "rate_limit_exceeded")
    assert answer.headers["Retry-After"]
    records.refusal(401, "invalid_api_key")
    records.refusal(429, "rate_limit_exceeded")
    records.event("credentials refused", reason="mistyped", address="127.0.0.1")
    records.audited("credentials.refused", facts={"reason": "invalid_api_key"})
    assert not records.holds("guess")


async def test_looking_for_a_key_is_the_same_work_however_much_of_it_is_right(
    balancer: RunningBalancer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key is only ever met as a digest under a secret of the process: nothing is compared with
    what was sent, and what does not exist costs what exists does."""
    work: list[tuple[int, int]] = []
    digest = hmac.digest

    def watched(key: bytes, message: bytes, algorithm: Any) -> bytes:
        work.append((len(key), len(message)))
        return digest(key, message, algorithm)

    monkeypatch.setattr("balancer.policy.identity.keyring.hmac.digest", watched)
    done = set()
    for key in (ANN, ANN[:-1] + "x", "ann", "x" * len(ANN), "nobody's"):
        work.clear()
        with recorded() as records:
            answer = await ask(balancer.url + "/v1/models", balancer, key)
        assert answer.status == (200 if key == ANN else 401)
        if key != ANN:
            records.event("credentials refused", reason="unknown", address="127.0.0.1")
        # the ring of the store is looked into by whoever the first one does not know
        done.add(tuple(work[:1]))
        assert set(work) == set(work[:1])
    assert len(done) == 1


async def test_a_token_that_nobody_signed_opens_nothing(balancer: RunningBalancer) -> None:
    def part(value: Any) -> str:
        return urlsafe_b64encode(json.dumps(value).encode()).decode().rstrip("=")

    for algorithm in ("none", "None", "NONE", "nOnE"):
        token = f"{part({'alg': algorithm})}.{part({'sub': 'root', 'role': 'admin'})}.AAAA"
        with recorded() as records:
            answer = await ask(balancer.url + "/v1/models", balancer, token)
        assert (answer.status, answer.error["type"]) == (401, "authentication_error")
        refused = records.event("credentials refused", kind="token", address="127.0.0.1")
        assert refused["reason"] == "algorithm"
        assert not records.holds(token)


async def test_an_address_that_a_client_makes_up_is_not_believed(
    balancer: RunningBalancer,
) -> None:
    for name in FORWARDED:
        value = "for=10.0.0.1" if name == "Forwarded" else "10.0.0.1"
        with recorded() as records:
            answer = await balancer.post(CHAT, HI, {**bearer("inner"), name: value})
        assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
        records.event("credentials refused", reason="address", key="inner", address="127.0.0.1")


async def test_a_client_s_key_opens_no_operator_s_or_agent_s_route(
    balancer: RunningBalancer,
) -> None:
    for method, path in (
        *(("GET", path) for path in ("/agents", "/requests", "/config", "/keys", "/ws/logs")),
        ("GET", "/agents/connect"),
        ("POST", "/keys"),
        ("POST", "/config/reload"),
        ("PUT", "/log-level"),
    ):
        with recorded() as records:
            answer = await ask(balancer.management_url + path, balancer, USER, method)
        assert answer.status == 403, path
        assert records.refusal(403, "insufficient_permissions")["key"] == USER
        noted = records.audited("access.refused", target=f"{method} {path}")
        assert noted["who"]["key"] == USER


async def test_members_of_a_body_that_mean_something_elsewhere_mean_nothing_here(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    """What a scripting language takes for its own names is no name here; of two equal ones the
    last one counts, as JSON readers have it."""
    claims = '"__proto__":{"role":"admin"},"constructor":{"prototype":{"role":"admin"}}'
    more = '"role":"admin","tenant":"key:ann-key","principal":{"role":"admin"}'
    body = f'{{"messages":[{{"role":"user","content":"hi"}}],{claims},{more}}}'.encode()
    answer = await balancer.post(RESPONSES, body.replace(b"messages", b"input"), bearer(BOB))
    assert answer.status == 200
    [started] = agent.started
    assert "admin" not in repr(started)
    kept = f"{balancer.url}{RESPONSES}/{answer.json()['id']}"
    assert (await ask(kept, balancer, BOB)).status == 200
    with recorded() as records:
        assert (await ask(kept, balancer, ANN)).status == 404
    records.refusal(404, "resource_not_found")


async def test_another_tenant_s_response_and_stream_are_as_if_they_were_not_there(
    balancer: RunningBalancer,
    agent: FakeAgent,  # noqa: ARG001 (it answers)
) -> None:
    asked = {"input": "hi", "stream": True}
    answer = await balancer.post(RESPONSES, asked, {**bearer(ANN), **RESUMABLE})
    request_id = answer.headers["X-Paddler-Request-Id"]
    kept = await balancer.post(RESPONSES, {"input": "my secret"}, bearer(ANN))
    response_id = kept.json()["id"]
    for path, mine, nobody_s in (
        ("/v1/streams/", request_id, "req_" + "0" * 32),
        (f"{RESPONSES}/", response_id, "resp_" + "0" * 32),
    ):
        with recorded() as records:
            found = await ask(balancer.url + path + mine, balancer, BOB)
            missing = await ask(balancer.url + path + nobody_s, balancer, BOB)
        assert (found.status, missing.status) == (404, 404)
        assert said(found, mine) == said(missing, nobody_s)
        assert records.refusal(404, found.error["code"])["key"] == BOB
    for method, path in (
        ("DELETE", f"{RESPONSES}/{response_id}"),
        ("GET", f"{RESPONSES}/{response_id}/input_items"),
    ):
        assert (await ask(balancer.url + path, balancer, BOB, method)).status == 404
    more = {"input": "repeat what was said", "previous_response_id": response_id}
    assert (await balancer.post(RESPONSES, more, bearer(BOB))).status == 404
    assert (await ask(f"{balancer.url}{RESPONSES}/{response_id}", balancer, ANN)).status == 200


async def test_a_request_id_that_was_another_s_gives_nothing_of_it(
    balancer: RunningBalancer,
    agent: FakeAgent,  # noqa: ARG001 (it answers)
) -> None:
    first = await balancer.post(RESPONSES, {"input": "hi"}, {**bearer(ANN), **RESUMABLE})
    taken = first.headers["X-Paddler-Request-Id"]
    with recorded() as records:
        reused = {**bearer(BOB), **RESUMABLE, "X-Request-Id": taken, "X-Paddler-Request-Id": taken}
        again = await balancer.post(RESPONSES, {"input": "hi", "stream": True}, reused)
    assert again.headers["X-Paddler-Request-Id"] != taken
    assert again.headers["X-Request-Id"] == taken  # it is the client's own word for it
    summary = records.event("request", client_request_id=taken)
    assert summary["request_id"] == again.headers["X-Paddler-Request-Id"]
    assert (await ask(f"{balancer.url}/v1/streams/{taken}", balancer, BOB)).status == 404


async def test_another_s_request_is_not_cancelled(balancer: RunningBalancer) -> None:
    script = Script(is_held=True)
    async with (
        FakeAgent(balancer.management_port, token=SYSTEM, script=script) as agent,
        asyncio.TaskGroup() as tasks,
    ):
        running = tasks.create_task(balancer.post(CHAT, HI, bearer(ANN)))
        call = await agent.call()
        listed = await ask(f"{balancer.management_url}/requests", balancer, ADMIN)
        [row] = listed.json()["data"]
        for method, url, status in (
            ("DELETE", f"{balancer.management_url}/requests/{row['id']}", 403),
            ("DELETE", f"{balancer.url}/requests/{row['id']}", 404),
            ("POST", f"{balancer.url}{RESPONSES}/{row['id']}/cancel", 404),
        ):
            with recorded() as records:
                assert (await ask(url, balancer, BOB, method)).status == status
            assert records.event("request", status=status)["address"] == "127.0.0.1"
        assert not call.is_cancelled.is_set()
        await agent.finish(call)
        assert (await running).status == 200
