"""API keys that are made while the balancer runs: what they open, and that they end everywhere."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Any

import pytest
from aiohttp import ClientWebSocketResponse, WSMsgType

from balancer.access import Credential
from balancer.policy.identity.key_text import RANDOM_BYTES, key_text
from balancer.services import key_watch
from balancer.storage import sqlite_file
from balancer.storage.sql_keys import FILE_NAME, SqlKeys
from tests.support.fake_agent import FakeAgent, Script
from tests.support.keys import ADMIN, auth, bearer, credential, unlimited
from tests.support.running_balancer import (
    PATIENCE_S,
    Answer,
    RunningBalancer,
    eventually,
    running_balancer,
)

CHAT = {"messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture(autouse=True)
def looks_often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(key_watch, "INTERVAL_S", 0.02)
    monkeypatch.setattr(sqlite_file, "LOCK_TIMEOUT_S", 4.0)


class Operator:
    """Calls `/keys`, with a key once there is one."""

    def __init__(self, balancer: RunningBalancer) -> None:
        self.balancer = balancer
        self.key = ""

    @property
    def headers(self) -> dict[str, str]:
        return bearer(self.key) if self.key else {}

    async def call(self, method: str, path: str = "", **given: Any) -> Answer:
        """A call to `/keys` and what lies under it, read to its end."""
        url = f"{self.balancer.management_url}/keys{path}"
        async with self.balancer.session.request(
            method, url, headers=self.headers, **given
        ) as answer:
            return Answer(status=answer.status, headers=answer.headers, body=await answer.read())

    async def make(self, name: str, **said: Any) -> Any:
        """A new key, with all that the answer says."""
        answer = await self.call("POST", json={"name": name, **said})
        assert answer.status == 201, answer.body
        return answer.json()

    async def list(self, **query: str) -> Any:
        """What GET answers."""
        return (await self.call("GET", params=query)).json()


@pytest.fixture
async def open_door(tmp_path: Path) -> AsyncIterator[Operator]:
    """Nobody has a key yet."""
    async with running_balancer(data_dir=str(tmp_path), limits=unlimited()) as balancer:
        yield Operator(balancer)


@pytest.fixture
async def operator(open_door: Operator) -> Operator:
    """Who made the first key."""
    open_door.key = (await open_door.make("ops", role="admin"))["key"]
    return open_door


@pytest.fixture
def elsewhere(tmp_path: Path, operator: Operator) -> Any:
    """The same store, as `paddler-py keys` opens it in another process."""
    assert operator.key
    store = SqlKeys(tmp_path, now=time.time)
    yield store
    store.close()


async def status_with(balancer: RunningBalancer, key: str) -> int:
    async with balancer.session.get(balancer.url + "/v1/models", headers=bearer(key)) as answer:
        return answer.status


async def until_status(balancer: RunningBalancer, key: str, status: int) -> None:
    """Wait until a request with the key is answered so."""
    async with asyncio.timeout(PATIENCE_S):
        while True:
            if await status_with(balancer, key) == status:
                return
            await asyncio.sleep(0.01)


@asynccontextmanager
async def live_socket(
    balancer: RunningBalancer, headers: dict[str, str], path: str = "/ws/control"
) -> AsyncIterator[ClientWebSocketResponse]:
    async with balancer.session.ws_connect(
        balancer.management_url + path, headers=headers
    ) as socket:
        assert (await socket.receive(PATIENCE_S)).type is WSMsgType.TEXT  # the snapshot
        yield socket


async def reason_of_end(socket: ClientWebSocketResponse) -> str:
    """Why the balancer closed it, for good."""
    while (message := await socket.receive(PATIENCE_S)).type is WSMsgType.TEXT:
        pass
    assert (message.type, message.data) == (WSMsgType.CLOSE, 1008)
    return str(message.extra)


async def sign_in(balancer: RunningBalancer, key: str) -> dict[str, str]:
    """The cookie's header, and that of changes."""
    async with balancer.session.post(
        balancer.management_url + "/session", json={"key": key}
    ) as answer:
        assert answer.status == 201
        cookie = answer.cookies["paddler_session"].value
        balancer.session.cookie_jar.clear()
        token = (await answer.json())["csrf_token"]
        return {"Cookie": f"paddler_session={cookie}", "X-CSRF-Token": token}


# --- the first key ---


