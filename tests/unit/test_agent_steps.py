"""What the agent makes of the engine's steps that are not everyday."""

from __future__ import annotations

from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest

from agent.chat.output import OutputFormat, parser_for
from agent.chat.template import TemplateRenderer
from agent.commands.calls import Call, Calls
from agent.commands.desk import Desk
from agent.commands.generate_tokens import MAX_WAITING_CALLS
from agent.commands.served import served
from agent.commands.steps import abandon_calls, relay_step
from agent.commands.table import execute
from agent.engine.frames import (
    Accepted,
    CallFailed,
    CallProgress,
    CallTokens,
    CancelCall,
    ContinueCall,
    Ended,
    PauseCall,
    Refused,
    Step,
)
from agent.errors import TemplateBusy, TemplateRefused
from agent.settings import BalancerAddress, Settings
from protocol import jsonrpc
from protocol.agent_status import AgentStatus
from protocol.chat import Message
from protocol.codec import BALANCER_RECEIVES, decode_result
from protocol.generation import Timings, Usage
from protocol.jsonrpc import CallId, ErrorResponse, Notification, Request, Response, RpcCode
from protocol.refusals import RefusalCode
from protocol.to_agent import Committed, Continue, GenerateTokens, Pause
from protocol.to_balancer import Failed, Finished, PrefillProgress, Tokens
from tests.support.fake_engine import FACTS, FakeEngine

SETTINGS = Settings(balancer=BalancerAddress("a", 1), model_path=Path("fake.gguf"))
CHAT = GenerateTokens(messages=(Message(role="user", content="Hi"),))
USAGE = Usage(prompt_tokens=1, completion_tokens=1)


class Table:
    """A desk with what it sent."""

    def __init__(self, renderer: TemplateRenderer | None = None) -> None:
        self.sent: list[bytes] = []
        self.freed: list[bool] = []
        self.engine = FakeEngine()
        self.engine.facts = FACTS
        self.tasks: list[Coroutine[Any, Any, None]] = []
        self.calls = Calls(self.freed.append)
        self.desk = Desk(
            engine=self.engine,
            renderer=renderer or TemplateRenderer(),
            calls=self.calls,
            send=self.sent.append,
            spawn=self.tasks.append,
            status=lambda: AgentStatus(seq=1, capacity_version=0, slots_total=4),
            served=served(FACTS, SETTINGS),
        )

    def open(self, call_id: str = "a", *, committed: bool = True) -> Call:
        call = self.calls.open(call_id, GenerateTokens(prompt="x"))
        assert call is not None
        call.state = "submitted"
        if committed:
            self.step(accepted=(Accepted(call.number, 1, 8),))
            self.heard()
        return call

    def step(self, **news: Any) -> None:
        relay_step(self.desk, Step(number=1, **news))

    def heard(self) -> list[jsonrpc.Message]:
        messages = [message for data in self.sent for message in BALANCER_RECEIVES.decode(data)]
        self.sent.clear()
        return [message for message in messages if not isinstance(message, Exception)]


@pytest.fixture
def table() -> Table:
    return Table()


def ended(call: Call, reason: Any = "stop") -> Ended:
    return Ended(call.number, reason, USAGE, Timings())


def test_a_call_that_fails_in_the_engine_is_failed_and_its_slot_is_free(table: Table) -> None:
    call = table.open()
    table.step(failed=(CallFailed(call.number, RefusalCode.ENGINE_FAILED, "no decode"),))
    [message] = table.heard()
    assert isinstance(message, Notification)
    assert isinstance(message.params, Failed)
    assert message.params.error.code == RefusalCode.ENGINE_FAILED
    assert table.freed[-1] is True
    assert len(table.calls) == 0


def test_calls_that_stand_still_for_others_are_reported_as_waiting_as_long_as_they_do(
    table: Table,
) -> None:
    works, waits = table.open("works"), table.open("waits")
    new = table.open("new", committed=False)
    table.step(waiting=(waits.number, 404))
    assert names(table) == (["works", "waits"], ["waits", "new"])
    table.step(ended=(ended(works),))
    assert names(table) == (["waits"], ["new"])
    table.step(waiting=(waits.number,))
    table.calls.engine_gone()
    table.calls.end(new)
    assert names(table) == (["waits"], [])


def names(table: Table) -> tuple[list[CallId], list[CallId]]:
    """Who runs, and who waits."""
    return list(table.calls.running), list(table.calls.waiting)


def test_a_call_that_fails_before_it_was_accepted_is_refused(table: Table) -> None:
    call = table.open(committed=False)
    table.step(failed=(CallFailed(call.number, RefusalCode.ENGINE_FAILED, "no"),))
    [message] = table.heard()
    assert isinstance(message, ErrorResponse)


def test_a_call_cancelled_before_it_was_accepted_is_refused_as_cancelled(table: Table) -> None:
    call = table.open(committed=False)
    table.step(ended=(ended(call, "cancelled"),))
    [message] = table.heard()
    assert isinstance(message, ErrorResponse)
    assert message.error.code == RefusalCode.CANCELLED


def test_how_much_of_a_prompt_was_cached_is_told_when_its_call_is_committed(
    table: Table,
) -> None:
    call = table.open(committed=False)
    table.step(accepted=(Accepted(call.number, 9, 8, cached_tokens=5),))
    [message] = table.heard()
    assert isinstance(message, Response)
    committed = decode_result(message.result, Committed)
    assert committed == Committed(prompt_tokens=9, max_tokens=8, cached_tokens=5)


def test_accepted_and_ended_in_one_step_is_committed_then_finished(table: Table) -> None:
    call = table.open(committed=False)
    table.step(accepted=(Accepted(call.number, 1, 8),), ended=(ended(call),))
    committed, finished = table.heard()
    assert isinstance(committed, Response)
    assert isinstance(finished, Notification)
    assert isinstance(finished.params, Finished)


