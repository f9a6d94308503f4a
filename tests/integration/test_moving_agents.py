"""A call moves from one agent to another, through the balancer, and nobody can tell."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agent.engine.engine import Engine
from agent.engine.frames import EngineOptions
from protocol.generation import GenerationRequest
from tests.support.cluster import DEMO_MODEL, eventually
from tests.support.two_agents import Fleet, MoveEnd, has_tokens, two_agents

PROMPT = "Once upon a time there was a list of words. " * 12
REQUESTS: dict[str, dict[str, Any]] = {
    "greedy": {"temperature": 0.0},
    "seeded": {"temperature": 0.9, "seed": 11, "repeat_penalty": 1.1},
    "mirostat": {"seed": 12, "mirostat": 2},
}


def engine(path: Path = DEMO_MODEL, **options: Any) -> Engine:
    given: dict[str, Any] = {"slots": 2, "threads": 1, "speculation": "off"}
    given |= {"host_cache_bytes": 1 << 28, **options}
    return Engine(EngineOptions(model_path=str(path), **given))


def request(**more: Any) -> GenerationRequest:
    given = {"prompt": PROMPT, "max_tokens": 150, "ignore_eos": True, **more}
    return GenerationRequest(**given)


@pytest.fixture
async def fleet() -> AsyncIterator[Fleet]:
    async with two_agents(engine(), engine()) as fleet:
        yield fleet


async def test_a_call_in_full_swing_moves_and_goes_on_to_the_same_end(fleet: Fleet) -> None:
    for name, sampling in REQUESTS.items():
        asked = request(**sampling)
        alone = await fleet.whole("one", asked, scope=f"{name} alone")
        first = fleet.call("one", asked, scope=name)
        await has_tokens(first, 40)
        end = await fleet.move(first.id, cache_scope=name)
        assert end.error is None, end
        assert end.exported is not None
        assert first.finished is not None
        assert first.finished.finish_reason == "cancelled"
        assert first.committed is not None
        # the last token was sampled, and not decoded
        known = first.committed.prompt_tokens + len(first.token_ids)
        assert end.exported.tokens == known - 1
        resume = first.resume(end.exported.sampler_state)
        second = await fleet.whole("two", asked, scope=name, resume=resume)
        assert second.finished is not None
        assert second.finished.usage.cached_tokens == first.committed.prompt_tokens
        assert first.token_ids + second.token_ids == alone.token_ids
        assert first.text + second.text == alone.text
        await fleet.nothing_moves()


async def test_a_call_that_is_not_released_goes_on_while_it_is_exported(fleet: Fleet) -> None:
    asked = request(temperature=0.0)
    alone = await fleet.whole("one", asked, scope="alone")
    first = fleet.call("one", asked, scope="s")
    await has_tokens(first, 10)
    end = await fleet.move(first.id, cache_scope="s", release=False)
    assert end.error is None
    await eventually(lambda: first.is_over, what="the call is over")
    assert first.token_ids == alone.token_ids
    # another call of the same prompt begins with what was moved, in the same scope only
    again = await fleet.whole("two", asked, scope="s")
    other = await fleet.whole("two", asked, scope="other")
    assert again.finished is not None
    assert other.finished is not None
    assert again.finished.usage.cached_tokens > 0
    assert other.finished.usage.cached_tokens == 0
    await fleet.nothing_moves()


async def test_a_call_may_be_moved_twice_and_is_kept_once(fleet: Fleet) -> None:
    first = fleet.call("one", request(max_tokens=1000))
    await has_tokens(first, 10)
    fleet.link("one").pause(first.id)
    ends = [await fleet.move(first.id, release=release) for release in (False, True)]
    assert [end.error for end in ends] == [None, None]
    assert ends[0].exported == ends[1].exported
    await fleet.nothing_moves()


async def test_a_call_that_is_unknown_is_not_moved(fleet: Fleet) -> None:
    end = await fleet.move(4711)
    assert (end.exported, end.reason) == (None, "unknown_call")
    await fleet.nothing_moves()


async def test_another_kind_of_cache_refuses_the_state_and_the_call_goes_on_without_it() -> None:
    async with two_agents(engine(), engine(cache_type="f32")) as fleet:
        assert fleet.kv_key("one") != fleet.kv_key("two")
        asked = request(temperature=0.0)
        first = fleet.call("one", asked)
        await has_tokens(first, 20)
        end = await fleet.move(first.id)
        assert end.reason == "kv_key"
        assert end.exported is not None
        second = await fleet.whole("two", asked, resume=first.resume())
        assert second.finished is not None
        assert second.finished.usage.cached_tokens == 0
        assert len(first.token_ids + second.token_ids) == 150
        await fleet.nothing_moves()


async def test_a_state_that_does_not_fit_the_host_cache_is_refused() -> None:
    async with two_agents(engine(), engine(host_cache_bytes=1000)) as fleet:
        first = fleet.call("one", request())
        await has_tokens(first, 5)
        assert (await fleet.move(first.id)).reason == "too_large"
        await fleet.nothing_moves()


@pytest.mark.parametrize("dies", ["one", "two"])
async def test_an_engine_that_dies_while_states_move_leaves_nothing_behind(dies: str) -> None:
    engines = {"one": engine(), "two": engine()}
    async with two_agents(engines["one"], engines["two"]) as fleet:
        calls = [fleet.call("one", request(max_tokens=1500)) for _ in range(2)]
        for call in calls:
            await has_tokens(call, 10)
        ends: list[MoveEnd] = []
        for call in calls:
            fleet.begin_move(call.id, ends)
        pid = engines[dies].pid
        assert pid is not None
        os.kill(pid, signal.SIGKILL)
        await eventually(lambda: len(ends) == 2, what="both moves are over")
        await eventually(lambda: all(call.is_over for call in calls), what="both calls are over")
        await fleet.nothing_moves()
        await eventually(lambda: engines[dies].pid not in (None, pid), what="a new engine")
        await eventually(lambda: engines[dies].facts is not None, what="it is ready")
        await fleet.serves("one")
        await fleet.serves("two")
        again = fleet.call("one", request())
        await has_tokens(again, 5)
        assert (await fleet.move(again.id)).error is None


async def test_a_link_that_breaks_in_the_middle_ends_the_move(fleet: Fleet) -> None:
    first = fleet.call("one", request(max_tokens=1500))
    await has_tokens(first, 10)
    ends: list[MoveEnd] = []
    fleet.begin_move(first.id, ends)
    fleet.link("one").close("the test says so")
    await eventually(lambda: ends, what="the end")
    assert ends[0].error is not None
    await fleet.nothing_moves()