async def test_the_first_key_is_an_operators_and_closes_the_door_at_once(
    open_door: Operator,
) -> None:
    balancer = open_door.balancer
    refused = await open_door.call("POST", json={"name": "app"})
    assert (refused.status, refused.error["param"]) == (400, "role")
    assert "first key must be an admin's" in refused.error["message"]
    async with FakeAgent(balancer.management_port) as agent, live_socket(balancer, {}) as socket:
        answer = await open_door.call("POST", json={"name": "ops", "role": "admin"})
        assert answer.status == 201
        assert answer.headers["Cache-Control"] == "no-store"
        made = answer.json()
        assert any("--token-file" in note for note in made["notes"])
        assert "now all have to" in await reason_of_end(socket)
        await asyncio.wait_for(agent.is_closed.wait(), PATIENCE_S)
    assert (await open_door.call("GET")).error["code"] == "missing_credentials"
    assert await status_with(balancer, made["key"]) == 200
    open_door.key = made["key"]
    later = await open_door.make("app")
    assert not any("--token-file" in note for note in later["notes"])


async def test_a_key_for_agents_that_could_do_more_is_told_so(operator: Operator) -> None:
    free = await operator.make("gpu-1", role="system")
    bound = await operator.make("gpu-2", role="system", routes=["agents"])
    said = ["an admin may" in " ".join(key["notes"]) for key in (free, bound)]
    assert said == [True, False]


async def test_the_door_stays_closed_when_the_last_key_has_ended_also_after_a_restart(
    tmp_path: Path,
) -> None:
    async with running_balancer(data_dir=str(tmp_path)) as balancer:
        operator = Operator(balancer)
        operator.key = (await operator.make("ops", role="admin"))["key"]
        assert (await operator.call("DELETE", "/ops")).status == 200
        for key in (operator.key, ""):
            operator.key = key
            assert (await operator.call("GET")).status == 401
    async with running_balancer(data_dir=str(tmp_path)) as balancer:
        assert (await Operator(balancer).call("GET")).status == 401


async def test_keys_are_there_after_a_restart(tmp_path: Path) -> None:
    async with running_balancer(data_dir=str(tmp_path)) as balancer:
        key = (await Operator(balancer).make("ops", role="admin"))["key"]
    async with running_balancer(data_dir=str(tmp_path)) as balancer:
        assert await status_with(balancer, key) == 200
        again = Operator(balancer)
        again.key = key
        assert [row["name"] for row in (await again.list())["data"]] == ["ops"]


async def test_without_a_directory_keys_are_in_memory_and_that_is_said() -> None:
    async with running_balancer() as balancer:
        operator = Operator(balancer)
        assert (await operator.list())["kept"] == "memory"
        made = await operator.make("ops", role="admin")
        assert any("data_dir" in note for note in made["notes"])
        assert await status_with(balancer, made["key"]) == 200
        operator.key = made["key"]
        assert (await operator.call("DELETE", f"/{made['id']}")).status == 200
        assert await status_with(balancer, made["key"]) == 401


async def test_keys_of_the_configuration_go_on_beside_those_of_the_store() -> None:
    async with running_balancer(auth=auth(), limits=unlimited()) as balancer:
        operator = Operator(balancer)
        operator.key = ADMIN
        made = await operator.make("app")
        assert [await status_with(balancer, key) for key in (ADMIN, made["key"])] == [200, 200]
        other = await operator.call("DELETE", f"/{ADMIN}")
        assert (other.status, other.error["code"]) == (404, "resource_not_found")


# --- keys at work ---


async def test_a_key_opens_what_was_said_of_it_and_nothing_shows_it_again(
    operator: Operator,
) -> None:
    balancer = operator.balancer
    made = await operator.make(
        "app", models=["demo"], routes=["chat", "models"], tenant="team", expires_in_days=1,
        limits={"requests_per_minute": 50},
    )  # fmt: skip
    system = (await operator.make("agents", role="system"))["key"]
    async with FakeAgent(balancer.management_port, token=system):
        answer = await balancer.post("/v1/chat/completions", CHAT, bearer(made["key"]))
        assert answer.status == 200
        assert answer.headers["X-RateLimit-Limit"] == "50"
        other = await balancer.post("/tokenize", {"content": "a"}, bearer(made["key"]))
        assert (other.status, other.error["code"]) == (403, "insufficient_permissions")
    found = await operator.list()
    row = found["data"][1]
    assert {"key", "notes"} & row.keys() == set()
    assert {name: made[name] for name in row if name != "last_used"} == {
        name: value for name, value in row.items() if name != "last_used"
    }
    assert row["last_used"] is not None
    assert (found["kept"], found["has_more"]) == ("file", False)
    assert made["key"][12:] not in str(found)


