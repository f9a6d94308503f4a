"""A balancer in the middle of its day, for pictures and for looking around: `python -m
tests.support.lively_cluster FOLDER` writes its ports as a line of JSON, later in another one which
request moved to another agent and is over, and goes on until it is ended.

The balancer, its API and its dashboard are the real ones. Agents are scripted, clients ask over
HTTP, and the ten minutes before it started are played into its series.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import os
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp

from balancer.app import App, build
from balancer.config_file.configuration import Configuration
from balancer.config_file.load import Sources
from balancer.observability.log_ring import LogRing
from balancer.observability.logging import configure
from protocol.agent_status import Issue
from protocol.models import ServedModel
from tests.support.lively_agent import FAILING_TOKENS, GIB, Host, LivelyAgent, Pace
from tests.support.running_balancer import eventually

UP_S = 222_000
PAST_S = 600
WARM_S = 7.0
STORY_MODEL = "llama-3.3-70b"

QWEN = ServedModel(
    name="qwen3-8b",
    aliases=("qwen3",),
    context_tokens=32_768,
    trained_context_tokens=40_960,
    size_bytes=5_027_783_488,
    parameters=8_190_735_360,
    architecture="qwen3",
    description="Chat, tools and reasoning in 100 languages",
    quantization="Q4_K - Medium",
)
LLAMA = ServedModel(
    name=STORY_MODEL,
    context_tokens=131_072,
    trained_context_tokens=131_072,
    size_bytes=42_520_393_152,
    parameters=70_553_706_560,
    architecture="llama",
    description="The large one, for hard questions",
    quantization="Q4_K - Medium",
)
EMBEDDING = ServedModel(
    name="bge-m3",
    context_tokens=8192,
    trained_context_tokens=8192,
    size_bytes=1_157_671_200,
    parameters=567_754_752,
    architecture="bert",
    description="Vectors for search",
    quantization="F16",
    has_chat_template=False,
    generates=False,
    embedding_dimensions=1024,
)
SMALL = ServedModel(
    name="gemma-3-4b",
    context_tokens=16_384,
    trained_context_tokens=131_072,
    size_bytes=2_489_757_856,
    parameters=3_880_099_328,
    architecture="gemma3",
    description="Small and quick, good enough for summaries",
    quantization="Q4_K - Medium",
)
RTX = ("NVIDIA GeForce RTX 4090", 24 * GIB)
H100 = ("NVIDIA H100 80GB HBM3", 80 * GIB)
EPYC, XEON = "AMD EPYC 7543P 32-Core Processor", "Intel Xeon E-2388G"


def _host(name: str, cpu: str, cores: int, gib: int, **more: Any) -> Host:
    return Host(hostname=name, cpu=cpu, cores=cores, memory_bytes=gib * GIB, **more)


QUICK, LARGE = Pace(), Pace(prefill_s=(0.2, 0.7), token_s=0.06)
CASTING: tuple[tuple[str, int, ServedModel, Host, Pace], ...] = (
    ("berlin-gpu-1", 8, QWEN, _host("ber1", EPYC, 32, 128, gpus=(RTX,), load=0.86), QUICK),
    ("berlin-gpu-2", 8, QWEN, _host("ber2", EPYC, 32, 128, gpus=(RTX,), load=0.78), QUICK),
    ("berlin-gpu-3", 8, QWEN, _host("ber3", EPYC, 32, 128, gpus=(RTX,), load=0.04), QUICK),
    ("lab-cpu-1", 0, EMBEDDING, _host("lab1", XEON, 16, 64, load=0.31), QUICK),
    (
        "lab-cpu-2",
        4,
        SMALL,
        _host(
            "lab2",
            XEON,
            16,
            32,
            load=0.64,
            issues=(
                Issue(
                    code="memory_low",
                    message="1.9 GiB of memory are left: lower --slots or --context-size.",
                    severity="warning",
                ),
                Issue(
                    code="host_busy",
                    message="Other programs keep 61 % of the processor busy.",
                    severity="warning",
                ),
            ),
        ),
        QUICK,
    ),
)
OSLO = ("oslo-gpu-1", 4, LLAMA, _host("osl1", EPYC, 64, 512, gpus=(H100, H100), load=0.93), LARGE)
ROME = ("rome-gpu-1", 1, LLAMA, _host("rom1", EPYC, 64, 512, gpus=(H100,), load=0.7), LARGE)
DRAINED = "berlin-gpu-3"
CLIENTS = ((QWEN, 11, (24, 130)), (LLAMA, 6, (150, 320)), (SMALL, 2, (30, 90)))
"""Of each model: how many ask it again and again, and for how many tokens."""


class LivelyCluster:
    """What goes on in it, all in one task group. Leaving it ends everything."""

    def __init__(self, app: App, session: aiohttp.ClientSession, tasks: asyncio.TaskGroup) -> None:
        self._session = session
        self._tasks = tasks
        self._dice = random.Random(7)
        self._url = f"http://{app.address_of('inference')}"
        self._management = app.address_of("management")

    async def run(self) -> None:
        """Agents, clients, the story of a request that moves; and now and then an error."""
        await asyncio.gather(*(self._join(*row) for row in CASTING))
        async with self._session.post(f"http://{self._management}/agents/{DRAINED}/drain"):
            pass
        self._tasks.create_task(self._story())
        for model, count, tokens in CLIENTS:
            for index in range(count):
                self._tasks.create_task(self._ask_for_ever(model, index, tokens))
        while True:
            await asyncio.sleep(2.5)
            await self._ask(SMALL, FAILING_TOKENS)

    async def _join(
        self, name: str, slots: int, model: ServedModel, host: Host, pace: Pace
    ) -> LivelyAgent:
        agent = LivelyAgent(
            self._management.port, name=name, slots=slots, model=model, host=host, pace=pace
        )
        await agent.open()
        await agent.register()
        return agent

    async def _story(self) -> None:
        """It waits for the only slot, is begun, loses its agent, and goes on with another one."""
        rome = await self._join(*ROME)
        before = self._tasks.create_task(self._ask(LLAMA, 6))
        told = self._tasks.create_task(self._ask(LLAMA, 32))
        await before
        await eventually(lambda: any(call.sent > 9 for call in rome.calls.values()), "it is told")
        await self._join(*OSLO)
        rome.kill()
        print(json.dumps({"moved": await told}), flush=True)  # noqa: T201 (it is waited for)

    async def _ask_for_ever(self, model: ServedModel, index: int, tokens: tuple[int, int]) -> None:
        dice = random.Random(f"{model.name} {index}")
        if model is LLAMA:
            await asyncio.sleep(2.5)  # the story is told first
        for turn in itertools.count():
            if model is QWEN and index == 0 and turn % 2:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._ask(model, 90), 0.9)
            await self._ask(model, dice.randint(*tokens))
            await asyncio.sleep(dice.uniform(0.05, 0.4))

    async def _ask(self, model: ServedModel, max_tokens: int) -> str:
        """The request's id, once it is over."""
        body = {
            "model": model.name,
            "messages": [{"role": "user", "content": f"{self._dice.random()}"}],
            "max_tokens": max_tokens,
            "stream": True,
        }
        async with self._session.post(f"{self._url}/v1/chat/completions", json=body) as answer:
            async for _ in answer.content:
                pass
            return answer.headers["X-Paddler-Request-Id"]


