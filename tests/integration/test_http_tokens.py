"""JWTs over HTTP: which open something, and every way in which they must not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from balancer.access import Allowance, Auth, ClaimRules, JwtIssuer, Limits, LimitTable
from balancer.config_file.configuration import Configuration
from balancer.config_file.load import Sources
from balancer.policy.identity.known import KnownCredentials
from balancer.policy.identity.principal import Principal
from balancer.secret import Secret
from tests.support.fake_agent import FakeAgent
from tests.support.hostile_tokens import BACKEND, RULES, addresses, hostile_tokens
from tests.support.keys import SYSTEM, USER, auth, bearer, unlimited
from tests.support.provider_host import ProviderHost, provider_host
from tests.support.running_balancer import (
    PATIENCE_S,
    Answer,
    RunningBalancer,
    eventually,
    running_balancer,
)
from tests.support.tokens import (
    AUDIENCE,
    ISSUER,
    SECRET,
    Signer,
    by_secret,
    ec_signer,
    ed_signer,
    encoded,
    key_set,
    rsa_signer,
    segment,
)

CHAT = {"messages": [{"role": "user", "content": "hi"}]}
PROXY = ("127.0.0.0/8", "::1/128")


def jwt_auth(host: ProviderHost) -> Auth:
    """Keys, a provider that publishes its keys, and a backend with a secret."""
    published = JwtIssuer(
        algorithms=("RS256", "ES256", "EdDSA"),
        jwks_url=host.keys_url,
        issuer=ISSUER,
        audience=(AUDIENCE,),
        claims=RULES,
    )
    shared = JwtIssuer(
        algorithms=("HS256",),
        secret=Secret(SECRET),
        issuer=BACKEND,
        audience=(AUDIENCE,),
        claims=ClaimRules(role="role"),
    )
    return Auth(api_keys=auth().api_keys, jwt=(published, shared))


@pytest.fixture
async def host() -> AsyncIterator[ProviderHost]:
    async with provider_host() as host:
        host.publish(
            key_set(*(one.published() for one in (rsa_signer(), ec_signer(), ed_signer())))
        )
        yield host


@pytest.fixture
async def balancer(host: ProviderHost) -> AsyncIterator[RunningBalancer]:
    async with running_balancer(
        auth=jwt_auth(host), limits=unlimited(), trusted_proxies=PROXY
    ) as balancer:
        await keys_known(balancer)
        yield balancer


async def keys_known(balancer: RunningBalancer) -> None:
    """Wait until the issuer's keys are there."""
    deadline_s = time.monotonic() + PATIENCE_S
    while (await ask(balancer, ec_signer().token())).status == 503:
        assert time.monotonic() < deadline_s, "the issuer's keys never came"
        await asyncio.sleep(0.005)


async def ask(
    balancer: RunningBalancer, token: str, path: str = "/v1/models", address: str = "192.0.2.1"
) -> Answer:
    headers = {**bearer(token), "X-Forwarded-For": address}
    async with balancer.session.get(balancer.url + path, headers=headers) as answer:
        return Answer(status=answer.status, headers=answer.headers, body=await answer.read())


async def test_every_hostile_token_is_refused_with_its_reason(
    balancer: RunningBalancer, host: ProviderHost
) -> None:
    hostile = hostile_tokens(f"http://127.0.0.1:{host.port}/evil")
    assert len(hostile) >= 80
    wrong = []
    for address, (name, (token, reason)) in zip(addresses(), hostile.items(), strict=False):
        with capture_logs() as logs:
            answer = await ask(balancer, token, address=address)
        refused = next(one for one in logs if one["event"] == "credentials refused")
        assert (refused["reason"], refused["address"]) == (reason, address)
        assert not any(len(part) > 20 and part in str(logs) for part in token.split("."))
        code = "token_expired" if reason == "expired" else "invalid_token"
        details = answer.error["details"]
        assert refused.get("claim") == details.get("claim")
        found = answer.status, answer.error["code"], details.get("reason", reason)
        if found != (401, code, reason):
            wrong.append((name, found))
        assert answer.headers["WWW-Authenticate"].startswith("Bearer")
    assert not wrong
    assert "/evil" not in host.asked
    assert (await ask(balancer, ec_signer().token())).status == 200