@pytest.mark.parametrize("bound", [{"agents": ["north-*"]}, {"routes": ["agents"]}])
async def test_a_key_for_agents_opens_nothing_else(operator: Operator, bound: Any) -> None:
    made = await operator.make("north", role="system", **bound)
    assert made["routes"] == ["agents"]
    async with FakeAgent(operator.balancer.management_port, name="north-1", token=made["key"]):
        assert await status_with(operator.balancer, made["key"]) == 403
        operator.key = made["key"]
        calls = [("GET", ""), ("POST", "?name=mine"), ("DELETE", "/ops"), ("POST", "/ops/rotate")]
        assert [(await operator.call(*one)).status for one in calls] == [403] * 4


async def test_long_lists_come_in_pages(operator: Operator) -> None:
    for name in "abc":
        await operator.make(name)
    first = await operator.list(limit="3")
    assert ([row["name"] for row in first["data"]], first["has_more"]) == (["ops", "a", "b"], True)
    rest = await operator.list(limit="3", after=first["data"][-1]["id"])
    assert ([row["name"] for row in rest["data"]], rest["has_more"]) == (["c"], False)
    nobody = await operator.call("GET", params={"after": "key_0"})
    assert (nobody.status, nobody.error["param"]) == (404, "after")


async def test_uses_are_written_down_when_the_balancer_stops(tmp_path: Path) -> None:
    async with running_balancer(data_dir=str(tmp_path)) as balancer:
        made = await Operator(balancer).make("ops", role="admin")
        assert await status_with(balancer, made["key"]) == 200
    store = SqlKeys(tmp_path, now=time.time)
    assert store.overview().keys[0].used_s is not None
    store.close()


REFUSED: tuple[tuple[Any, int, str], ...] = (
    ({}, 400, "name"),
    ({"name": "a b"}, 400, "name"),
    ({"name": 7}, 400, "name"),
    ({"name": "ops"}, 409, "name"),
    ({"name": "a", "role": "boss"}, 400, "role"),
    ({"name": "a", "tier": "gold"}, 400, "tier"),
    ({"name": "a", "routes": ["cat"]}, 400, "routes[0]"),
    ({"name": "a", "networks": ["10.0.0.1/8"]}, 400, "networks[0]"),
    ({"name": "a", "limits": {"chat": 1}}, 400, "limits.chat"),
    ({"name": "a", "limits": {"routes": {"chat": {"burst": -1}}}}, 400, "limits.routes.chat.burst"),
    ({"name": "a", "expires": "2099-01-01"}, 400, "expires"),
    ({"name": "a", "expires": "2009-01-01T00:00:00Z"}, 400, "expires"),
    ({"name": "a", "expires_in_days": 0}, 400, "expires_in_days"),
    ({"name": "a", "expires_in_days": 1, "expires": "x"}, 400, "expires_in_days"),
    ({"name": "a", "colour": "red"}, 400, "colour"),
    ({"name": "a", "tenant": "t" * 201}, 400, "tenant"),
    ({"name": "a", "models": ["m"] * 1001}, 400, "models"),
    ({"name": "a", "models": ["m" * 201]}, 400, "models"),
)
"""Bodies, the status of their answers, and the parameter at fault."""


async def test_what_cannot_be_made_is_refused_by_name(operator: Operator) -> None:
    wrong = []
    for said, status, param in REFUSED:
        refused = await operator.call("POST", json=said)
        if (refused.status, refused.error["param"]) != (status, param):
            wrong.append((said, refused.status, refused.error))
    assert not wrong
    assert len((await operator.list())["data"]) == 1


async def test_a_key_that_was_mistyped_is_told_so_and_a_guess_is_not(operator: Operator) -> None:
    chat = operator.balancer.post
    slip = await chat("/v1/chat/completions", CHAT, bearer(operator.key[:-1]))
    guess = await chat("/v1/chat/completions", CHAT, bearer(key_text(bytes(RANDOM_BYTES))))
    assert [one.error["code"] for one in (slip, guess)] == ["invalid_api_key"] * 2
    assert "copy it again" in slip.error["message"]
    assert "not known here" in guess.error["message"]


async def test_bytes_that_are_no_text_are_no_key(operator: Operator) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", operator.balancer.inference_port)
    writer.write(
        b"GET /v1/models HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer pk_\xe4\r\n\r\n"
    )
    assert b" 401 " in await reader.readline()
    writer.close()


# --- ends ---