def test_a_sampler_s_state_travels_with_its_call_s_tokens(table: Table) -> None:
    plain, mirostat = table.open("a"), table.open("b")
    plain_tokens = CallTokens(plain.number, (1,), "x")
    table.step(tokens=(plain_tokens, CallTokens(mirostat.number, (2,), "y", (), (9.75,))))
    table.step(tokens=(plain_tokens,))
    both, alone = (message.params for message in table.heard() if isinstance(message, Notification))
    assert isinstance(both, Tokens)
    assert isinstance(alone, Tokens)
    assert both.sampler_states == ((), (9.75,))
    assert alone.sampler_states == ()


def test_text_held_back_comes_out_when_a_call_ends_without_a_last_token(table: Table) -> None:
    call = table.open(committed=False)
    call.parser = parser_for(
        OutputFormat(tool_calls="hermes"), "", tools={"f"}, seed=0, trace_id="t"
    )
    call.parser.feed("<tool", tokens=1)
    table.step(accepted=(Accepted(call.number, 1, 8),), ended=(ended(call),))
    _, tokens, _ = table.heard()
    assert isinstance(tokens, Notification)
    assert tokens.params == Tokens(calls=("a",), token_ids=((),), deltas=("<tool",))


def test_the_progress_of_prompts_is_passed_on(table: Table) -> None:
    call = table.open()
    table.step(prefill=(CallProgress(call.number, 128, 512), CallProgress(99, 1, 2)))
    [message] = table.heard()
    assert isinstance(message, Notification)
    assert isinstance(message.params, Tokens)
    assert message.params.prefill == (PrefillProgress("a", 128, 512),)


@pytest.mark.parametrize("news", ["ended", "failed", "refused"])
def test_an_abandoned_call_holds_its_slot_until_the_engine_lets_go(table: Table, news: str) -> None:
    call = table.open()
    abandon_calls(table.desk)
    assert table.engine.commands == [CancelCall(call=call.number)]
    assert list(table.calls.running) == [f"abandoned-{call.number}"]
    told = {
        "ended": ended(call, "cancelled"),
        "failed": CallFailed(call.number, -1, ""),
        "refused": Refused(call.number, -1, ""),
    }
    table.step(**{news: (told[news],)})
    assert list(table.calls.running) == []
    assert table.freed[-1] is True
    assert table.heard() == []


def test_news_of_calls_that_nobody_knows_are_ignored(table: Table) -> None:
    table.step(
        accepted=(Accepted(7, 1, 1),),
        refused=(Refused(7, -1, ""),),
        ended=(Ended(7, "stop", USAGE, Timings()),),
        failed=(CallFailed(7, -1, ""),),
    )
    assert table.heard() == []


def test_pause_and_continue_of_ended_calls_are_ignored(table: Table) -> None:
    call = table.open()
    for params in (Pause(call="gone"), Continue(call="gone"), Pause(call="a"), Continue(call="a")):
        method = "pause" if isinstance(params, Pause) else "continue"
        execute(table.desk, Notification(method=method, params=params))
    assert table.engine.commands == [PauseCall(call=call.number), ContinueCall(call=call.number)]
    assert table.calls.paused == ()


class FailingRenderer(TemplateRenderer):
    """Renders nothing, for a reason."""

    def __init__(self, error: Exception) -> None:
        super().__init__()
        self._error = error

    async def render(self, template: str, variables: dict[str, Any], **_: Any) -> str:
        del template, variables
        raise self._error


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (TemplateRefused("no"), RefusalCode.INVALID_TEMPLATE),
        (TemplateBusy("busy"), RefusalCode.NO_FREE_SLOT),
        (ZeroDivisionError("ours"), RpcCode.INTERNAL_ERROR),
    ],
)
async def test_a_chat_that_cannot_be_rendered_is_refused_by_whose_fault_it_is(
    error: Exception, code: int
) -> None:
    table = Table(FailingRenderer(error))
    execute(table.desk, Request(id="a", method="generate_tokens", params=CHAT))
    await table.tasks.pop()
    [message] = table.heard()
    assert isinstance(message, ErrorResponse)
    assert message.error.code == code
    assert len(table.calls) == 0


async def test_a_call_whose_engine_died_while_it_was_rendered_is_for_another_agent() -> None:
    class DeadlyRenderer(TemplateRenderer):
        async def render(self, template: str, variables: dict[str, Any], **_: Any) -> str:
            at.engine.facts = None
            return f"{template}{variables}"

    at = Table(DeadlyRenderer())
    execute(at.desk, Request(id="a", method="generate_tokens", params=CHAT))
    await at.tasks.pop()
    [message] = at.heard()
    assert isinstance(message, ErrorResponse)
    assert message.error.code == RefusalCode.MODEL_NOT_LOADED


def test_a_chat_paused_while_it_is_rendered_starts_paused(table: Table) -> None:
    execute(table.desk, Request(id="a", method="generate_tokens", params=CHAT))
    execute(table.desk, Notification(method="pause", params=Pause(call="a")))
    assert table.engine.commands == []
    assert table.calls.paused == ("a",)
    table.tasks.pop().close()


def test_calls_far_beyond_the_slots_are_refused_before_any_work(table: Table) -> None:
    for number in range(FACTS.slots + MAX_WAITING_CALLS):
        table.calls.open(number, CHAT)
    execute(table.desk, Request(id="late", method="generate_tokens", params=CHAT))
    [message] = table.heard()
    assert isinstance(message, ErrorResponse)
    assert message.error.code == RefusalCode.NO_FREE_SLOT