@pytest.mark.parametrize("make", [rsa_signer, ec_signer, ed_signer])
async def test_a_good_token_of_each_algorithm_comes_in(
    balancer: RunningBalancer, make: Callable[[], Signer]
) -> None:
    for token in (
        make().token(),
        make().token({"typ": "at+jwt"}),
        make().token(aud=["x", AUDIENCE]),
    ):
        assert (await ask(balancer, token)).status == 200
    assert (await ask(balancer, by_secret(iss=BACKEND))).status == 200


async def test_claims_say_role_tier_tenant_and_models(balancer: RunningBalancer) -> None:
    url = balancer.management_url + "/agents"
    for roles, status in ((["paddler-admin", "x"], 200), (["paddler-user"], 403), (None, 403)):
        token = ec_signer().token(realm_access={"roles": roles} if roles else None)
        async with balancer.session.get(url, headers=bearer(token)) as answer:
            assert answer.status == status
    token = ec_signer().token(models=["gemma3"], team="blue", tier="pro")
    async with FakeAgent(balancer.management_port, token=SYSTEM):
        refused = await balancer.post("/v1/chat/completions", CHAT, bearer(token))
        assert (refused.status, refused.error["code"]) == (403, "model_not_allowed")
    found = balancer.app.wiring.gate.principal_of(token, "192.0.2.1")
    assert isinstance(found, Principal)
    assert (found.tenant, found.tier, found.models) == ("blue", "pro", ("gemma3",))


async def test_an_agent_may_join_with_a_token_of_role_system(balancer: RunningBalancer) -> None:
    roster = balancer.app.wiring.roster
    token = by_secret(iss=BACKEND, role="system")
    async with FakeAgent(balancer.management_port, token=token):
        assert len(tuple(roster.agents())) == 1


async def test_the_same_subject_is_limited_as_each_of_its_tokens_says(host: ProviderHost) -> None:
    limits = LimitTable(
        roles={
            "user": Allowance(limits=Limits(requests_per_minute=1)),
            "admin": Allowance(limits=Limits(requests_per_minute=100)),
        },
        classes={},
    )
    async with running_balancer(auth=jwt_auth(host), limits=limits) as balancer:
        as_admin = by_secret(iss=BACKEND, role="admin")
        as_user = by_secret(iss=BACKEND)
        assert [(await ask(balancer, token)).status for token in (as_admin, as_user)] == [200, 429]
        assert (await ask(balancer, as_admin)).status == 200


async def test_keys_rotate_without_a_restart_and_old_ones_open_nothing(
    balancer: RunningBalancer, host: ProviderHost, soon: None
) -> None:
    assert soon is None
    old, new = ec_signer(), ec_signer("ec-2")
    assert (await ask(balancer, old.token())).status == 200
    cookie = await signed_in(balancer, old.token(realm_access={"roles": ["paddler-admin"]}))
    socket = await balancer.session.ws_connect(
        balancer.management_url + "/ws/control",
        headers=bearer(old.token(realm_access={"roles": ["paddler-admin"]})),
    )
    host.publish(key_set(old.published(), new.published()))
    await until(balancer, new.token(), 200)  # the unknown key has them fetched
    assert (await ask(balancer, old.token())).status == 200
    cached = old.token()
    assert (await ask(balancer, cached)).status == 200
    host.publish(key_set(new.published(), ec_signer("ec-3").published()))
    await until(balancer, ec_signer("ec-3").token(), 200)
    refused = await ask(balancer, cached)
    assert (refused.status, refused.error["code"]) == (401, "invalid_token")
    async with balancer.session.get(balancer.management_url + "/agents", headers=cookie) as answer:
        assert answer.status == 401
    async with asyncio.timeout(PATIENCE_S):
        async for _ in socket:  # it ends
            pass


