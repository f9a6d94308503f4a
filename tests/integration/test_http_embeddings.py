"""Embeddings over HTTP, with real agents and a tiny model: one agent or two, also when one dies."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import openai
import pytest
from numpy.typing import NDArray

from agent.engine.engine import Engine
from agent.engine.frames import EngineOptions
from agent.settings import BalancerAddress
from balancer.fleet.agent import Agent
from balancer.http.connection import ClientConnection
from tests.support.fake_agent import FakeAgent
from tests.support.memory_agent import MemoryAgent
from tests.support.running_agent import running_agent
from tests.support.running_balancer import (
    Answer,
    RunningBalancer,
    chat_bytes,
    eventually,
    running_balancer,
    small_buffers,
)
from tests.support.tiny_embedding_gguf import CONTEXT, WIDTH, write_tiny_bert

WORDS = ("the", "cat", "dog", "sat", "ran", "on", "mat", "port", "which", "is")
CLOSE = 1e-4
"""The same input in another micro-batch goes through other kernels: see docs/agent-link.md."""


def sentences(count: int, words: int = 12) -> list[str]:
    """Texts of which no two are alike."""
    dice = np.random.default_rng(1)
    return [
        " ".join([*dice.choice(WORDS, words), *f"{index:05d}"]) for index in range(count)
    ]  # fmt: skip


class Site:
    """A balancer, its agents' engines by name, and a client."""

    def __init__(self, balancer: RunningBalancer, engines: dict[str, Engine]) -> None:
        self.balancer = balancer
        self.engines = engines

    async def embed(self, given: Any, **more: Any) -> Answer:
        return await self.balancer.post("/v1/embeddings", {"input": given, **more})

    def agent(self, name: str) -> Agent:
        agent = self.balancer.app.wiring.roster.agent(name)
        assert agent is not None
        return agent


@asynccontextmanager
async def site(model: Path, *names: str) -> AsyncIterator[Site]:
    """Agents of these names that all serve the model."""
    options = EngineOptions(
        model_path=str(model), threads=1, cache_type="f32", flash_attention="off"
    )
    async with running_balancer() as balancer:
        address = BalancerAddress("127.0.0.1", balancer.management_port)
        found = Site(balancer, {name: Engine(options) for name in names})
        async with asyncio.TaskGroup() as tasks:
            is_over = asyncio.Event()

            async def run(name: str) -> None:
                engine = found.engines[name]
                async with running_agent(address, engine, name=name, model_path=model):
                    await is_over.wait()

            for name in names:
                tasks.create_task(run(name))
            roster = balancer.app.wiring.roster
            await eventually(
                lambda: sum(agent.queries_free > 0 for agent in roster.agents()) == len(names),
                "all agents serve",
            )
            try:
                yield found
            finally:
                is_over.set()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_bert(tmp_path_factory.mktemp("models") / "tiny.gguf")


def vectors_of(answer: Answer) -> NDArray[np.float64]:
    """All vectors of an answer [inputs, width], whose places must be right."""
    body = answer.json()
    assert answer.status == 200, body
    assert [row["index"] for row in body["data"]] == list(range(len(body["data"])))
    return np.array([row["embedding"] for row in body["data"]])


async def test_one_text_a_list_and_token_ids_are_embedded_and_counted(model: Path) -> None:
    async with site(model, "one") as target:
        single = await target.embed("the cat sat")
        several = await target.embed(["the cat sat", "on the mat"])
        assert vectors_of(single).shape == (1, WIDTH)
        assert np.allclose(np.linalg.norm(vectors_of(several), axis=1), 1.0)
        assert np.abs(vectors_of(several)[0] - vectors_of(single)[0]).max() < CLOSE
        body = several.json()
        tokens = body["usage"]["prompt_tokens"]
        assert tokens > single.json()["usage"]["prompt_tokens"] > 0
        assert body["usage"] == {"prompt_tokens": tokens, "total_tokens": tokens}
        assert body["model"] == "tiny"
        assert several.headers["X-Paddler-Agent"] == "one"
        ids = await target.embed([[2, 5, 6, 3], [2, 7, 3]])
        assert ids.json()["usage"]["prompt_tokens"] == 7
        assert np.array_equal(vectors_of(await target.embed([2, 5, 6, 3])).shape, (1, WIDTH))
        row = (await target.balancer.get_json(f"{target.balancer.url}/v1/models"))["data"][0]
        assert (row["status"], row["capabilities"]["embeddings"]) == ("healthy", True)
        assert (await target.balancer.get_json(f"{target.balancer.url}/ready"))["status"] == "ready"