async def test_what_becomes_of_keys_is_in_the_audit_log_also_when_another_process_does_it(
    operator: Operator, elsewhere: SqlKeys, tmp_path: Path
) -> None:
    def lines() -> list[Any]:
        return [json.loads(line) for line in (tmp_path / "audit.jsonl").read_text().splitlines()]

    def noted() -> list[tuple[Any, ...]]:
        return [
            (one["action"], one["target"], one["who"] and one["who"]["role"]) for one in lines()
        ]

    ours = await operator.make("ours")
    await operator.call("POST", f"/{ours['id']}/rotate", json={})
    await operator.call("DELETE", f"/{ours['id']}")
    await eventually(lambda: len(noted()) == 4, "our own lines")
    theirs = elsewhere.create("theirs", Credential(digest=b"", id=""), is_managed=True).key.id
    await eventually(lambda: len(noted()) == 5, "its line")
    elsewhere.rotate(theirs, overlap_s=1.0)
    await eventually(lambda: len(noted()) == 6, "its line")
    elsewhere.revoke(theirs)
    await eventually(lambda: len(noted()) == 7, "its line")
    assert noted() == [
        ("key.create", "ops", "admin"),
        ("key.create", "ours", "admin"),
        ("key.rotate", ours["id"], "admin"),
        ("key.revoke", ours["id"], "admin"),
        ("key.create", theirs, None),
        ("key.rotate", theirs, None),
        ("key.revoke", theirs, None),
    ]
    assert [one["facts"] for one in lines()[1:4]] == [{"id": ours["id"], "name": "ours"}] * 3
    assert not any("pk_" in str(line) for line in lines())


async def test_what_another_process_makes_and_revokes_is_in_force_at_once(
    operator: Operator, elsewhere: SqlKeys
) -> None:
    balancer = operator.balancer
    facts = Credential(digest=b"", id="", role="user")
    made = elsewhere.create("app", facts, is_managed=True)
    await until_status(balancer, made.text, 200)
    elsewhere.revoke("app")
    await until_status(balancer, made.text, 401)
    assert await status_with(balancer, operator.key) == 200


async def test_sessions_and_live_sockets_end_with_the_key_that_opened_them(
    operator: Operator,
) -> None:
    balancer, made = operator.balancer, await operator.make("second", role="admin")
    session = await sign_in(balancer, made["key"])
    async with (
        live_socket(balancer, session) as by_cookie,
        live_socket(balancer, bearer(made["key"]), "/ws/metrics") as by_key,
        live_socket(balancer, operator.headers) as of_another,
    ):
        await operator.call("DELETE", f"/{made['id']}")
        assert "session is over" in await reason_of_end(by_cookie)
        assert "revoked" in await reason_of_end(by_key)
        await of_another.send_json({"type": "ping"})
        assert not of_another.closed
    async with balancer.session.get(balancer.management_url + "/keys", headers=session) as answer:
        assert answer.status == 401


async def test_signing_out_closes_the_sockets_of_that_session_alone(operator: Operator) -> None:
    balancer = operator.balancer
    one, other = [await sign_in(balancer, operator.key) for _ in range(2)]
    async with live_socket(balancer, one) as left, live_socket(balancer, other) as stays:
        async with balancer.session.delete(
            balancer.management_url + "/session", headers=one
        ) as answer:
            assert answer.status == 200
        assert "session is over" in await reason_of_end(left)
        assert not stays.closed


async def test_a_rotated_key_goes_on_with_both_texts_and_ends_with_neither_s_overlap(
    operator: Operator,
) -> None:
    balancer = operator.balancer
    first = await operator.make("second", role="admin")
    second = (await operator.call("POST", "/second/rotate", json={"overlap_s": 600})).json()
    assert second["previous"]["prefix"] == first["prefix"]
    assert [await status_with(balancer, one["key"]) for one in (first, second)] == [200, 200]
    async with (
        live_socket(balancer, bearer(first["key"])) as old,
        live_socket(balancer, bearer(second["key"])) as kept,
    ):
        third = (await operator.call("POST", "/second/rotate")).json()
        assert "replaced" in await reason_of_end(old)
        assert not kept.closed
    keys = [one["key"] for one in (first, second, third)]
    assert [await status_with(balancer, key) for key in keys] == [401, 200, 200]
    wrong = await operator.call("POST", "/second/rotate", json={"overlap_s": -1})
    assert (wrong.status, wrong.error["param"]) == (400, "overlap_s")
    await operator.call("DELETE", "/second")
    ended = await operator.call("POST", f"/{first['id']}/rotate")
    assert (ended.status, ended.error["code"]) == (409, "key_ended")