async def test_a_session_ends_with_its_key_also_where_its_token_was_forgotten(
    host: ProviderHost, soon: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert soon is None
    monkeypatch.setattr(KnownCredentials.__init__, "__defaults__", (1,))
    async with running_balancer(auth=jwt_auth(host), limits=unlimited()) as balancer:
        await keys_known(balancer)
        as_admin = ec_signer().token(realm_access={"roles": ["paddler-admin"]})
        cookie = await signed_in(balancer, as_admin)
        assert (await ask(balancer, by_secret(iss=BACKEND))).status == 200  # one is known at most
        host.publish(key_set(ec_signer("ec-3").published()))
        await until(balancer, ec_signer("ec-3").token(), 200)
        url = balancer.management_url + "/agents"
        async with balancer.session.get(url, headers=cookie) as answer:
            assert answer.status == 401


async def test_a_token_opens_a_session_of_the_dashboard(balancer: RunningBalancer) -> None:
    as_admin = ec_signer().token(realm_access={"roles": ["paddler-admin"]})
    cookie = await signed_in(balancer, as_admin)
    async with balancer.session.get(balancer.management_url + "/agents", headers=cookie) as answer:
        assert answer.status == 200
    async with balancer.session.post(
        balancer.management_url + "/session", json={"key": ec_signer().token()}
    ) as answer:
        assert answer.status == 403


LIES = {
    "HTML": (b"<html>Sign in</html>", 200, {"Content-Type": "text/html"}),
    "nothing": (b"", 200, {}),
    "cut off": (key_set(ec_signer("ec-2").published())[:-20], 200, {}),
    "an error": (b"{}", 500, {}),
    "another page": (b"", 302, {"Location": "/elsewhere"}),
    "huge": (b'{"keys":[' + b" " * 300_000 + b"]}", 200, {}),
    "no keys": (key_set(), 200, {}),
    "keys that are no list": (encoded({"keys": {"a": 1}}), 200, {}),
    "keys that are no objects": (encoded({"keys": ["a"]}), 200, {}),
    "too many keys": (
        key_set(
            ec_signer("ec-2").published(),
            *(ec_signer("ec-2").published(kid=str(number)) for number in range(64)),
        ),
        200,
        {},
    ),
    "a private key": (key_set(ec_signer("ec-2").private()), 200, {}),
    "a secret": (
        key_set(ec_signer("ec-2").published(), {"kty": "oct", "k": segment(b"x" * 32)}),
        200,
        {},
    ),
    "two of a name": (
        key_set(ec_signer("ec-2").published(), ec_signer("evil").published(kid="ec-2")),
        200,
        {},
    ),
    "a point that is not on the curve": (
        key_set(ec_signer("ec-2").published(y=segment(bytes(32)))),
        200,
        {},
    ),
    "keys for something else": (key_set(ec_signer("ec-2").published(use="enc")), 200, {}),
    "a member twice": (b'{"keys":[],' + key_set(ec_signer("ec-2").published())[1:], 200, {}),
    "compressed": (b"\x1f\x8b" + bytes(20), 200, {"Content-Encoding": "gzip"}),
}


async def test_a_lying_provider_gives_no_key_and_takes_none(
    balancer: RunningBalancer, host: ProviderHost, soon: None
) -> None:
    assert soon is None
    good, hoped_for, clients = ec_signer().token(), ec_signer("ec-2").token(), addresses()
    for name, (data, status, headers) in LIES.items():
        host.publish(data, status=status, headers=headers)
        asked = len(host.asked)
        with capture_logs() as logs:
            while len(host.asked) < asked + 2:  # the second time it has judged the first
                assert (await ask(balancer, hoped_for, address=next(clients))).status == 401, name
        assert "keys not fetched" in [one["event"] for one in logs], name
        assert (await ask(balancer, ec_signer().token(sub=name))).status == 200, name
        assert (await ask(balancer, good)).status == 200, name
    assert "/elsewhere" not in host.asked


async def test_a_slow_provider_keeps_nobody_waiting(
    balancer: RunningBalancer, host: ProviderHost, soon: None
) -> None:
    assert soon is None
    host.publish(key_set(ec_signer("ec-2").published()))
    host.may_answer.clear()
    asked = len(host.asked)
    assert (await ask(balancer, ec_signer("ec-2").token())).status == 401
    await eventually(lambda: len(host.asked) > asked, "the provider is asked")
    for _ in range(5):
        assert (await ask(balancer, ec_signer("ec-2").token())).status == 401
    assert (await ask(balancer, ec_signer().token())).status == 200
    assert len(host.asked) == asked + 1
    host.may_answer.set()
    await until(balancer, ec_signer("ec-2").token(), 200)


async def test_before_its_keys_are_known_a_token_is_neither_good_nor_bad(
    host: ProviderHost, soon: None
) -> None:
    assert soon is None
    host.may_answer.clear()
    async with running_balancer(auth=jwt_auth(host), limits=unlimited()) as balancer:
        for _ in range(70):  # it counts as no wrong attempt
            answer = await ask(balancer, ec_signer().token())
            assert (answer.status, answer.error["code"]) == (503, "identity_unavailable")
        assert int(answer.headers["Retry-After"]) >= 1
        assert (await ask(balancer, USER)).status == 200
        assert (await ask(balancer, by_secret(iss=BACKEND))).status == 200
        host.may_answer.set()
        await keys_known(balancer)


async def test_who_sends_wrong_tokens_is_heard_less_but_who_was_right_goes_on(
    balancer: RunningBalancer,
) -> None:
    good = ec_signer().token()
    assert (await ask(balancer, good)).status == 200
    wrong = ec_signer("evil").token({"kid": "ec-1"})
    statuses = [(await ask(balancer, wrong)).status for _ in range(65)]
    assert statuses == [401] * 60 + [429] * 5
    assert (await ask(balancer, ec_signer().token(sub="bob"))).status == 429
    assert (await ask(balancer, good)).status == 200
    assert (await ask(balancer, ec_signer().token(note="another of hers"))).status == 200


async def test_settings_are_reloaded_and_show_no_secret(tmp_path: Path) -> None:
    file = tmp_path / "paddler.yaml"
    ports = "inference: 127.0.0.1:0\nmanagement: 127.0.0.1:0\n"
    section = "auth:\n  jwt:\n    secret: {secret}\n    claims: {{role: role}}\n"
    file.write_text(ports + section.format(secret=SECRET))
    as_admin: Any = {"iss": None, "aud": None, "role": "admin"}
    old, new = by_secret(**as_admin), by_secret(secret=SECRET[::-1], **as_admin)
    configuration = Configuration(Sources(config=file))
    async with running_balancer(configuration=configuration) as balancer:
        assert [(await ask(balancer, one)).status for one in (old, new)] == [200, 401]
        url = balancer.management_url
        async with balancer.session.get(url + "/config", headers=bearer(old)) as answer:
            shown = await answer.text()
        assert '"secret":"***"' in shown
        assert SECRET not in shown
        cookie = await signed_in(balancer, old)
        with_a_key = section.format(secret=SECRET) + "  api_keys: [sk-another]\n"
        for text, status in ((with_a_key, 200), (section.format(secret=SECRET[::-1]), 401)):
            file.write_text(ports + text)
            async with balancer.session.post(url + "/config/reload", headers=bearer(old)) as answer:
                assert answer.status == 200
            async with balancer.session.get(url + "/agents", headers=cookie) as answer:
                assert answer.status == status
        assert [(await ask(balancer, one)).status for one in (old, new)] == [401, 200]


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Providers are asked again at once."""
    monkeypatch.setattr("balancer.services.key_refresh.LEAST_GAP_S", 0.0)


async def until(balancer: RunningBalancer, token: str, status: int) -> None:
    """Ask until the answer is this; nobody is counted for it, as each comes from elsewhere."""
    deadline_s = time.monotonic() + PATIENCE_S
    for address in addresses():
        if (await ask(balancer, token, address=address)).status == status:
            return
        assert time.monotonic() < deadline_s, f"the answer was never {status}"


async def signed_in(balancer: RunningBalancer, token: str) -> dict[str, str]:
    """The header of a session's cookie."""
    async with balancer.session.post(
        balancer.management_url + "/session", json={"key": token}
    ) as answer:
        assert answer.status == 201
        cookie = answer.cookies["paddler_session"].value
    balancer.session.cookie_jar.clear()
    return {"Cookie": f"paddler_session={cookie}"}
