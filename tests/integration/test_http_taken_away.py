"""What a key let in is let in no more once the key is taken away, or is used from elsewhere."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import WSMsgType
from msgspec import structs

from balancer.access import Auth, Credential
from balancer.services import key_watch
from tests.support.keys import ADMIN, USER, auth, bearer, credential, unlimited
from tests.support.running_balancer import PATIENCE_S, RunningBalancer, eventually, running_balancer

BOUND = "key-of-this-address"
HERE, ELSEWHERE = "127.0.0.1", "127.0.0.2"


def bound_to(*networks: str) -> Auth:
    """A key of each role, and one that may come from these alone."""
    return auth(credential(BOUND, role="admin", networks=networks))


@pytest.fixture
async def balancer(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[RunningBalancer]:
    monkeypatch.setattr(key_watch, "INTERVAL_S", 0.02)
    async with running_balancer(auth=bound_to(f"{HERE}/32"), limits=unlimited()) as running:
        yield running


class SlowRequest:
    """A POST whose body has begun, and waits."""

    def __init__(self, port: int, path: str, body: Any, key: str = "") -> None:
        self._data = json.dumps(body).encode()
        self._port = port
        sent = f"Authorization: Bearer {key}\r\n" if key else ""
        self._head = (
            f"POST {path} HTTP/1.1\r\nHost: localhost\r\n{sent}"
            f"Content-Length: {len(self._data)}\r\n\r\n"
        )

    async def begin(self) -> None:
        """Be let in."""
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", self._port)
        self._writer.write(self._head.encode() + self._data[:1])
        await self._writer.drain()

    async def end(self) -> int:
        """Send the rest; the answer's status."""
        self._writer.write(self._data[1:])
        async with asyncio.timeout(PATIENCE_S):
            line = await self._reader.readline()
        self._writer.close()
        return int(line.split()[1])


def replace_auth(balancer: RunningBalancer, changed: Auth) -> None:
    """As a reload of the file does."""
    live = balancer.app.wiring.configuration.live
    live.replace(structs.replace(live.current, auth=changed))


async def status_of(
    balancer: RunningBalancer, path: str, headers: dict[str, str], *, address: str = HERE
) -> int:
    """Of a request to the management port from an address of this host."""
    connector = aiohttp.TCPConnector(local_addr=(address, 0))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(balancer.management_url + path, headers=headers) as answer,
    ):
        return answer.status


async def cookie_of(balancer: RunningBalancer, key: str) -> dict[str, str]:
    """Of a session that a key opened."""
    url = balancer.management_url + "/session"
    async with balancer.session.post(url, json={"key": key}) as answer:
        assert answer.status == 201
        cookie = answer.cookies["paddler_session"].value
    balancer.session.cookie_jar.clear()
    return {"Cookie": f"paddler_session={cookie}"}


async def until_let_in(balancer: RunningBalancer, count: int) -> None:
    """Wait until so many requests stand on what they signed in with."""
    lasting = balancer.app.wiring.gate.lasting
    await eventually(lambda: len(lasting) >= count, "requests whose bodies are on the way")


async def test_a_revoked_key_makes_no_other_by_a_request_that_it_began_before(
    balancer: RunningBalancer,
) -> None:
    made = await balancer.app.wiring.keys.create(
        "stolen", Credential(digest=b"", id="stolen", role="admin"), is_managed=True
    )
    port, body = balancer.management_port, {"name": "back-door", "role": "admin"}
    late = SlowRequest(port, "/keys", body, made.text)
    in_time = SlowRequest(port, "/keys", {"name": "good"}, ADMIN)
    await late.begin()
    await in_time.begin()
    await until_let_in(balancer, 2)
    await balancer.app.wiring.keys.revoke("stolen")
    assert [await late.end(), await in_time.end()] == [401, 201]
    names = await balancer.app.wiring.keys.overview(lambda kept: [one.name for one in kept.keys])
    assert names == ["stolen", "good"]


async def test_nothing_is_generated_for_a_key_that_ended_while_its_request_came(
    balancer: RunningBalancer,
) -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    late = SlowRequest(balancer.inference_port, "/v1/chat/completions", body, USER)
    await late.begin()
    await until_let_in(balancer, 1)
    replace_auth(balancer, Auth(api_keys=(credential(ADMIN, role="admin"),)))
    assert await late.end() == 401


async def test_who_needed_no_key_when_a_request_began_needs_one_when_the_door_was_closed() -> None:
    async with running_balancer() as balancer:
        late = SlowRequest(balancer.management_port, "/keys", {"name": "mine", "role": "admin"})
        await late.begin()
        await until_let_in(balancer, 1)
        replace_auth(balancer, bound_to())
        assert await late.end() == 401


async def test_a_session_is_good_only_where_its_key_is(balancer: RunningBalancer) -> None:
    cookie = await cookie_of(balancer, BOUND)
    assert await status_of(balancer, "/agents", bearer(BOUND), address=ELSEWHERE) == 401
    places = (HERE, ELSEWHERE, HERE)
    found = [await status_of(balancer, "/agents", cookie, address=place) for place in places]
    assert found == [200, 401, 200]


@pytest.mark.parametrize("by", ["a key", "a cookie"])
async def test_a_socket_ends_when_its_key_may_not_come_from_there_any_more(
    balancer: RunningBalancer, by: str
) -> None:
    headers = bearer(BOUND) if by == "a key" else await cookie_of(balancer, BOUND)
    url = balancer.management_url + "/ws/control"
    async with balancer.session.ws_connect(url, headers=headers) as socket:
        await socket.receive(PATIENCE_S)  # the snapshot
        replace_auth(balancer, bound_to(f"{ELSEWHERE}/32"))
        while (message := await socket.receive(PATIENCE_S)).type is WSMsgType.TEXT:
            pass
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1008)
        assert "address" in str(message.extra)


async def test_who_signs_in_at_the_dashboard_sends_no_more_than_a_key(
    balancer: RunningBalancer,
) -> None:
    url = balancer.management_url + "/session"
    async with balancer.session.post(url, json={"key": "x" * 20_000}) as answer:
        assert answer.status == 413
        assert "16 KiB" in await answer.text()
