"""Imports through the agent: what is kept, what is refused, and that no file stays."""

from __future__ import annotations

import os
import struct
from collections.abc import AsyncIterator

import pytest
from msgspec import structs

import agent.commands.import_sequence as import_command
import agent.commands.state_file as state_file
from agent.app import App
from agent.engine.query_frames import (
    Imported,
    ImportSequence,
)
from protocol import to_agent
from protocol.codec import encode_request
from protocol.jsonrpc import ErrorResponse, RpcCode
from protocol.refusals import RefusalCode
from protocol.to_agent import Cancel, ImportedSequence
from protocol.transfer_messages import AbortTransfer, Credit
from protocol.transfers import WINDOW_BYTES
from tests.support.fake_balancer import FakeBalancer, fake_balancer
from tests.support.fake_engine import FACTS, FakeEngine, words
from tests.support.moving_states import (
    IDS,
    MIB,
    MOVES,
    STATE,
    WHOLE,
    commanded,
    export_of,
    import_of,
    kv_key,
    no_states,
    open_states,
    read,
    refusal,
    result,
    running,
    send,
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


async def test_an_import_reaches_the_engine_whole_and_is_answered(
    balancer: FakeBalancer, engine: FakeEngine
) -> None:
    async with running_agent(balancer.address, engine):
        key = await kv_key(balancer)
        asked = await balancer.ask(import_of(key))
        await send(balancer, asked, WHOLE)
        [command] = await commanded(engine, ImportSequence)
        assert (command.scope, command.token_ids) == ("s", IDS)
        assert command.size_bytes == len(STATE)
        assert read(command) == STATE
        engine.answer(Imported(call=command.call))
        assert await result(balancer, asked, ImportedSequence) == ImportedSequence(tokens=3)
        await no_states()


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"kv_key": "another"}, "kv_key"),
        ({"tokens": 4097}, "damaged"),
        ({"tokens": 1000, "size_bytes": 4000}, "damaged"),
        ({"size_bytes": 17 * MIB}, "too_large"),
    ],
)
async def test_what_cannot_be_imported_is_refused_before_it_comes(
    balancer: FakeBalancer, engine: FakeEngine, more: dict[str, object], reason: str
) -> None:
    async with running_agent(balancer.address, engine):
        key = await kv_key(balancer)
        asked = await balancer.ask(structs.replace(import_of(key), **more))
        await send(balancer, asked, WHOLE)
        assert await refusal(balancer, asked) == (RefusalCode.CANNOT_MOVE, reason)
        assert len(balancer.notifications(AbortTransfer)) == 1
        assert balancer.notifications(Credit) == []
        assert open_states() == 0


