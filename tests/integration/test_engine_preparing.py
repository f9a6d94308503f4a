"""What takes long of calls is made ready beside the loop: what they get, what others feel of it."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any

import pytest

from agent.chat.tool_calls.table import TOOL_FORMATS
from agent.engine import intake, worker
from agent.engine.channel import Channel
from agent.engine.frames import (
    CancelCall,
    ContinueCall,
    EngineOptions,
    FrameBuffer,
    PauseCall,
    Sampling,
    Shutdown,
    Start,
    Step,
    Submit,
    encode,
    event_decoder,
)
from agent.engine.llama.log import LlamaLog, start_backend
from agent.engine.llama.model import Model
from agent.engine.text_thread import LONG_TEXT_CHARS, TextThread
from agent.grammar.tools import ToolGrammar, ToolSchema
from protocol.grammar import Grammar
from protocol.refusals import RefusalCode
from tests.support.engine_bench import EngineBench
from tests.support.engine_calls import Calls
from tests.support.engine_invariants import check_idle, checked
from tests.support.tiny_gguf import write_tiny_gguf

SLOTS = 2
CONTEXT = 4096
LONG = "hello world, " * (LONG_TEXT_CHARS // 12)
"""About 3000 tokens: longer than what is tokenised on the loop, and it fits."""
TOO_LONG = LONG + LONG
GREEDY = Sampling(temperature=0.0, ignore_eos=True)
LIMIT_MS = 60_000


@pytest.fixture(scope="module")
def log() -> LlamaLog:
    return start_backend()


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf")


@pytest.fixture(scope="module")
def model(log: LlamaLog, path: Path) -> Iterator[Model]:
    model = Model(EngineOptions(model_path=str(path)), log)
    yield model
    model.close()


class Bench(EngineBench):
    """An engine whose text thread does nothing until it is let go. Its grammars are its own."""

    def __init__(self, model: Model, log: LlamaLog) -> None:
        self.texts = TextThread()
        super().__init__(model, log, options(), texts=self.texts)
        self._may_go = Event()
        self._poll = select.poll()
        self._poll.register(self.texts.wakes, select.POLLIN)
        self.texts.do(self._may_go.wait, lambda _: None, first=True)
        checked(self)

    def let_go(self) -> None:
        self._may_go.set()

    def until_ready(self) -> None:
        """Wait as the loop does when nothing else is to be done, until no call is made ready."""
        self.let_go()
        while self.serving.is_preparing:
            assert self._poll.poll(LIMIT_MS), "nothing came of it"
            self.texts.collect()

    def close(self) -> None:
        self.let_go()
        self.texts.close()
        super().close()


@pytest.fixture
def bench(model: Model, log: LlamaLog) -> Iterator[Bench]:
    bench = Bench(model, log)
    yield bench
    check_idle(bench)
    bench.close()


@pytest.fixture
def plain(model: Model, log: LlamaLog) -> Iterator[EngineBench]:
    """An engine that tokenises everything on its loop."""
    bench = EngineBench(model, log, options())
    yield bench
    bench.close()


def options() -> EngineOptions:
    return EngineOptions(
        model_path="",
        slots=SLOTS,
        context_tokens=SLOTS * CONTEXT,
        threads=1,
        cache_type="f32",
        flash_attention="off",
        speculation="off",
    )


def start(bench: Bench, call: int, prompt: str = LONG, max_tokens: int = 8) -> None:
    bench.submit(Submit(call=call, prompt=prompt, sampling=GREEDY, max_tokens=max_tokens))


def test_a_long_prompt_gets_the_answer_that_it_gets_on_the_loop(
    bench: Bench, plain: EngineBench
) -> None:
    start(bench, 1)
    bench.until_ready()
    bench.finish()
    expected = plain.call(LONG, sampling=GREEDY, max_tokens=8)
    assert bench.heard[1].token_ids == expected.token_ids
    accepted = bench.heard[1].accepted
    assert accepted is not None
    assert expected.accepted is not None
    assert accepted.prompt_tokens == expected.accepted.prompt_tokens > 1000


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": TOO_LONG},
        {"prompt": "x" * 1_000_000},
        {"prompt": LONG, "suffix": "no such token"},
        {"prompt": LONG, "adapters": (("unknown", 1.0),)},
    ],
    ids=["a little too long", "far too long", "no infill", "no adapter"],
)
def test_a_long_prompt_is_refused_in_the_words_and_numbers_of_the_loop(
    bench: Bench, plain: EngineBench, fields: dict[str, object]
) -> None:
    submit = Submit(call=1, **fields)  # type: ignore[arg-type]  # of any kind
    bench.submit(submit)
    bench.until_ready()
    plain.submit(submit)
    for each in (bench, plain):
        each.turn()
    assert bench.heard[1].refused is not None
    assert bench.heard[1].refused == plain.heard[1].refused


def test_what_is_wrong_whatever_the_prompt_is_refused_before_it_is_tokenised(bench: Bench) -> None:
    bench.submit(Submit(call=1, prompt=LONG, max_tokens=0))
    bench.turn()
    refused = bench.heard[1].refused
    assert refused is not None
    assert refused.facts == {"param": "max_tokens"}


def test_streams_go_on_and_a_short_call_overtakes_while_a_long_prompt_is_tokenised(
    bench: Bench,
) -> None:
    start(bench, 1, "abc", max_tokens=20)
    bench.turn()
    start(bench, 2)
    bench.turn(19)
    assert len(bench.heard[1].token_ids) == 20
    start(bench, 3, "short")
    bench.finish()
    assert len(bench.heard[3].token_ids) == 8
    assert bench.heard[2].accepted is None
    bench.until_ready()
    bench.finish()
    assert len(bench.heard[2].token_ids) == 8


def test_long_prompts_are_taken_in_the_order_in_which_they_came(bench: Bench) -> None:
    start(bench, 1)
    start(bench, 2, "again " + LONG)
    bench.until_ready()
    bench.turn()
    (step,) = bench.heard.steps[-1:]
    assert [accepted.call for accepted in step.accepted] == [1, 2]
    bench.finish()


def test_a_call_that_waits_for_its_tokens_holds_a_slot(bench: Bench) -> None:
    start(bench, 1)
    start(bench, 2, "abc")
    start(bench, 3, "one too many")
    start(bench, 4)
    bench.until_ready()
    bench.finish()
    for call in (3, 4):
        refused = bench.heard[call].refused
        assert refused is not None
        assert refused.code == RefusalCode.NO_FREE_SLOT
    for call in (1, 2):
        assert len(bench.heard[call].token_ids) == 8


def test_a_call_cancelled_while_it_is_tokenised_frees_its_slot_and_is_heard_of_no_more(
    bench: Bench,
) -> None:
    start(bench, 1)
    start(bench, 2)
    bench.turn()
    bench.serving.cancel(CancelCall(call=1))
    bench.turn()
    refused = bench.heard[1].refused
    assert refused is not None
    assert refused.code == RefusalCode.CANCELLED
    start(bench, 3, "abc")
    bench.until_ready()
    bench.finish()
    assert [len(bench.heard[call].token_ids) for call in (1, 2, 3)] == [0, 8, 8]


def test_a_number_may_be_used_again_after_a_cancel(bench: Bench) -> None:
    start(bench, 1, LONG + "first")
    bench.serving.cancel(CancelCall(call=1))
    start(bench, 1, LONG)
    bench.until_ready()
    bench.serving.cancel(CancelCall(call=1))
    bench.turn()
    (step,) = bench.heard.steps
    assert [refused.code for refused in step.refused] == [RefusalCode.CANCELLED]
    assert [(one.call, one.prompt_tokens) for one in step.accepted] == [(1, tokens_of(LONG, bench))]


def tokens_of(text: str, bench: Bench) -> int:
    return len(bench.model.vocabulary.tokenize(text))


def test_a_second_call_of_the_same_number_is_dropped_while_the_first_is_tokenised(
    bench: Bench,
) -> None:
    start(bench, 1)
    start(bench, 1, "abc")
    bench.until_ready()
    bench.finish()
    accepted = bench.heard[1].accepted
    assert accepted is not None
    assert accepted.prompt_tokens == tokens_of(LONG, bench)


def test_while_a_prompt_is_tokenised_the_steps_say_so_and_that_there_is_nothing_to_decode(
    bench: Bench,
) -> None:
    start(bench, 1)
    bench.turn()
    (waiting,) = bench.heard.steps
    assert (waiting.preparing, waiting.has_work) == (True, False)
    bench.until_ready()
    bench.turn()
    assert (bench.heard.steps[-1].preparing, bench.heard.steps[-1].has_work) == (False, True)
    bench.finish()


def test_a_call_paused_while_it_is_tokenised_waits_until_it_is_continued(bench: Bench) -> None:
    start(bench, 1)
    bench.serving.pause(PauseCall(call=1))
    bench.until_ready()
    bench.finish()
    assert bench.heard[1].accepted is not None
    assert bench.heard[1].token_ids == []
    bench.serving.go_on(ContinueCall(call=1))
    bench.finish()
    assert len(bench.heard[1].token_ids) == 8


# --- grammars ---


def weather_tools(count: int) -> ToolGrammar:
    schema = '{"type":"object","properties":{"city":{"type":"string","maxLength":3}}}'
    tools = tuple(
        ToolSchema(f"tool_{number}", schema, binds=True, place=number) for number in range(count)
    )
    form = TOOL_FORMATS["hermes"].form
    return ToolGrammar(form=form, tools=tools, must_call=True, several=False)


HELD: dict[str, dict[str, Any]] = {
    "tools": {"tools": weather_tools(3)},
    "a schema": {"grammar": Grammar(kind="json_schema", text='{"type":"array","maxItems":2}')},
    "GBNF": {"grammar": Grammar(kind="gbnf", text='root ::= "a" [bc]{3} "d"')},
    "a long prompt, too": {"prompt": LONG, "grammar": Grammar(kind="regex", text="[xyz]{9}")},
}


@pytest.mark.parametrize("kind", HELD)
def test_streams_go_on_while_a_grammar_is_compiled_and_the_answer_is_that_of_the_loop(
    bench: Bench, plain: EngineBench, kind: str
) -> None:
    fields = {"prompt": "abc", "sampling": Sampling(temperature=0.0), "max_tokens": 60}
    submit = Submit(call=2, **{**fields, **HELD[kind]})
    start(bench, 1, "abc", max_tokens=20)
    bench.submit(submit)
    bench.turn(21)
    assert len(bench.heard[1].token_ids) == 20
    assert bench.heard[2].accepted is None
    bench.until_ready()
    bench.finish()
    plain.submit(submit)
    plain.finish()
    assert bench.heard[2].text == plain.heard[2].text != ""
    assert bench.heard[2].token_ids == plain.heard[2].token_ids


def test_a_grammar_that_was_compiled_once_is_not_waited_for(bench: Bench) -> None:
    for call in (1, 2):
        if call == 2:
            assert bench.heard[1].accepted is not None
        bench.submit(Submit(call=call, prompt="abc", tools=weather_tools(1), max_tokens=2))
        if call == 1:
            bench.until_ready()
        bench.turn()
        assert bench.heard[call].accepted is not None
    bench.finish()


def test_a_grammar_that_cannot_be_used_is_refused_in_the_words_of_the_loop(
    bench: Bench, plain: EngineBench
) -> None:
    impossible = Grammar(kind="json_schema", text='{"not": {}}')
    submit = Submit(call=1, prompt="abc", grammar=impossible)
    bench.submit(submit)
    bench.until_ready()
    plain.submit(submit)
    for each in (bench, plain):
        each.turn()
    refused = bench.heard[1].refused
    assert refused is not None
    assert refused.code == RefusalCode.INVALID_GRAMMAR
    assert refused == plain.heard[1].refused


# --- the loop itself ---


@pytest.fixture
def start_command(path: Path) -> Start:
    return Start(
        options=EngineOptions(
            model_path=str(path), slots=SLOTS, context_tokens=SLOTS * CONTEXT, threads=1
        )
    )


@pytest.fixture
def sockets() -> Iterator[tuple[Channel, socket.socket]]:
    ours, theirs = socket.socketpair()
    theirs.settimeout(LIMIT_MS / 1000)
    with ours, theirs:
        yield Channel(ours, os.getppid()), theirs


def test_an_idle_loop_wakes_up_when_the_tokens_are_there(
    sockets: tuple[Channel, socket.socket],
    start_command: Start,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "IDLE_WAIT_MS", 10 * LIMIT_MS)
    channel, theirs = sockets
    submit = Submit(call=1, prompt=LONG, sampling=GREEDY, max_tokens=3)
    theirs.sendall(encode(start_command) + encode(submit))
    calls = Calls()

    def listen() -> None:
        frames = FrameBuffer()
        while not calls[1].is_over:
            for event in map(event_decoder.decode, frames.feed(theirs.recv(1 << 20))):
                if isinstance(event, Step):
                    calls.take(event)
        theirs.sendall(encode(Shutdown()))

    listener = Thread(target=listen)
    listener.start()
    with pytest.raises(worker.ShutDown):
        worker.run(channel)
    listener.join()
    assert len(calls[1].token_ids) == 3


def test_the_engine_ends_at_once_while_a_prompt_is_tokenised(
    sockets: tuple[Channel, socket.socket],
    start_command: Start,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    begun, may_end = Event(), Event()
    was_let_go: list[bool] = []

    def not_done_yet(*_: object) -> None:
        begun.set()
        was_let_go.append(may_end.wait(LIMIT_MS / 1000))

    monkeypatch.setattr(intake, "prompt_ids", not_done_yet)
    channel, theirs = sockets
    theirs.sendall(encode(start_command) + encode(Submit(call=1, prompt=LONG)))

    def shut_down() -> None:
        begun.wait()
        theirs.sendall(encode(Shutdown()))

    ender = Thread(target=shut_down)
    ender.start()
    with pytest.raises(worker.ShutDown):
        worker.run(channel)
    assert was_let_go == [], "the prompt was waited for"
    may_end.set()
    ender.join()
