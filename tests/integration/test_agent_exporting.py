"""Exports through the agent: what is sent, what is refused, and that no file stays."""

from __future__ import annotations

from collections.abc import AsyncIterator
from functools import partial

import pytest

from agent.commands.moves import MAX_MOVES
from agent.engine.frames import CancelCall
from agent.engine.query_frames import (
    ExportSequence,
    QueryRefused,
)
from protocol import to_agent
from protocol.chat import FunctionDefinition, Message, Tool
from protocol.codec import encode_request
from protocol.generation import GenerationRequest
from protocol.jsonrpc import CallId, ErrorResponse
from protocol.refusals import RefusalCode
from protocol.to_agent import Cancel, ExportedSequence
from protocol.to_balancer import Finished, Goodbye
from protocol.transfers import MAX_DATA_CALL
from tests.support.fake_balancer import FakeBalancer, fake_balancer
from tests.support.fake_engine import FakeEngine, words
from tests.support.moving_states import (
    MOVES,
    STATE,
    WHOLE,
    commanded,
    export_of,
    import_of,
    kv_key,
    no_states,
    open_states,
    refusal,
    result,
    running,
    write,
)
from tests.support.running_agent import running_agent


@pytest.fixture
async def balancer() -> AsyncIterator[FakeBalancer]:
    async with fake_balancer() as balancer:
        yield balancer


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine(words(100), facts=MOVES, pace="held")


def has_tokens(balancer: FakeBalancer, call: int, count: int) -> bool:
    return len(balancer.token_ids(call)) == count


def is_refused(balancer: FakeBalancer, call: CallId) -> bool:
    return any(isinstance(one, ErrorResponse) and one.id == call for one in balancer.heard)


async def test_an_export_is_what_the_engine_wrote_and_the_ids_behind_it(
    balancer: FakeBalancer, engine: FakeEngine
) -> None:
    async with running_agent(balancer.address, engine):
        key = await kv_key(balancer)
        call = await running(balancer)
        asked = await balancer.ask(to_agent.ExportSequence(call=call))
        export = await export_of(engine)
        [submit] = engine.submits
        assert (export.target, export.release) == (submit.call, False)
        write(engine, export)
        assert await result(balancer, asked, ExportedSequence) == ExportedSequence(
            tokens=3, size_bytes=len(WHOLE), kv_key=key
        )
        await balancer.until(lambda: asked in balancer.data, "the state")
        assert balancer.data[asked] == WHOLE
        await no_states()


async def test_a_released_call_ends_and_what_its_parser_holds_back_is_not_told(
    balancer: FakeBalancer,
) -> None:
    """Where it goes on the same text is held back, and comes out there."""
    engine = FakeEngine(("so", " <tool_", "call>"), facts=MOVES, pace="held")
    async with running_agent(balancer.address, engine, chat_template=_TOOLS):
        await kv_key(balancer)
        for release in (False, True):
            call = await balancer.call(_with_tools())
            await balancer.answered(call)
            engine.allow(2)
            await balancer.until(partial(has_tokens, balancer, call, 2), "two tokens")
            assert balancer.text(call) == "so"
            asked = await balancer.ask(to_agent.ExportSequence(call=call, release=release))
            export = await export_of(engine, 1 + release)
            write(engine, export)
            await result(balancer, asked, ExportedSequence)
            engine.send(CancelCall(call=export.target))
            assert (await balancer.finished(call)).finish_reason == "cancelled"
            assert balancer.text(call) == ("so" if release else "so <tool_")
        await no_states()


_TOOLS = (
    "{% for m in messages %}{{ m.content }}{% endfor %}{% if tools %}<tool_call>"
    '{"name": "f", "arguments": {}}</tool_call>{% endif %}'
)


def _with_tools() -> GenerationRequest:
    tool = Tool(function=FunctionDefinition(name="f", parameters={"type": "object"}))
    return GenerationRequest(messages=(Message(role="user", content="x"),), tools=(tool,))