@pytest.mark.parametrize(
    ("data", "words_"),
    [
        (WHOLE[:-1], "its last piece"),
        (WHOLE + b"x", "more than"),
        (WHOLE[: MIB // 2], "its last piece"),
    ],
)
async def test_a_state_of_another_size_than_announced_is_refused(
    balancer: FakeBalancer, engine: FakeEngine, data: bytes, words_: str
) -> None:
    async with running_agent(balancer.address, engine):
        asked = await balancer.ask(import_of(await kv_key(balancer)))
        await send(balancer, asked, data)
        answer = await balancer.answered(asked)
        assert isinstance(answer, ErrorResponse)
        assert words_ in answer.error.message
        await no_states()
        assert not [c for c in engine.commands if isinstance(c, ImportSequence)]


def _hold(arrival: object, piece: bytes) -> int:
    """Takes a piece, and grants nothing for it."""
    assert arrival
    return 0 * len(piece)


async def test_a_balancer_that_sends_beyond_its_credit_is_cut_off(
    balancer: FakeBalancer, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_command._Arrival, "put", _hold)
    async with running_agent(balancer.address, engine):
        asked = await balancer.ask(import_of(await kv_key(balancer)))
        size = 128 * 1024
        for start in range(0, WINDOW_BYTES + size, size):
            header = struct.pack("<IQIB", 1, start, asked, 0)
            await balancer.say_binary(header + WHOLE[start : start + size])
        answer = await balancer.answered(asked)
        assert isinstance(answer, ErrorResponse)
        assert "granted" in answer.error.message
        await no_states()


@pytest.mark.parametrize("how", ["cancel", "engine", "link"])
async def test_an_import_that_ends_in_the_middle_leaves_nothing(
    balancer: FakeBalancer, engine: FakeEngine, how: str
) -> None:
    async with running_agent(balancer.address, engine):
        key = await kv_key(balancer)
        asked = await balancer.ask(import_of(key))
        await send(balancer, asked, WHOLE, most=MIB // 2)
        await balancer.until(lambda: balancer.notifications(Credit), "a piece is in")
        if how == "cancel":
            await balancer.notify(Cancel(call=asked))
            assert (await refusal(balancer, asked))[0] == RefusalCode.CANCELLED
            assert balancer.notifications(AbortTransfer) == [AbortTransfer(transfer=1)]
        elif how == "engine":
            engine.die()
            assert (await refusal(balancer, asked))[0] == RefusalCode.ENGINE_FAILED
        else:
            balancer.break_link()
            await balancer.registered(links=2)
        await no_states()
        await balancer.has_slots(4)
        again = await balancer.ask(import_of(key))
        await send(balancer, again, WHOLE, transfer=9)
        [command] = await commanded(engine, ImportSequence)
        engine.answer(Imported(call=command.call))
        await result(balancer, again, ImportedSequence)
        await no_states()


@pytest.mark.parametrize("how", ["engine", "link", "agent"])
async def test_whatever_ends_while_the_engine_has_the_files_they_are_closed(
    balancer: FakeBalancer, engine: FakeEngine, how: str
) -> None:
    async with running_agent(balancer.address, engine) as app:
        key = await kv_key(balancer)
        exporting = await balancer.ask(to_agent.ExportSequence(call=await running(balancer)))
        importing = await balancer.ask(import_of(key))
        await send(balancer, importing, WHOLE)
        [command] = await commanded(engine, ImportSequence)
        export = await export_of(engine)
        assert open_states() == 2
        if how == "engine":
            engine.die()
            assert (await refusal(balancer, exporting))[0] == RefusalCode.ENGINE_FAILED
            assert (await refusal(balancer, importing))[0] == RefusalCode.ENGINE_FAILED
        elif how == "link":
            balancer.break_link()
            await balancer.registered(links=2)
            assert open_states() == 2
            engine.answer(Imported(call=command.call))
            write(engine, export)
        else:
            _stop(app)
            await balancer.until(lambda: not balancer.is_linked, "the agent leaves")
        await no_states()


def _stop(app: App) -> None:
    app.stop()
    app.stop()


async def test_an_import_of_which_nothing_comes_is_refused_after_a_while(
    balancer: FakeBalancer, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(import_command, "STALLED_S", 0.05)
    async with running_agent(balancer.address, engine):
        asked = await balancer.ask(import_of(await kv_key(balancer)))
        assert await refusal(balancer, asked) == (RefusalCode.CANNOT_MOVE, "stalled")
        await no_states()


async def test_memory_that_is_short_refuses_both_ways(
    balancer: FakeBalancer, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> int:
        raise OSError(24, "Too many open files")

    async with running_agent(balancer.address, engine):
        key = await kv_key(balancer)
        call = await running(balancer)
        with monkeypatch.context() as patch:
            patch.setattr(os, "memfd_create", none)
            asked = await balancer.ask(to_agent.ExportSequence(call=call))
            assert await refusal(balancer, asked) == (RefusalCode.CANNOT_MOVE, "no_memory")
            asked = await balancer.ask(import_of(key))
            assert await refusal(balancer, asked) == (RefusalCode.CANNOT_MOVE, "no_memory")
        with monkeypatch.context() as patch:
            patch.setattr(os, "pwrite", none)
            asked = await balancer.ask(import_of(key))
            await send(balancer, asked, WHOLE)
            assert await refusal(balancer, asked) == (RefusalCode.CANNOT_MOVE, "no_memory")
        await no_states()


async def test_an_embedding_model_and_an_engine_that_loads_move_nothing(
    balancer: FakeBalancer,
) -> None:
    engine = FakeEngine(facts=FACTS, ready=False)
    async with running_agent(balancer.address, engine):
        await balancer.registered()
        asked = await balancer.ask(import_of("key"))
        assert (await refusal(balancer, asked))[0] == RefusalCode.MODEL_NOT_LOADED
        engine.revive()
        await balancer.has_slots(4)
        asked = await balancer.ask(import_of("key"))
        assert await refusal(balancer, asked) == (RefusalCode.CANNOT_MOVE, "no_cache")


async def test_data_for_no_call_are_refused_and_not_kept(
    balancer: FakeBalancer, engine: FakeEngine
) -> None:
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        await send(balancer, 4711, WHOLE)
        assert balancer.notifications(AbortTransfer) == [AbortTransfer(transfer=1)]
        assert balancer.notifications(Credit) == []


async def test_a_large_file_is_closed_on_another_thread(
    balancer: FakeBalancer, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(state_file, "LARGE_BYTES", MIB)
    async with running_agent(balancer.address, engine):
        await kv_key(balancer)
        asked = await balancer.ask(to_agent.ExportSequence(call=await running(balancer)))
        write(engine, await export_of(engine))
        await balancer.until(lambda: asked in balancer.data, "the state")
        await no_states()


async def test_refused_ids_are_answered_as_invalid_requests(
    balancer: FakeBalancer, engine: FakeEngine
) -> None:
    async with running_agent(balancer.address, engine):
        await balancer.say(encode_request("request-1", import_of(await kv_key(balancer))))
        assert (await refusal(balancer, "request-1"))[0] == RpcCode.INVALID_REQUEST
        assert open_states() == 0
