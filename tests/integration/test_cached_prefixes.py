"""What the engine caches reaches the balancer as blocks that the next request's chain matches."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import msgspec
import pytest
from msgspec import structs

from agent.engine.frames import CacheNews
from agent.settings import BalancerAddress
from balancer.fleet.agent import Agent
from balancer.http.openai.schema import ChatCompletionRequest
from balancer.http.openai.translate import chat_request
from protocol.agent_status import AgentStatus
from protocol.chat import Message
from protocol.codec import decode_result, encode_request
from protocol.generation import GenerationRequest, Resume
from protocol.jsonrpc import Notification, Response
from protocol.prefix_chain import HASH_BYTES, PrefixChain, prefix_chain
from protocol.to_agent import Snapshot
from protocol.to_balancer import CacheChanged
from tests.support.fake_balancer import FakeBalancer, fake_balancer
from tests.support.fake_engine import FACTS, FakeEngine
from tests.support.running_agent import running_agent
from tests.support.running_balancer import RunningBalancer, eventually, running_balancer

ALL = 100_000
"""More tokens than any sequence here has."""
ASK = GenerationRequest(messages=(Message(role="user", content="Hello there"),))
TOOL_FACTS = structs.replace(FACTS, chat_template=FACTS.chat_template + "{# <tool_call> #}")
CALLING = (
    "Let me see.\n",
    '<tool_call>{"name": "port", ',
    '"arguments": {"of": "a b"}}</tool_call>',
)
TOOLS = [{"type": "function", "function": {"name": "port", "parameters": {"type": "object"}}}]


@pytest.fixture
async def balancer() -> AsyncIterator[FakeBalancer]:
    async with fake_balancer() as target:
        yield target


# --- the whole way ---


@asynccontextmanager
async def site(engine: FakeEngine) -> AsyncIterator[RunningBalancer]:
    """The real balancer with one real agent on this engine."""
    async with running_balancer() as target:
        address = target.app.address_of("management")
        async with running_agent(BalancerAddress(address.host, address.port), engine):
            await eventually(lambda: _has_slots(target), "the agent's slots")
            yield target


def _has_slots(target: RunningBalancer) -> bool:
    return any(agent.slots_total for agent in target.app.wiring.roster.agents())


def _agent(target: RunningBalancer) -> Agent:
    (agent,) = target.app.wiring.roster.agents()
    return agent


async def _answer(target: RunningBalancer, body: dict[str, Any]) -> dict[str, Any]:
    url = f"http://{target.app.address_of('inference')}/v1/chat/completions"
    async with aiohttp.ClientSession() as session, session.post(url, json=body) as answer:
        whole = await answer.json()
        assert answer.status == 200, whole
        message: dict[str, Any] = whole["choices"][0]["message"]
        return message


def _chain_of(body: dict[str, Any]) -> bytes:
    request = chat_request(msgspec.convert(body, ChatCompletionRequest), drawn_seed=0)
    return prefix_chain(request, cache_scope="")


@pytest.mark.parametrize("pieces", [("Hel", "lo " * 300, "."), CALLING], ids=["text", "tool call"])
async def test_a_conversation_that_goes_on_matches_all_that_was_said(
    pieces: tuple[str, ...],
) -> None:
    engine = FakeEngine(pieces, facts=TOOL_FACTS)
    first: dict[str, Any] = {
        "messages": [{"role": "user", "content": "Where? " * 200}],
        "tools": TOOLS,
    }
    async with site(engine) as target:
        message = await _answer(target, first)
        engine.tell_cache(CacheNews(0, engine.submits[0].call, ALL))
        so_far = {**first, "messages": [*first["messages"], message]}
        expected = len(_chain_of(so_far)) // 16
        following = {
            **so_far,
            "messages": [*so_far["messages"], {"role": "user", "content": "And then?"}],
        }
        chain = _chain_of(following)
        await eventually(lambda: _agent(target).matched_blocks(chain) == expected, "the blocks")
        assert expected == len(chain) // 16 - 1 > 3

        engine.tell_cache(CacheNews(0, 0, 0))
        await eventually(lambda: _agent(target).matched_blocks(chain) == 0, "their loss")


async def test_blocks_reported_while_the_balancer_was_away_are_asked_for() -> None:
    engine = FakeEngine()
    async with site(engine) as target:
        body = {"messages": [{"role": "user", "content": "Hi"}]}
        await _answer(target, body)
        engine.tell_cache(CacheNews(0, engine.submits[0].call, ALL))
        chain = _chain_of(body)
        await eventually(lambda: _agent(target).matched_blocks(chain) == 1, "the block")
        before = _agent(target)
        before.link.close("for the test")
        await eventually(
            lambda: (
                _has_slots(target)
                and _agent(target) is not before
                and _agent(target).matched_blocks(chain) == 1
            ),
            "the block, on the new link",
        )


# --- the agent's part ---


def _blocks(scope: str = "", *more: Message) -> bytes:
    request = GenerationRequest(messages=(*(ASK.messages or ()), *more))
    return PrefixChain.of(request, cache_scope=scope).packed


def _told(balancer: FakeBalancer, count: int) -> Callable[[], list[CacheChanged]]:
    def find() -> list[CacheChanged]:
        changes = balancer.notifications(CacheChanged)
        return changes if len(changes) >= count else []

    return find


async def test_what_one_tick_changes_is_told_once_and_counted_in_the_heartbeats(
    balancer: FakeBalancer,
) -> None:
    engine = FakeEngine()
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        await balancer.finished(await balancer.call(ASK, cache_scope="t"))
        call = engine.submits[0].call
        assert engine.submits[0].scope == "t"
        engine.tell_cache(CacheNews(0, call, ALL), CacheNews(1, call, ALL), CacheNews(0, 0, 0))
        changes = await balancer.until(_told(balancer, 1), "news of the cache")
        answer = Message(role="assistant", content="Hello.")
        assert changes == [CacheChanged(cache_seq=1, gained=_blocks("t", answer))]
        balancer.break_link()
        register = await balancer.registered(2)
        assert register.status.cache_seq == 1


async def test_an_answer_begun_on_another_agent_counts_as_a_whole(
    balancer: FakeBalancer,
) -> None:
    engine = FakeEngine(("Hel", "lo", " you"), pace="held")
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        resumed = await balancer.call(ASK, resume=Resume(token_ids=(1, 2), emitted_chars=5))
        await balancer.answered(resumed)
        engine.allow(2)
        await balancer.finished(resumed)
        engine.tell_cache(CacheNews(0, engine.submits[0].call, ALL))
        changes = await balancer.until(_told(balancer, 1), "news of the cache")
        assert changes[0].gained == _blocks("", Message(role="assistant", content="Hello you"))


async def test_a_snapshot_tells_of_the_cache_from_the_start_and_then_the_status(
    balancer: FakeBalancer,
) -> None:
    engine = FakeEngine()
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        await balancer.finished(await balancer.call(ASK))
        engine.tell_cache(CacheNews(0, engine.submits[0].call, 2))
        await balancer.until(_told(balancer, 1), "news of the cache")
        await balancer.say(encode_request("s", Snapshot()))
        answer = await balancer.answered("s")
        assert isinstance(answer, Response)
        status = decode_result(answer.result, AgentStatus)
        _, again = balancer.notifications(CacheChanged)
        assert again == CacheChanged(cache_seq=2, gained=_blocks(), starts_over=True)
        assert status.cache_seq == 2
        order = [
            message
            for message in balancer.heard
            if message is answer or (isinstance(message, Notification) and message.params is again)
        ]
        assert order[-1] is answer


async def test_of_a_scored_prompt_nothing_is_told_as_cached(balancer: FakeBalancer) -> None:
    engine = FakeEngine()
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        other = (Message(role="user", content="Something else"),)
        scored = GenerationRequest(messages=other, top_logprobs=0, prompt_logprobs=True)
        for asked in (scored, ASK):
            await balancer.finished(await balancer.call(asked))
        first, second = engine.submits
        assert (first.prompt_logprobs, second.prompt_logprobs) == (True, False)
        engine.tell_cache(CacheNews(0, first.call, ALL))
        engine.tell_cache(CacheNews(1, second.call, ALL))
        changes = await balancer.until(_told(balancer, 1), "news of the cache")
        assert changes[0].gained.startswith(_blocks())
        end_of_scored = PrefixChain.of(scored, cache_scope="").packed[-HASH_BYTES:]
        assert end_of_scored not in changes[0].gained


async def test_an_engine_that_dies_takes_its_cache_along(balancer: FakeBalancer) -> None:
    engine = FakeEngine()
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        await balancer.finished(await balancer.call(ASK))
        engine.tell_cache(CacheNews(0, engine.submits[0].call, ALL))
        await balancer.until(_told(balancer, 1), "news of the cache")
        engine.die()
        changes = await balancer.until(_told(balancer, 2), "the end of the cache")
        assert changes[1] == CacheChanged(cache_seq=2, starts_over=True)


async def test_the_prompt_of_a_call_that_nobody_waits_for_any_more_is_still_told_of(
    balancer: FakeBalancer,
) -> None:
    engine = FakeEngine(pace="held")
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        call = await balancer.call(ASK)
        await balancer.answered(call)
        balancer.break_link()
        await eventually(lambda: engine.running == 0, "the abandoned call's end")
        await balancer.registered(2)
        engine.tell_cache(CacheNews(0, engine.submits[0].call, ALL))
        changes = await balancer.until(_told(balancer, 1), "news of the cache")
        assert changes[0].gained == _blocks()
