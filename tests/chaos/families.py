"""An agent is killed in the middle of a stream of each family of APIs: each says the same.

Round by round: the agent that has all of the streams is killed at a random moment, they go on at
the one that is left, and another is started beside it.
"""

from __future__ import annotations

import asyncio
import json
import signal
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

import aiohttp

from agent.demo_model import corpus
from tests.chaos.storm import FLAGS, STREAM_PATIENCE_S
from tests.support.cluster import Cluster, Program

LATEST = 0.5
"""A kill comes when at most so much of a stream is there: something is left to go on with."""

Body = dict[str, Any]


@dataclass(frozen=True)
class Family:
    """A route that streams, what it is asked, and what its events say."""

    path: str
    body: Callable[[str], Body]
    take: Callable[[Body], tuple[str, object]]
    """An event's text, and what it says about the end, if anything."""


@dataclass
class Heard:
    """What a client heard of one stream."""

    text: str = ""
    pieces: int = 0
    ending: list[object] = field(default_factory=list)
    """Why it ended, its count of tokens, the mark at its end."""
    error: str = ""

    @property
    def said(self) -> tuple[object, ...]:
        """What must not differ; how the text was cut into pieces may."""
        return (self.text, self.ending, self.error)


@dataclass
class Killings:
    """What became of the streams whose agents were killed."""

    interrupted: dict[str, int] = field(default_factory=lambda: dict.fromkeys(FAMILIES, 0))
    """By family, the streams that were not over for their client when their agent was killed."""
    different: list[tuple[str, Heard, Heard]] = field(default_factory=list)
    """A family, what was expected, what was heard."""
    moves: int = 0
    """How often a stream went on elsewhere."""

    @property
    def words(self) -> str:
        """The figures, and what went wrong."""
        counts = ", ".join(f"{count} {name}" for name, count in self.interrupted.items())
        lines = [f"streams interrupted: {counts}; moved {self.moves}"]
        lines += [
            f"{name}: expected {one.said}, got {two.said}" for name, one, two in self.different
        ]
        return "\n  ".join(lines)


async def families(folder: Path, *, kills: int, seed: int = 1) -> Killings:
    """Kill so many agents, each in the middle of one stream of every family."""
    dice, outcome, cluster = Random(seed), Killings(), Cluster(folder)
    timeout = aiohttp.ClientTimeout(total=STREAM_PATIENCE_S)
    try:
        await asyncio.to_thread(cluster.start_balancer, *FLAGS)
        worker = await _start(cluster, 0)
        async with aiohttp.ClientSession(cluster.inference_url, timeout=timeout) as session:
            for number in range(1, kills + 1):
                spare = await _start(cluster, number)
                await _kill_one(session, cluster, worker, f"number-{number}", dice, outcome)
                worker = spare
        outcome.moves = int(cluster.metric("paddler_generation_moves_total"))
    finally:
        await asyncio.to_thread(cluster.close)
    return outcome


async def _kill_one(
    session: aiohttp.ClientSession,
    cluster: Cluster,
    worker: Program,
    spare: str,
    dice: Random,
    outcome: Killings,
) -> None:
    question, _ = dice.choice(corpus.long_counting_tasks())
    cluster.operate(f"/agents/{spare}/drain")  # so that all of them begin at the other agent
    expected = {name: Heard() for name in FAMILIES}
    await _listen_to_all(session, question, expected, lambda: None)
    heard = {name: Heard() for name in FAMILIES}
    watched = dice.choice(list(FAMILIES))
    moment = dice.randint(1, int(expected[watched].pieces * LATEST))

    def kill_at_the_moment() -> None:
        began = all(one.pieces for one in heard.values())
        if worker.exit_code is None and began and heard[watched].pieces >= moment:
            for name, one in heard.items():
                outcome.interrupted[name] += not one.ending
            worker.send(signal.SIGKILL)
            worker.wait()
            cluster.operate(f"/agents/{spare}/undrain")

    await _listen_to_all(session, question, heard, kill_at_the_moment)
    for name, one in heard.items():
        if one.said != expected[name].said:
            outcome.different.append((name, expected[name], one))