async def test_openai_s_own_client_reads_numbers_and_base64_alike(model: Path) -> None:
    async with site(model, "one") as target:
        base_url = f"{target.balancer.url}/v1"
        async with openai.AsyncOpenAI(base_url=base_url, api_key="none") as client:
            packed = await client.embeddings.create(model="tiny", input=["the cat"])
            plain = await client.embeddings.create(
                model="tiny", input=["the cat"], encoding_format="float"
            )
            short = await client.embeddings.create(model="tiny", input="the cat", dimensions=4)
        assert packed.data[0].embedding == plain.data[0].embedding
        kept = np.array(plain.data[0].embedding[:4])
        assert np.allclose(short.data[0].embedding, kept / np.linalg.norm(kept), atol=1e-6)


async def test_what_the_model_cannot_do_is_a_400_that_names_it(model: Path) -> None:
    async with site(model, "one") as target:
        wide = await target.embed("a", dimensions=WIDTH + 1)
        assert (wide.status, wide.error["param"]) == (400, "dimensions")
        long = await target.embed(["a", "cat " * 500])
        assert (long.status, long.error["code"]) == (400, "context_length_exceeded")
        assert long.error["param"] == "input[1]"
        ids = await target.embed([[1], [10**6]])
        assert (ids.status, ids.error["param"]) == (400, "input[1]")
        unknown = await target.embed("a", model="nobody")
        assert (unknown.status, unknown.error["code"]) == (404, "model_not_found")
        assert target.balancer.app.wiring.embedding.in_flight == 0


async def test_an_input_that_is_too_long_is_cut_for_ollama_s_clients_unless_they_object(
    model: Path,
) -> None:
    async with site(model, "one") as target:
        body = {"model": "tiny", "input": ["the cat", "cat " * 500]}
        cut = await target.balancer.post("/api/embed", body)
        whole = await target.embed(["the cat", " ".join(["cat"] * (CONTEXT - 2))])
        assert cut.json()["prompt_eval_count"] == whole.json()["usage"]["prompt_tokens"]
        assert np.abs(np.array(cut.json()["embeddings"]) - vectors_of(whole)).max() < CLOSE
        refused = await target.balancer.post("/api/embed", {**body, "truncate": False})
        assert (refused.status, refused.json()["detail"]["param"]) == (400, "input[1]")


async def test_a_model_that_makes_none_says_so() -> None:
    async with running_balancer() as balancer, FakeAgent(balancer.management_port):
        answer = await balancer.post("/embeddings", {"input": "a", "model": "demo"})
        assert (answer.status, answer.error["param"]) == (400, "model")
        assert "makes no embeddings" in answer.error["message"]


async def test_a_batch_over_two_agents_is_the_one_of_a_single_agent(model: Path) -> None:
    texts = sentences(300)
    async with site(model, "one") as target:
        alone = await target.embed(texts)
    async with site(model, "one", "two") as target:
        both = await target.embed(texts)
    assert set(both.headers["X-Paddler-Agent"].split(", ")) == {"one", "two"}
    assert np.abs(vectors_of(both) - vectors_of(alone)).max() < CLOSE
    assert both.json()["usage"] == alone.json()["usage"]


def kill_engine(target: Site, name: str) -> None:
    pid = target.engines[name].pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def cut_link(target: Site, name: str) -> None:
    target.agent(name).link.close("the test says so")