async def test_what_cannot_be_exported_is_refused_with_its_reason(
    balancer: FakeBalancer, engine: FakeEngine
) -> None:
    async with running_agent(balancer.address, engine):
        await kv_key(balancer)
        unknown = await balancer.ask(to_agent.ExportSequence(call=77))
        assert await refusal(balancer, unknown) == (RefusalCode.CANNOT_MOVE, "unknown_call")
        call = await running(balancer)
        for bad in ("text", 0, MAX_DATA_CALL + 1, call):
            await balancer.say(encode_request(bad, to_agent.ExportSequence(call=call)))
            await balancer.until(partial(is_refused, balancer, bad), "the refusal")
        engine.ignore_submits = True
        waiting = await balancer.call(GenerationRequest(prompt="hi"))
        asked = await balancer.ask(to_agent.ExportSequence(call=waiting))
        assert await refusal(balancer, asked) == (RefusalCode.CANNOT_MOVE, "not_cached")
        assert not [c for c in engine.commands if isinstance(c, ExportSequence)]
        asked = await balancer.ask(to_agent.ExportSequence(call=call))
        export = await export_of(engine)
        facts: dict[str, int | str] = {"reason": "too_large"}
        code = int(RefusalCode.CANNOT_MOVE)
        engine.answer(QueryRefused(call=export.call, code=code, message="no", facts=facts))
        assert await refusal(balancer, asked) == (RefusalCode.CANNOT_MOVE, "too_large")
        await no_states()


async def test_an_engine_that_wrote_less_than_it_says_is_not_believed(
    balancer: FakeBalancer, engine: FakeEngine
) -> None:
    async with running_agent(balancer.address, engine):
        await kv_key(balancer)
        asked = await balancer.ask(to_agent.ExportSequence(call=await running(balancer)))
        export = await export_of(engine)
        write(engine, export, STATE[:100], says=101)
        assert await refusal(balancer, asked) == (RefusalCode.CANNOT_MOVE, "no_memory")
        await no_states()


async def test_more_moves_at_once_than_allowed_are_refused(
    balancer: FakeBalancer, engine: FakeEngine
) -> None:
    async with running_agent(balancer.address, engine):
        key = await kv_key(balancer)
        call = await running(balancer)
        for _ in range(MAX_MOVES):
            await balancer.ask(to_agent.ExportSequence(call=call))
        await commanded(engine, ExportSequence, MAX_MOVES)
        asked = await balancer.ask(to_agent.ExportSequence(call=call))
        assert await refusal(balancer, asked) == (RefusalCode.CANNOT_MOVE, "busy")
        asked = await balancer.ask(import_of(key))
        assert await refusal(balancer, asked) == (RefusalCode.CANNOT_MOVE, "busy")
    assert open_states() == 0


async def test_a_cancelled_export_keeps_its_file_until_the_engine_is_done_with_it(
    balancer: FakeBalancer, engine: FakeEngine
) -> None:
    """The engine has its path, which names a descriptor: the next file would get the number."""
    async with running_agent(balancer.address, engine):
        await kv_key(balancer)
        asked = await balancer.ask(to_agent.ExportSequence(call=await running(balancer)))
        export = await export_of(engine)
        await balancer.notify(Cancel(call=asked))
        assert (await refusal(balancer, asked))[0] == RefusalCode.CANCELLED
        assert open_states() == 1
        write(engine, export)
        await no_states()
        assert balancer.data == {}


async def test_a_stopping_agent_exports_and_stays_until_the_state_is_out(
    balancer: FakeBalancer, engine: FakeEngine
) -> None:
    async with running_agent(balancer.address, engine) as app:
        key = await kv_key(balancer)
        call = await running(balancer)
        app.stop()
        await balancer.until(lambda: balancer.notifications(Goodbye), "goodbye")
        refused = await balancer.ask(import_of(key))
        assert await refusal(balancer, refused) == (RefusalCode.DRAINING, "draining")
        asked = await balancer.ask(to_agent.ExportSequence(call=call, release=True))
        export = await export_of(engine)
        engine.send(CancelCall(call=export.target))
        write(engine, export)
        await balancer.until(lambda: asked in balancer.data, "the state")
        await balancer.until(lambda: not balancer.is_linked, "the agent leaves")
        assert balancer.notifications(Finished)