async def _start(cluster: Cluster, number: int) -> Program:
    name, slots = f"number-{number}", str(len(FAMILIES))
    return await asyncio.to_thread(cluster.start_agent, name, "--slots", slots)


async def _listen_to_all(
    session: aiohttp.ClientSession,
    question: str,
    heard: dict[str, Heard],
    on_piece: Callable[[], None],
) -> None:
    """A stream of each family at once, to their ends."""
    async with asyncio.TaskGroup() as tasks:
        for name, one in heard.items():
            tasks.create_task(_listen(session, FAMILIES[name], question, one, on_piece))


async def _listen(
    session: aiohttp.ClientSession,
    family: Family,
    question: str,
    heard: Heard,
    on_piece: Callable[[], None],
) -> None:
    body = {"model": "demo", "stream": True, **family.body(question)}
    async with session.post(family.path, json=body) as answer:
        if answer.status != 200:
            heard.error = f"HTTP {answer.status}: {(await answer.text())[:300]}"
            return
        async for line in answer.content:
            data = line.removeprefix(b"data:").strip()
            if data == b"[DONE]":
                heard.ending.append("[DONE]")
            elif data.startswith(b"{"):
                _take(heard, family, json.loads(data))
                on_piece()


def _take(heard: Heard, family: Family, event: Body) -> None:
    if "error" in event:
        heard.error = json.dumps(event["error"])[:300]
        return
    text, ending = family.take(event)
    heard.text += text
    heard.pieces += bool(text)
    if ending is not None:
        heard.ending.append(ending)


def _asked(question: str) -> Body:
    return {"messages": [{"role": "user", "content": question}]}


def _openai(question: str) -> Body:
    usage = {"stream_options": {"include_usage": True}}
    return {"temperature": 0, "max_tokens": 700, **usage, **_asked(question)}


def _prompted(question: str) -> Body:
    prompt = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    return {**_openai(question), "prompt": prompt}


def _of_openai(event: Body) -> tuple[str, object]:
    if not event["choices"]:
        return "", event["usage"]["completion_tokens"]
    (choice,) = event["choices"]
    text = choice["text"] if "text" in choice else choice["delta"].get("content")
    return text or "", choice["finish_reason"]


def _of_responses(event: Body) -> tuple[str, object]:
    match event["type"]:
        case "response.output_text.delta":
            return event["delta"], None
        case "response.completed" | "response.failed" | "response.incomplete":
            return "", (event["type"], event["response"]["usage"]["output_tokens"])
    return "", None


def _of_anthropic(event: Body) -> tuple[str, object]:
    match event["type"]:
        case "content_block_delta":
            return event["delta"]["text"], None
        case "message_delta":
            return "", (event["delta"]["stop_reason"], event["usage"]["output_tokens"])
        case "message_stop":
            return "", "message_stop"
    return "", None


def _of_ollama(event: Body) -> tuple[str, object]:
    ending = (event["done_reason"], event["eval_count"]) if event["done"] else None
    return event["message"]["content"], ending


FAMILIES: dict[str, Family] = {
    "chat": Family("/v1/chat/completions", _openai, _of_openai),
    "completions": Family("/v1/completions", _prompted, _of_openai),
    "responses": Family(
        "/v1/responses",
        lambda question: {"temperature": 0, "max_output_tokens": 700, "input": question},
        _of_responses,
    ),
    "anthropic": Family(
        "/v1/messages",
        lambda question: {"temperature": 0, "max_tokens": 700, **_asked(question)},
        _of_anthropic,
    ),
    "ollama": Family(
        "/api/chat",
        lambda question: {
            "options": {"temperature": 0, "repeat_penalty": 1, "num_predict": 700},
            **_asked(question),
        },
        _of_ollama,
    ),
}
