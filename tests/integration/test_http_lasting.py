"""Connections end with what let them in: others' tokens, passwords, keys of the configuration."""

from __future__ import annotations

import time
from base64 import b64encode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import jwt
import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType
from argon2 import PasswordHasher

from balancer.access import Auth, ClaimRules, Credential, JwtIssuer, PasswordHolder
from balancer.config_file.configuration import Configuration
from balancer.config_file.load import Sources
from balancer.secret import Secret
from balancer.services import key_watch
from tests.support.keys import ADMIN, bearer, credential, unlimited
from tests.support.running_balancer import PATIENCE_S, RunningBalancer, running_balancer

SECRET = "a secret of thirty-two characters"
FILE = """
inference: 127.0.0.1:0
management: 127.0.0.1:0
auth:
  api_keys: [{key: admin-key, name: ops, role: admin}]
  jwt: [{algorithms: [HS256], secret: SECRET, claims: {role: role}}]
"""


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_watch, "INTERVAL_S", 0.02)


def token(lives_s: float = 60.0) -> str:
    claims = {"sub": "me", "role": "admin", "exp": time.time() + lives_s}
    return jwt.encode(claims, SECRET, algorithm="HS256")


@asynccontextmanager
async def live_socket(
    balancer: RunningBalancer, headers: dict[str, str]
) -> AsyncIterator[ClientWebSocketResponse]:
    url = balancer.management_url + "/ws/metrics"
    async with balancer.session.ws_connect(url, headers=headers) as socket:
        assert (await socket.receive(PATIENCE_S)).type is WSMsgType.TEXT
        yield socket


async def reason_of_end(socket: ClientWebSocketResponse) -> str:
    """Why the balancer closed it, for good."""
    while (message := await socket.receive(PATIENCE_S)).type is WSMsgType.TEXT:
        pass
    assert (message.type, message.data) == (WSMsgType.CLOSE, 1008)
    return str(message.extra)


async def sign_in(balancer: RunningBalancer, key: str) -> dict[str, str]:
    url = balancer.management_url + "/session"
    async with balancer.session.post(url, json={"key": key}) as answer:
        assert answer.status == 201
        cookie = answer.cookies["paddler_session"].value
        balancer.session.cookie_jar.clear()
        return {"Cookie": f"paddler_session={cookie}"}


async def test_a_socket_ends_with_the_key_token_or_password_that_opened_it() -> None:
    hashed = PasswordHasher(time_cost=1, memory_cost=7 * 1024, parallelism=1).hash("pw")
    ends_s = time.time() + 1.0
    holder = PasswordHolder(
        name="ci",
        password_hash=Secret(hashed),
        credential=Credential(digest=b"", id="basic:ci", role="admin", expires_s=ends_s),
    )
    issuer = JwtIssuer(
        algorithms=("HS256",), secret=Secret(SECRET), leeway_s=0.0, claims=ClaimRules(role="role")
    )
    key = credential("brief", role="admin", expires_s=ends_s)
    auth = Auth(api_keys=(key,), jwt=(issuer,), basic=(holder,))
    by_password = {"Authorization": "Basic " + b64encode(b"ci:pw").decode()}
    async with running_balancer(auth=auth, limits=unlimited()) as balancer:
        brief = token(ends_s - time.time())
        async with (
            live_socket(balancer, by_password) as one,
            live_socket(balancer, bearer(brief)) as other,
            live_socket(balancer, await sign_in(balancer, brief)) as third,
            live_socket(balancer, bearer("brief")) as fourth,
            live_socket(balancer, bearer(token())) as stays,
        ):
            assert "expired" in await reason_of_end(one)
            assert "expired" in await reason_of_end(other)
            assert "session is over" in await reason_of_end(third)
            assert "expired" in await reason_of_end(fourth)
            assert not stays.closed


async def test_what_tokens_let_in_ends_when_it_is_changed_who_signs_them(tmp_path: Path) -> None:
    path = tmp_path / "paddler.yaml"
    path.write_text(FILE.replace("SECRET", SECRET))
    async with (
        running_balancer(configuration=Configuration(Sources(config=path))) as balancer,
        live_socket(balancer, bearer(token())) as by_token,
        live_socket(balancer, await sign_in(balancer, token())) as by_session,
        live_socket(balancer, bearer(ADMIN)) as by_key,
    ):
        path.write_text(FILE.replace("SECRET", "another " + SECRET))
        url = balancer.management_url + "/config/reload"
        async with balancer.session.post(url, headers=bearer(ADMIN)) as answer:
            assert answer.status == 200
        assert "changed" in await reason_of_end(by_token)
        assert await reason_of_end(by_session)
        assert not by_key.closed
