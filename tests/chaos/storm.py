"""Streams through a fleet whose agents are killed, frozen and robbed of their engines all the time.

Every stream must come to its end, and say exactly what it says on a quiet day: the shipped model
with an F32 cache and no flash attention, so that going on elsewhere is the same text.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import signal
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import aiohttp
import psutil

from agent.demo_model import corpus
from tests.support.cluster import Cluster, Program, eventually

AGENTS = 4
SLOTS = 8
FLAGS = ("--heartbeat-interval", "0.5", "--heartbeat-misses", "3", "--queue-timeout", "120")
STREAM_PATIENCE_S = 120.0
FAULTS = ("kill", "freeze", "rob")
"""An agent killed; stopped, so that its heartbeats are missed; its engine killed."""

Body = dict[str, Any]


@dataclass
class Said:
    """What one stream said, by kind of delta, and how it went."""

    parts: dict[str, str] = field(default_factory=dict)
    usage: dict[str, Any] = field(default_factory=dict)
    finish_reason: str = ""
    attempts: int = 0
    longest_gap_s: float = 0.0
    error: str = ""

    @property
    def words(self) -> tuple[object, ...]:
        """What must not differ: every character, the count of tokens, how it ended."""
        counted = (self.usage.get("prompt_tokens"), self.usage.get("completion_tokens"))
        return (tuple(sorted(self.parts.items())), counted, self.finish_reason)


@dataclass
class Tally:
    """What became of all streams."""

    streams: int = 0
    moved: int = 0
    moves: int = 0
    failed: list[str] = field(default_factory=list)
    different: list[tuple[str, Said, Said]] = field(default_factory=list)
    faults: Counter[str] = field(default_factory=Counter)
    gaps_s: list[float] = field(default_factory=list)
    """The longest silence of each stream that was moved."""

    def add(self, name: str, said: Said, expected: Said) -> None:
        self.streams += 1
        if said.error:
            self.failed.append(f"{name}: {said.error}")
        elif said.words != expected.words:
            self.different.append((name, expected, said))
        if said.attempts > 1:
            self.moved += 1
            self.moves += said.attempts - 1
            self.gaps_s.append(said.longest_gap_s)


def bodies(dice: Random, kinds: tuple[str, ...], count: int) -> dict[str, Body]:
    """Requests of these kinds by a name, `count` of each."""
    made = {}
    for kind, make in KINDS.items():
        if kind in kinds:
            for number in range(count):
                made[f"{kind} {number}"] = {"model": "demo", "stream": True, **make(dice, number)}
    return made


def _counting(dice: Random, _number: int) -> Body:
    question, _ = dice.choice(corpus.long_counting_tasks())
    return {**_asked(question), "temperature": 0, "max_tokens": 700}


def _dice(dice: Random, number: int) -> Body:
    question = f"Roll a die {dice.choice((60, 80, 100, 200))} times."
    return {**_asked(question), "temperature": 0.8, "seed": number, "max_tokens": 500}


def _reasoning(dice: Random, _number: int) -> Body:
    question, _ = corpus.counting_tasks(dice, 1)[0]
    return {**_asked(question), "temperature": 0, "reasoning_effort": "high", "max_tokens": 700}


def _logprobs(dice: Random, _number: int) -> Body:
    return {**_counting(dice, 0), "logprobs": True, "top_logprobs": 2}


def _tools(dice: Random, _number: int) -> Body:
    (task,) = corpus.explicit_tool_calls(dice, 1)
    asked = _asked(task.turn.prompt)
    return {**asked, "tools": list(task.tools), "temperature": 0, "max_tokens": 300}


def _schema(dice: Random, _number: int) -> Body:
    rolls = {"type": "array", "items": {"type": "integer"}, "minItems": 60, "maxItems": 60}
    schema = {
        "type": "object",
        "properties": {"rolls": rolls},
        "required": ["rolls"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "rolls", "schema": schema}}
    question = f"Roll a die {dice.choice((60, 80))} times."
    return {**_asked(question), "temperature": 0, "response_format": form, "max_tokens": 600}


def _stops(dice: Random, _number: int) -> Body:
    return {**_counting(dice, 0), "stop": [" 97 98", "99 1", "7 118"]}


def _asked(question: str) -> Body:
    return {"messages": [{"role": "user", "content": question}]}


KINDS: dict[str, Callable[[Random, int], Body]] = {
    "counting": _counting,
    "dice": _dice,
    "reasoning": _reasoning,
    "tools": _tools,
    "schema": _schema,
    "stops": _stops,
    "logprobs": _logprobs,
}


class Fleet:
    """A balancer and agents, with what is done to them."""

    def __init__(self, cluster: Cluster, dice: Random) -> None:
        self._cluster = cluster
        self._dice = dice
        self._numbers = itertools.count(1)
        self._agents: dict[str, Program] = {}
        self._frozen: list[Program] = []
        self._streams: set[object] = set()
        self._saw_an_engine_die: set[object] = set()

    @contextmanager
    def streaming(self) -> Iterator[None]:
        """One more stream goes on meanwhile."""
        stream = object()
        self._streams.add(stream)
        try:
            yield
        finally:
            self._streams.remove(stream)
            self._saw_an_engine_die.discard(stream)

    async def start(self, *flags: str, agents: int = AGENTS) -> None:
        """All agents, serving; the balancer with these flags, too."""
        await asyncio.to_thread(self._cluster.start_balancer, *FLAGS, *flags)
        for _ in range(agents):
            self._replace()
        await self.until_serving(agents)

    async def until_serving(self, count: int) -> None:
        """Wait until so many agents have slots."""
        await eventually(
            lambda: (
                sum(row["slots"]["total"] > 0 for row in self._cluster.agents().values()) >= count
            ),
            what=f"{count} agents serve",
        )

    async def serving(self) -> list[str]:
        """Agents that the balancer may use now."""
        rows = await asyncio.to_thread(self._cluster.agents)
        return [name for name, row in rows.items() if row["slots"]["total"]]

    async def strike(self, fault: str) -> bool:
        """Do one of `FAULTS` to one agent that serves; False where only one is left.

        No engine dies while a stream goes on that may have seen another die: two that die under
        its prompt make a request poison, and it would be refused as it should be.
        """
        if fault == "rob" and self._saw_an_engine_die:
            return False
        serving = [name for name in await self.serving() if name in self._agents]
        if len(serving) < 2:
            return False
        name = self._dice.choice(serving)
        agent = self._agents[name]
        if fault == "rob":
            engine = await asyncio.to_thread(agent.engine)
            self._saw_an_engine_die = set(self._streams)
            engine.kill()
            return True
        del self._agents[name]
        if fault == "kill":
            agent.send(signal.SIGKILL)
        else:
            agent.send(signal.SIGSTOP)
            self._frozen.append(agent)
        self._replace()
        return True

    def bury_frozen(self) -> None:
        """End those that were frozen; by then the balancer has given them up."""
        for agent in self._frozen:
            agent.send(signal.SIGCONT)
            agent.send(signal.SIGKILL)
        self._frozen.clear()

    def _replace(self) -> None:
        name = f"agent-{next(self._numbers)}"
        self._agents[name] = self._cluster.start_agent(name, "--slots", str(SLOTS), wait=False)


async def storm(
    folder: Path,
    *,
    seconds: float,
    streams: int = 32,
    every_s: float = 2.0,
    kinds: tuple[str, ...] = tuple(KINDS),
    seed: int = 1,
) -> Tally:
    """Keep so many streams going while something is done to an agent every so often."""
    dice, tally = Random(seed), Tally()
    cluster = Cluster(folder)
    fleet = Fleet(cluster, dice)
    try:
        await fleet.start()
        asked = bodies(dice, kinds, 4)
        async with client(cluster.inference_url) as ask:
            expected = {name: await ask(body) for name, body in asked.items()}
            for name, said in expected.items():
                assert not said.error, f"{name} on a quiet day: {said.error}"
            until = time.monotonic() + seconds
            async with asyncio.TaskGroup() as tasks:
                for _ in range(streams):
                    tasks.create_task(_keep_asking(fleet, ask, asked, expected, tally, dice, until))
                tasks.create_task(_keep_striking(fleet, tally, dice, until, every_s))
    finally:
        fleet.bury_frozen()
        await asyncio.to_thread(cluster.close)
    return tally


async def _keep_asking(
    fleet: Fleet,
    ask: Callable[[Body], Any],
    asked: dict[str, Body],
    expected: dict[str, Said],
    tally: Tally,
    dice: Random,
    until: float,
) -> None:
    names = list(asked)
    while time.monotonic() < until:
        name = dice.choice(names)
        with fleet.streaming():
            said = await ask(asked[name])
        tally.add(name, said, expected[name])


async def _keep_striking(
    fleet: Fleet, tally: Tally, dice: Random, until: float, every_s: float
) -> None:
    while (left_s := until - time.monotonic()) > 0:
        await asyncio.sleep(min(every_s, left_s))
        for fault in dice.sample(FAULTS, len(FAULTS)):
            if await fleet.strike(fault):
                tally.faults[fault] += 1
                break


@asynccontextmanager
async def client(url: str) -> AsyncIterator[Callable[[Body], Any]]:
    timeout = aiohttp.ClientTimeout(total=STREAM_PATIENCE_S)
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(url, timeout=timeout, connector=connector) as session:

        async def ask(body: Body) -> Said:
            said = Said()
            try:
                await _read(session, body, said)
            except (aiohttp.ClientError, TimeoutError) as error:
                said.error = f"{type(error).__name__}: {error}"
            return said

        yield ask


async def _read(session: aiohttp.ClientSession, body: Body, said: Said) -> None:
    include = {"stream_options": {"include_usage": True}}
    async with session.post("/v1/chat/completions", json={**body, **include}) as answer:
        if answer.status != 200:
            said.error = f"HTTP {answer.status}: {(await answer.text())[:300]}"
            return
        before, is_done = time.monotonic(), False
        async for line in answer.content:
            if not line.startswith(b"data: "):
                continue
            now = time.monotonic()
            said.longest_gap_s, before = max(said.longest_gap_s, now - before), now
            if line.strip() == b"data: [DONE]":
                is_done = True
            else:
                _take(said, json.loads(line[6:]))
        if not is_done and not said.error:
            said.error = "the stream ended without [DONE]"


def _take(said: Said, event: dict[str, Any]) -> None:
    if "error" in event:
        said.error = json.dumps(event["error"])[:300]
    said.usage = event.get("usage") or said.usage
    said.attempts = event.get("_proxy_info", {}).get("attempt_number", said.attempts)
    for choice in event.get("choices", ()):
        said.finish_reason = choice.get("finish_reason") or said.finish_reason
        for key, value in choice["delta"].items():
            if key == "tool_calls":
                for call in value:
                    function = call["function"]
                    text = function.get("name", "") + function["arguments"]
                    _append(said, f"tool {call['index']}", text)
            elif isinstance(value, str) and key != "role":
                _append(said, key, value)
        for entry in (choice.get("logprobs") or {}).get("content") or ():
            _append(said, "tokens with logprobs", entry["token"])


def _append(said: Said, kind: str, text: str) -> None:
    said.parts[kind] = said.parts.get(kind, "") + text


def leftovers() -> list[int]:
    """Engines that outlived their agents: none may."""
    return [
        process.pid
        for process in psutil.process_iter(["cmdline", "ppid"])
        if "agent.engine.worker" in " ".join(process.info["cmdline"] or ())
        and process.info["ppid"] in (1, os.getpid())
    ]