def bell(at: float, middle: float, width: float) -> float:
    """1 in the middle, and near 0 twice so far from it."""
    return math.exp(-(((at - middle) / width) ** 2))


def past() -> Iterator[dict[str, float | None]]:
    """Ten minutes, a sample a second: calm, with two rushes and an agent that was lost."""
    dice = random.Random(3)
    drift, noise = 0.0, 0.0
    for second in range(PAST_S):
        drift = 0.9 * drift + 0.1 * dice.uniform(-1, 1)
        noise = 0.8 * noise + 0.2 * dice.uniform(-1, 1)
        wave = math.sin(second / 47) * 0.12 + math.sin(second / 13) * 0.05 + drift * 0.5
        rush = bell(second, 190, 34) + 0.7 * math.exp(-(((second - 430) / 26) ** 2))
        busy = min(1.0, max(0.2, 0.66 + wave + 0.5 * rush))
        waiting = max(0, round(12 * (rush - 0.1) + 6 * drift + 2.6))
        has_lost = 250 <= second < 310
        yield {
            "requests.per_second": round(max(0.2, 4.0 * busy + 0.5 * noise), 1),
            "tokens.per_second": round(320 * busy + 16 * noise, 1),
            "latency.ttft_p50_ms": round(215 + 120 * rush + 40 * wave + 12 * noise),
            "latency.ttft_p95_ms": round(720 + 800 * rush + 120 * wave + 60 * noise),
            "slots.used": round((31 if has_lost else 32) * min(0.9, busy * 0.76)),
            "slots.total": 31 if has_lost else 32,
            "requests.waiting": waiting,
            "queue.wait_p50_ms": round(2.5 + 380 * rush, 1),
            "queue.wait_p95_ms": round(340 + 1800 * rush + 300 * drift + 60 * noise),
            "cache.hit_rate": min(0.94, max(0.3, 0.63 + 0.1 * math.sin(second / 80) + 0.1 * drift)),
            "failovers.per_minute": 1 if has_lost else 0,
        }


async def remember(app: App) -> None:
    """Put the past in place, once the rates of the last seconds are those of a cluster at work."""
    await asyncio.sleep(WARM_S)
    series = app.wiring.samples.series
    end = series.read(last=1).end
    for second, values in enumerate(past(), 1 - PAST_S):
        series.add(values, at=end + second)


def settings_in(folder: Path) -> Path:
    """The file that the balancer reads, by a name that fits anywhere: from the folder it is in."""
    os.chdir(folder)
    file = Path("paddler.yaml")
    file.write_text(
        "inference: 127.0.0.1:0\nmanagement: 127.0.0.1:0\nheartbeat_interval_s: 0.5\n"
        "heartbeat_misses: 100\nqueue_timeout_s: 120\nmax_waiting: 256\n"
    )
    return file


async def run(folder: Path) -> None:
    """Until it is ended. What it needs on disk is in this folder."""
    file = settings_in(folder)
    ring = LogRing()
    configure("info", "json", ring)
    app = build(Configuration(Sources(config=file)), log_ring=ring)
    # the feed tells since when; a figure beside ten minutes that were played would be none
    vars(vars(app.wiring.live.control)["_feed"])["_started"] = int(time.time()) - UP_S
    app.bind()
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(connector=connector) as session, asyncio.TaskGroup() as tasks:
        ready = asyncio.Event()
        tasks.create_task(app.run(lambda _: ready.set()))
        await ready.wait()
        tasks.create_task(remember(app))
        tasks.create_task(LivelyCluster(app, session, tasks).run())
        ports = {name: app.address_of(name).port for name in ("inference", "management")}
        print(json.dumps(ports), flush=True)  # noqa: T201 (what it is asked for)


if __name__ == "__main__":
    import sys

    asyncio.run(run(Path(sys.argv[1])))
