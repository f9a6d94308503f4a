"""An open balancer that pages of other origins attack, and what has become of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlencode

import aiohttp
from msgspec import Struct, structs

from balancer.http.document.operation import Example
from balancer.http.document.operations import OPERATIONS
from balancer.http.exchange import Port
from balancer.http.router import Route
from balancer.http.routes import ROUTES
from protocol.models import ServedModel
from tests.support.cluster import wait_until
from tests.support.fake_agent import FakeAgent, Script
from tests.support.lent_balancer import LentBalancer, lent_balancer

MODEL = ServedModel(name="paddler-demo", context_tokens=2048, embedding_dimensions=3, reranks=True)
ASSETS = ("/assets/icon.svg", "/assets/app/first.js", "/assets/styles/base.css")
"""What a browser would show, run and apply, were it let in."""
KEYS = "/keys"
FIRST_KEY = {"name": "strangers", "role": "admin"}
"""What would close the door, for all but whoever has the key."""


class Change(Struct, frozen=True, kw_only=True):
    """A request that changes something or costs work."""

    method: str
    path: str
    body: str


class Targets(Struct, frozen=True, kw_only=True):
    """What there is to attack on one port: a row for each name of each route of the table."""

    changes: tuple[Change, ...]
    reads: tuple[str, ...]
    sockets: tuple[str, ...]

    def few(self) -> Targets:
        """Some of each kind."""
        streams = tuple(path for path in self.reads if "/streams/" in path)
        return Targets(
            changes=self.changes[:2] + self.changes[-2:],
            reads=self.reads[:2] + self.reads[-2:] + streams,
            sockets=self.sockets[:1],
        )

    def apart_from_keys(self) -> tuple[Targets, Targets]:
        """All but what makes a key, and that alone: after it everybody needs one."""
        making = tuple(one for one in self.changes if one.path.endswith(KEYS))
        others = tuple(one for one in self.changes if one not in making)
        return structs.replace(self, changes=others), Targets(changes=making, reads=(), sockets=())


class Victim:
    """A balancer whose agent works on one request, `held`; `stored` is the id of a response."""

    def __init__(self, lent: LentBalancer) -> None:
        self._lent = lent
        self.balancer, self.agent = lent.balancer, lent.agent
        self.held: str = lent.run(self._hold())
        self.stored: str = lent.run(self._store())

    def url(self, port: Port, host: str = "127.0.0.1") -> str:
        """The origin of one port, by this name of the host."""
        balancer = self.balancer
        number = balancer.inference_port if port == "inference" else balancer.management_port
        return f"http://{host}:{number}"

    def targets(self, port: Port) -> Targets:
        """All of them, with the ids of what there is; other methods than GET and HEAD change."""
        rows = [route for route in ROUTES if port in route.ports]
        sockets = [path for row in rows if row.is_socket for path in (row.path, *row.aliases)]
        reads = [
            self._filled(row.path) for row in rows if row.method == "GET" and not row.is_socket
        ]
        changes = [change for row in rows if row.method != "GET" for change in self._changes(row)]
        shown = ASSETS if port == "management" else ()
        return Targets(changes=tuple(changes), reads=(*reads, *shown), sockets=tuple(sockets))

    def state(self) -> dict[str, Any]:
        """Everything that an attack could have changed, or had an agent do."""
        return {
            "door": self.is_open,
            "agents": [(row["id"], row["state"]) for row in self._get("/agents")["data"]],
            "requests": [(row["id"], row["state"]) for row in self._get("/requests")["data"]],
            "finished": [row["id"] for row in self._get("/requests/finished")["data"]],
            "log level": self._get("/log-level"),
            "configuration": self._get("/config/status"),
            "stored": self._lent.run(self._status(f"/v1/responses/{self.stored}")),
            "generations": len(self.agent.started),
            "questions": len(self.agent.asked),
        }

    @property
    def is_open(self) -> bool:
        """Whether nobody has to sign in."""
        return self.balancer.app.wiring.gate.is_open

    def answers(self) -> dict[str, float]:
        """How many requests of each route were answered, by the class of the status; refusals are
        left out."""
        return {row: count for row, count in self._answered() if '"4xx"' not in row}

    def refusals(self) -> float:
        """How many requests were refused."""
        return sum(count for row, count in self._answered() if '"4xx"' in row)

    def has_refused(self, count: float) -> None:
        """Wait until so many were."""
        wait_until(lambda: self.refusals() >= count, what="all came, and were refused")

    def _answered(self) -> Iterator[tuple[str, float]]:
        for line in self.balancer.app.wiring.metrics.text().decode().splitlines():
            if line.startswith("paddler_requests_total{"):
                row, _, count = line.rpartition(" ")
                yield row, float(count)

    def _changes(self, route: Route) -> Iterator[Change]:
        example = _example_of(route)
        given = FIRST_KEY if route.path == KEYS else example.body
        body = "{}" if given is None else json.dumps(given)
        query = f"?{urlencode(example.query)}" if example.query else ""
        for path in (route.path, *route.aliases):
            yield Change(method=route.method, path=self._filled(path) + query, body=body)

    def _filled(self, path: str) -> str:
        """With an id of what there is; `KeyError` for a route of something else."""
        there = {
            "agents": "one",
            "assets": "index.html",
            "keys": "key_of_nobody",
            "models": MODEL.name,
            "requests": self.held,
            "responses": self.stored,
            "streams": self.held,
        }
        segments = path.split("/")
        return "/".join(
            there[before] if segment.startswith("{") else segment
            for before, segment in zip(["", *segments], segments, strict=False)
        )

    def _get(self, path: str) -> Any:
        return self._lent.run(self.balancer.get_json(self.balancer.management_url + path))

    async def _status(self, path: str) -> int:
        async with self.balancer.session.get(self.balancer.url + path) as answer:
            return answer.status

    async def _hold(self) -> str:
        """A stream that may be taken up again, and has begun; its answer is never read."""
        async with asyncio.TaskGroup() as tasks:
            asking = tasks.create_task(self._ask())
            await self.agent.tokens(await self.agent.call(), "a word")
        self._open = asking.result()
        self.agent.script = Script()
        return self._open.headers["X-Paddler-Request-Id"]

    async def _ask(self) -> aiohttp.ClientResponse:
        body = {"messages": [{"role": "user", "content": "hi"}], "stream": True}
        url = f"{self.balancer.url}/v1/chat/completions"
        return await self.balancer.session.post(
            url, json=body, headers={"X-Paddler-Resumable": "1"}
        )

    async def _store(self) -> str:
        answer = await self.balancer.post("/v1/responses", {"input": "hi", "store": True})
        kept: str = answer.json()["id"]
        return kept

    def let_go(self) -> None:
        """Do not read what `held` answers any longer."""
        self._lent.run(self._close())

    async def _close(self) -> None:
        self._open.close()


def _example_of(route: Route) -> Example:
    """The first request of the document for this route."""
    return next(
        row.examples[0]
        for row in OPERATIONS
        if (row.method, row.path) == (route.method, route.path)
    )


@contextmanager
def victim(**settings: Any) -> Iterator[Victim]:
    """One, until the block ends."""

    def agent(port: int) -> FakeAgent:
        return FakeAgent(port, model=MODEL, script=Script(is_held=True))

    with lent_balancer(agent, **settings) as lent:
        made = Victim(lent)
        try:
            yield made
        finally:
            made.let_go()
