"""Routes that ask an agent one question, over HTTP: ids, texts, prompts, scores; and /inference."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from agent.engine.engine import Engine
from agent.engine.frames import EngineOptions
from agent.settings import BalancerAddress
from protocol.refusals import RefusalCode
from protocol.to_agent import Render, Tokenize
from tests.support.fake_agent import FakeAgent, Script
from tests.support.memory_agent import MemoryAgent
from tests.support.running_agent import running_agent
from tests.support.running_balancer import RunningBalancer, eventually, running_balancer
from tests.support.tiny_gguf import write_tiny_causal_reranker, write_tiny_gguf

HI: list[anthropic.types.MessageParam] = [{"role": "user", "content": "hi"}]


@pytest.fixture
async def balancer() -> AsyncIterator[RunningBalancer]:
    async with running_balancer(heartbeat_interval_s=60.0) as balancer:
        yield balancer


# --- as llama-server offers them ---


async def test_a_text_becomes_ids_and_the_ids_the_text(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    given = {"content": "hü", "add_special": True, "parse_special": False}
    tokenized = await balancer.post("/tokenize", given)
    assert tokenized.json() == {"tokens": [104, 0xC3, 0xBC]}
    assert tokenized.headers["X-Paddler-Agent"] == "one"
    assert agent.asked == [Tokenize(text="hü", add_special=True, parse_special=False)]
    text = await balancer.post("/v1/detokenize", tokenized.json())
    assert text.json() == {"content": "hü"}


async def test_each_id_has_its_piece_if_wanted_as_bytes_where_it_is_no_text(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    del agent
    answer = await balancer.post("/v1/tokenize", {"text": "hü", "with_pieces": True})
    assert answer.json()["tokens"] == [
        {"id": 104, "piece": "h"},
        {"id": 0xC3, "piece": [0xC3]},
        {"id": 0xBC, "piece": [0xBC]},
    ]


async def test_a_chat_becomes_its_prompt(balancer: RunningBalancer, agent: FakeAgent) -> None:
    answer = await balancer.post("/apply-template", {"messages": HI})
    assert answer.json() == {"prompt": "[user]hi[assistant]"}
    without = {"messages": HI, "add_generation_prompt": False}
    assert (await balancer.post("/apply-template", without)).json() == {"prompt": "[user]hi"}
    (first, _) = agent.asked
    assert isinstance(first, Render)
    assert first.created > 1_700_000_000


async def test_mistakes_are_named_as_the_client_named_them(balancer: RunningBalancer) -> None:
    agent = MemoryAgent(balancer.app.wiring.roster, queries=1).register()
    asking = asyncio.ensure_future(balancer.post("/detokenize", {"tokens": [7]}))
    await eventually(lambda: agent.unanswered_texts, "the agent is asked")
    message = "`token_ids` has ids outside of the vocabulary"
    agent.refuse_query(
        agent.unanswered_texts[0], RefusalCode.UNSUPPORTED, message, param="token_ids"
    )
    refused = await asking
    assert (refused.status, refused.error["param"]) == (400, "tokens")
    assert refused.error["message"] == "`tokens` has ids outside of the vocabulary"
    missing = await balancer.post("/tokenize", {})
    assert (missing.status, missing.error["param"]) == (400, "content")
    unknown = await balancer.post("/apply-template", {"messages": HI, "model": "nobody"})
    assert (unknown.status, unknown.error["code"]) == (404, "model_not_found")


# --- Anthropic's count ---


async def test_anthropic_s_own_client_counts_a_message(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    async with anthropic.AsyncAnthropic(
        base_url=balancer.url, api_key="none", max_retries=0
    ) as client:
        counted = await client.messages.count_tokens(model="demo", messages=HI, system="Be brief.")
        assert counted.input_tokens == len("[system]Be brief.[user]hi[assistant]")
        agent.script = Script(refuse_with=RefusalCode.INVALID_TEMPLATE)
        with pytest.raises(anthropic.BadRequestError) as refused:
            await client.messages.count_tokens(model="demo", messages=HI)
        body = refused.value.body
        assert isinstance(body, dict)
        assert (body["type"], body["error"]["type"]) == ("error", "invalid_request_error")
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.count_tokens(model="nobody", messages=HI)


# --- reranking ---


async def test_documents_are_ranked_by_their_scores(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    del agent
    body = {
        "model": "demo",
        "query": "which port",
        "documents": ["a cat", {"text": "the port"}, "which port is it"],
        "top_n": 2,
        "return_documents": True,
    }
    for path in ("/v1/rerank", "/rerank"):
        ranked = (await balancer.post(path, body)).json()
        assert ranked["results"] == [
            {"index": 2, "relevance_score": 2.0, "document": {"text": "which port is it"}},
            {"index": 1, "relevance_score": 1.0, "document": {"text": "the port"}},
        ]
        assert ranked["model"] == "demo"
        assert ranked["usage"]["total_tokens"] == ranked["usage"]["prompt_tokens"] > 0


# --- models ---


async def test_one_model_is_shown_by_any_of_its_names(balancer: RunningBalancer) -> None:
    async with FakeAgent(balancer.management_port, model="org/demo"):
        client = openai.AsyncOpenAI(base_url=f"{balancer.url}/v1", api_key="none", max_retries=0)
        async with client:
            shown = await client.models.retrieve("org/demo")
            assert (shown.id, shown.object) == ("org/demo", "model")
            with pytest.raises(openai.NotFoundError) as refused:
                await client.models.retrieve("nobody")
            assert refused.value.code == "model_not_found"
        for path in ("org/demo", "org%2Fdemo", "org%2Fdemo@1", "org%2Fdemo%401"):
            row = await balancer.get_json(f"{balancer.url}/models/{path}")
            assert row["version"] == "1", path
        listed = await balancer.get_json(f"{balancer.url}/v1/models")
        assert [one["id"] for one in listed["data"]] == ["org/demo"]


async def test_a_model_is_addressed_by_its_version_on_every_route(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    answer = await balancer.chat(model="demo@1")
    assert (answer.status, answer.json()["model"]) == (200, "demo@1")
    assert (await balancer.post("/tokenize", {"content": "a", "model": "demo@1"})).status == 200
    assert [one.model for one in agent.started] == ["demo@1"]
    unknown = await balancer.chat(model="demo@2")
    assert (unknown.status, unknown.error["code"]) == (404, "model_not_found")


# --- /inference ---


async def test_inference_gives_one_text_with_its_model_and_version(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    body = {"model_id": "demo", "inputs": {"text": "Hi"}, "parameters": {"max_tokens": 5}}
    answer = (await balancer.post("/inference", body)).json()
    took_ms = answer["outputs"].pop("processing_time_ms")
    assert took_ms >= 0
    assert answer == {
        "model_id": "demo",
        "model_version": "1",
        "outputs": {"generated_text": "Hello, world", "token_count": 4},
    }
    versioned = {**body, "model_version": "1"}
    assert (await balancer.post("/inference", versioned)).json()["model_version"] == "1"
    assert [(one.model, one.prompt, one.max_tokens) for one in agent.started] == [
        ("demo", "Hi", 5),
        ("demo@1", "Hi", 5),
    ]


async def test_a_text_that_takes_longer_than_its_timeout_is_given_up(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    agent.script = Script(is_held=True)
    body = {"model_id": "demo", "inputs": {"text": "Hi"}, "parameters": {"timeout": 0.05}}
    answer = await balancer.post("/inference", body)
    assert (answer.status, answer.json()["detail"]["code"]) == (504, "generation_timeout")


async def test_an_error_of_inference_is_a_text_with_our_object_beside_it(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    del agent
    body: dict[str, Any] = {"model_id": "demo", "inputs": {"text": "Hi"}}
    cases: list[tuple[dict[str, Any], int, str, str]] = [
        ({"model_id": "nobody"}, 404, "model_not_found", "model_id"),
        ({"model_version": "7"}, 404, "model_not_found", "model_id"),
        ({"inputs": {}}, 400, "missing_required_parameter", "inputs.text"),
        ({"parameters": {"stream": True}}, 400, "unsupported_parameter", "parameters.stream"),
    ]
    for changes, status, code, param in cases:
        answer = await balancer.post("/inference", {**body, **changes})
        told = answer.json()
        assert answer.status == status
        assert (told["detail"]["code"], told["detail"]["param"]) == (code, param)
        assert told["error"] == told["detail"]["message"]
        assert told["detail"]["request_id"] == answer.headers["X-Paddler-Request-Id"]


# --- what ends a question ---


async def test_a_client_that_leaves_ends_its_question_at_the_agent(
    balancer: RunningBalancer,
) -> None:
    wiring = balancer.app.wiring
    agent = MemoryAgent(wiring.roster, queries=1).register()
    asking = asyncio.ensure_future(balancer.post("/tokenize", {"content": "a"}))
    await eventually(lambda: agent.unanswered_texts, "the agent is asked")
    asking.cancel()
    await eventually(lambda: agent.cancelled == agent.unanswered_texts, "the agent is told")
    assert wiring.asker.in_flight == 0


async def test_an_operator_sees_a_question_and_ends_it(balancer: RunningBalancer) -> None:
    agent = MemoryAgent(balancer.app.wiring.roster, queries=1).register()
    asking = asyncio.ensure_future(balancer.post("/tokenize", {"content": "a"}))
    await eventually(lambda: agent.unanswered_texts, "the agent is asked")
    url = f"{balancer.management_url}/requests"
    (row,) = (await balancer.get_json(url))["data"]
    assert (row["state"], row["agent"]) == ("running", "one")
    async with balancer.session.delete(f"{url}/{row['id']}") as answer:
        assert answer.status == 200
    ended = await asking
    assert (ended.status, ended.error["code"]) == (409, "request_cancelled")


async def test_a_question_that_finds_no_room_in_time_says_when_to_come_again() -> None:
    async with running_balancer(queue_timeout_s=0.05, heartbeat_interval_s=60.0) as balancer:
        MemoryAgent(balancer.app.wiring.roster, queries=0).register()
        answer = await balancer.post("/tokenize", {"content": "a"})
    assert (answer.status, answer.error["code"]) == (504, "queue_timeout")
    assert int(answer.headers["Retry-After"]) >= 1


# --- with a real engine ---


@pytest.mark.parametrize("adds_bos", [False, True])
async def test_a_real_engine_tokenises_and_counts_as_it_generates(
    balancer: RunningBalancer, tmp_path: Path, adds_bos: bool
) -> None:
    path = write_tiny_gguf(tmp_path / "tiny.gguf", adds_bos=adds_bos)
    engine = Engine(EngineOptions(model_path=str(path), slots=2, threads=1))
    address = BalancerAddress("127.0.0.1", balancer.management_port)
    async with running_agent(address, engine, model_path=path):
        roster = balancer.app.wiring.roster
        await eventually(lambda: any(a.queries_free for a in roster.agents()), "it serves")
        text = "<|im_start|>hello wörld \N{GRINNING FACE}<|im_end|>"
        ids = (await balancer.post("/tokenize", {"content": text})).json()
        assert (await balancer.post("/detokenize", ids)).json() == {"content": text}
        pieces = {"content": text, "with_pieces": True}
        rows = (await balancer.post("/tokenize", pieces)).json()["tokens"]
        assert [row["id"] for row in rows] == ids["tokens"]
        shown = [row["piece"] for row in rows]
        data = b"".join(one.encode() if isinstance(one, str) else bytes(one) for one in shown)
        assert data.decode() == text
        asked = {"messages": HI, "system": "Be brief."}
        counted = (await balancer.post("/v1/messages/count_tokens", asked)).json()
        message = (await balancer.post("/v1/messages", {**asked, "max_tokens": 1})).json()
        usage = message["usage"]
        prompt_tokens = usage["input_tokens"] + (usage.get("cache_read_input_tokens") or 0)
        assert counted == {"input_tokens": prompt_tokens}
        prompt = (await balancer.post("/apply-template", {"messages": HI})).json()["prompt"]
        assert prompt == "<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant"
        refused = await balancer.post("/v1/rerank", {"query": "q", "documents": ["a"]})
        assert (refused.status, refused.error["code"]) == (400, "unsupported_parameter")
        assert refused.error["param"] == "model"


async def test_a_real_reranker_s_scores_are_sorted_and_do_not_depend_on_the_order(
    balancer: RunningBalancer, tmp_path: Path
) -> None:
    path = write_tiny_causal_reranker(tmp_path / "rank.gguf")
    options = EngineOptions(
        model_path=str(path), threads=1, cache_type="f32", flash_attention="off"
    )
    address = BalancerAddress("127.0.0.1", balancer.management_port)
    documents = ["a cat", "the port is 8080", "no"]
    async with running_agent(address, Engine(options), model_path=path):
        roster = balancer.app.wiring.roster
        await eventually(lambda: any(a.queries_free for a in roster.agents()), "it serves")
        by_text: list[dict[str, float]] = []
        for given in (documents, documents[::-1]):
            body = {"query": "which port", "documents": given, "return_documents": True}
            rows = (await balancer.post("/rerank", body)).json()["results"]
            scores = [row["relevance_score"] for row in rows]
            assert scores == sorted(scores, reverse=True)
            assert [given[row["index"]] for row in rows] == [
                row["document"]["text"] for row in rows
            ]
            by_text.append({row["document"]["text"]: row["relevance_score"] for row in rows})
        assert by_text[0] == pytest.approx(by_text[1], abs=1e-4)
        assert len(set(by_text[0].values())) == len(documents)
        long = {"query": "q", "documents": ["a", "cat " * 2000]}
        refused = await balancer.post("/rerank", long)
    assert (refused.status, refused.error["param"]) == (400, "documents[1]")