@pytest.mark.parametrize("strike", [kill_engine, cut_link])
async def test_an_agent_that_dies_in_the_middle_of_a_batch_is_not_noticed(
    model: Path, strike: Callable[[Site, str], None]
) -> None:
    texts = sentences(600, words=20)
    async with site(model, "one", "two") as target:
        whole = await target.embed(texts)
        task = asyncio.ensure_future(target.embed(texts))
        links = [target.agent(name).link for name in ("one", "two")]
        await eventually(lambda: all(len(link.queries) for link in links), "both work on it")
        strike(target, "one")
        again = await task
        assert np.abs(vectors_of(again) - vectors_of(whole)).max() < CLOSE
        assert again.json()["usage"] == whole.json()["usage"]
        assert target.balancer.metric("paddler_embedding_parts_moved_total") >= 1


async def test_a_client_that_leaves_ends_its_batch(model: Path) -> None:
    async with site(model, "one") as target:
        task = asyncio.ensure_future(target.embed(sentences(600, words=20)))
        wiring = target.balancer.app.wiring
        await eventually(lambda: len(target.agent("one").link.queries), "it runs")
        rows = (await target.balancer.get_json(f"{target.balancer.management_url}/requests"))[
            "data"
        ]
        assert [(row["state"], row["agent"]) for row in rows] == [("running", "one")]
        task.cancel()
        await eventually(
            lambda: not (wiring.embedding.in_flight or len(target.agent("one").link.queries)),
            "nothing is left",
        )


async def test_a_client_that_reads_slowly_is_sent_a_large_answer_piece_by_piece(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    unsent: list[int] = []

    def note(connection: ClientConnection) -> None:
        unsent.append(connection.unsent_bytes())
        pause(connection)

    pause = ClientConnection.pause_writing
    monkeypatch.setattr(ClientConnection, "pause_writing", note)
    texts = [f"{index}" for index in range(64)]
    async with running_balancer(
        small_buffers, max_unsent_bytes=64 * 1024, heartbeat_interval_s=60.0
    ) as balancer:
        roster = balancer.app.wiring.roster
        agent = MemoryAgent(roster, slots=0, queries=1, dimensions=2048).register()
        async with slow_client(balancer) as (reader, writer):
            writer.write(chat_bytes("/v1/embeddings", input=texts, encoding_format="float"))
            await eventually(lambda: agent.unanswered_questions, "the agent is asked")
            agent.embed(agent.unanswered_questions[0])
            await eventually(lambda: unsent, "the client does not read")
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"chunked" in head
            chunks = b""
            while not chunks.endswith(b"\r\n0\r\n\r\n"):
                chunks += await reader.read(65536)
    body = b"".join(chunks.split(b"\r\n")[1::2])
    assert [len(row["embedding"]) for row in json.loads(body)["data"]] == [2048] * len(texts)
    assert len(unsent) > 1
    assert max(unsent) < len(body) / 4


async def test_a_client_that_reads_nothing_of_a_large_answer_is_dropped() -> None:
    async with running_balancer(
        small_buffers,
        max_unsent_bytes=64 * 1024,
        heartbeat_interval_s=60.0,
        slow_client_timeout_s=0.3,
    ) as balancer:
        roster = balancer.app.wiring.roster
        agent = MemoryAgent(roster, slots=0, queries=1, dimensions=2048).register()
        async with slow_client(balancer) as (_, writer):
            writer.write(chat_bytes("/v1/embeddings", input=["a"] * 64))
            await eventually(lambda: agent.unanswered_questions, "the agent is asked")
            agent.embed(agent.unanswered_questions[0])
            await eventually(
                lambda: balancer.metric("paddler_slow_clients_dropped_total") == 1, "it is dropped"
            )
            await eventually(lambda: balancer.metric("paddler_requests_total"), "it is summed up")


@asynccontextmanager
async def slow_client(
    balancer: RunningBalancer,
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection of which the client's side holds little that was not read."""
    with socket.socket() as sock:
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        address = ("127.0.0.1", balancer.inference_port)
        await asyncio.get_running_loop().sock_connect(sock, address)
        reader, writer = await asyncio.open_connection(sock=sock, limit=1024)
        try:
            yield reader, writer
        finally:
            writer.close()
            await writer.wait_closed()