async def test_what_the_old_text_let_in_ends_with_the_overlap(operator: Operator) -> None:
    balancer, made = operator.balancer, await operator.make("second", role="admin")
    session = await sign_in(balancer, made["key"])
    async with (
        live_socket(balancer, session) as by_cookie,
        live_socket(balancer, bearer(made["key"])) as by_key,
    ):
        await operator.call("POST", "/second/rotate", json={"overlap_s": 0.2})
        assert "session is over" in await reason_of_end(by_cookie)
        assert "expired" in await reason_of_end(by_key)
    await until_status(balancer, made["key"], 401)


async def test_who_closes_the_door_over_a_socket_is_told_the_key_before_it_ends() -> None:
    async with running_balancer() as balancer, live_socket(balancer, {}) as socket:
        params = {"name": "ops", "role": "admin"}
        await socket.send_json({"id": 1, "method": "keys.create", "params": params})
        async with asyncio.timeout(PATIENCE_S):
            while (message := await socket.receive_json()).get("id") != 1:
                pass
        assert "all have to" in await reason_of_end(socket)
        assert await status_with(balancer, message["result"]["key"]) == 200


async def test_nobody_waits_for_the_file_but_who_needs_it(
    operator: Operator, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(tmp_path / FILE_NAME)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        making = asyncio.ensure_future(operator.call("POST", json={"name": "app"}))
        for _ in range(20):
            assert await status_with(operator.balancer, operator.key) == 200
        assert not making.done()
    assert (await making).status == 201


async def test_an_agent_goes_with_its_token_and_what_it_generates_goes_on_elsewhere(
    operator: Operator,
) -> None:
    balancer = operator.balancer
    stays, goes = [(await operator.make(name, role="system"))["key"] for name in ("stays", "goes")]
    port = balancer.management_port
    async with FakeAgent(port, name="a", token=goes, script=Script(is_held=True)) as gone:
        asked = asyncio.ensure_future(
            balancer.post("/v1/chat/completions", CHAT, bearer(operator.key))
        )
        await gone.call()
        async with FakeAgent(port, name="b", token=stays):
            await operator.call("DELETE", "/goes")
            await asyncio.wait_for(gone.is_closed.wait(), PATIENCE_S)
            answer = await asked
            assert answer.status == 200
            assert answer.headers["X-Paddler-Agent"] == "b"


async def test_the_keys_in_force_stay_so_when_their_file_is_taken_away(
    operator: Operator, tmp_path: Path
) -> None:
    (tmp_path / FILE_NAME).unlink()
    refused = await operator.call("POST", json={"name": "app"})
    assert (refused.status, refused.error["code"]) == (503, "store_unavailable")
    assert await status_with(operator.balancer, operator.key) == 200
    operator.key = ""
    assert (await operator.call("GET")).status == 401


# --- the models of a key ---


async def test_a_key_of_some_models_sees_these_alone_wherever_models_are_listed() -> None:
    keys = auth(credential("one", models=("small",)))
    async with (
        running_balancer(auth=keys, limits=unlimited()) as balancer,
        FakeAgent(balancer.management_port, name="a", model="small", token="system-key"),
        FakeAgent(balancer.management_port, name="b", model="large", token="system-key"),
    ):
        await eventually(lambda: len(balancer.app.wiring.roster.served_models()) == 2, "both")
        get = balancer.session.get
        for path, rows, name in (
            ("/v1/models", "data", "id"),
            ("/api/tags", "models", "name"),
            ("/api/ps", "models", "name"),
        ):
            for key, seen in (("one", {"small"}), ("user-key", {"small", "large"})):
                async with get(balancer.url + path, headers=bearer(key)) as answer:
                    found = {row[name] for row in (await answer.json())[rows]}
                    assert {one.removesuffix(":latest") for one in found} == seen, path
        for name, status in (("small", 200), ("large", 403), ("none", 403)):
            async with get(f"{balancer.url}/v1/models/{name}", headers=bearer("one")) as answer:
                assert answer.status == status
            shown = await balancer.post("/api/show", {"model": name}, bearer("one"))
            assert shown.status == status
            assert "small" not in str(shown.json().get("error"))


async def test_a_model_that_is_gone_does_not_tell_of_others() -> None:
    keys = auth(credential("one", models=("gone",)))
    async with (
        running_balancer(auth=keys, limits=unlimited()) as balancer,
        FakeAgent(balancer.management_port, token="system-key"),
    ):
        for path, more in (("/v1/chat/completions", CHAT), ("/v1/embeddings", {"input": "a"})):
            answer = await balancer.post(path, {"model": "gone", **more}, bearer("one"))
            assert answer.status == 404
            assert "demo" not in answer.body.decode()
