"""Registering, heartbeats, links that break, refusals, garbage: real sockets, a fake engine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import structlog
from structlog.testing import capture_logs

from agent import balancer_link
from agent.balancer_link import BalancerLink, longest_delay_s
from agent.errors import RegistrationRefused
from agent.settings import BalancerAddress
from protocol.agent_status import AgentStatus, Issue
from protocol.codec import MAX_FRAME_BYTES, decode_result, encode_request
from protocol.generation import GenerationRequest
from protocol.jsonrpc import (
    ErrorObject,
    ErrorResponse,
    Notification,
    Request,
    Response,
    RpcCode,
)
from protocol.refusals import RefusalCode
from protocol.to_agent import Cancel, Snapshot, generate_tokens_call
from protocol.to_balancer import (
    Goodbye,
    Heartbeat,
    IssueCleared,
    IssueRaised,
    Register,
    Welcome,
)
from protocol.transfers import Outbox
from tests.support.cluster import eventually
from tests.support.fake_balancer import FakeBalancer, fake_balancer
from tests.support.fake_engine import FakeEngine, words
from tests.support.running_agent import running_agent
from tests.support.running_balancer import running_balancer

ASK = GenerationRequest(prompt="Hello there")
NAME_TAKEN = ErrorObject(
    code=int(RpcCode.INVALID_REQUEST), message="the name 'agent-1' is taken; use --name"
)


class SilentListener:
    """For links that never come up."""

    def registration(self) -> Register:
        raise AssertionError("nobody is there to register with")

    def on_welcome(self, welcome: Welcome) -> None: ...

    def on_message(self, message: Request | Notification) -> None: ...

    def on_lost(self) -> None: ...


@pytest.fixture
async def balancer() -> AsyncIterator[FakeBalancer]:
    async with fake_balancer() as balancer:
        yield balancer


async def test_an_agent_introduces_itself(balancer: FakeBalancer) -> None:
    labels = {"room": "b"}
    async with running_agent(balancer.address, FakeEngine(), aliases=("a", "b"), labels=labels):
        register = await balancer.registered()
        beat = await balancer.has_slots(4)
    assert (register.name, register.labels) == ("agent-1", labels)
    assert (register.protocol_min, register.protocol_max) == (1, 1)
    assert register.hardware.cores >= 1
    assert beat.model is not None
    assert (beat.model.name, beat.model.aliases) == ("a", ("b",))
    assert beat.resume_key
    assert beat.status.seq > register.status.seq


async def test_an_agent_without_a_model_yet_has_no_slots_and_gets_them_with_it(
    balancer: FakeBalancer,
) -> None:
    engine = FakeEngine(ready=False)
    async with running_agent(balancer.address, engine):
        register = await balancer.registered()
        assert (register.status.slots_total, register.model) == (0, None)
        call = await balancer.call(ASK)
        answer = await balancer.answered(call)
        assert isinstance(answer, ErrorResponse)
        assert answer.error.code == RefusalCode.MODEL_NOT_LOADED
        engine.revive()
        beat = await balancer.has_slots(4)
        assert beat.status.capacity_version > register.status.capacity_version


async def test_heartbeats_come_at_the_interval_of_the_welcome(balancer: FakeBalancer) -> None:
    balancer.heartbeat_ms = 5
    async with running_agent(balancer.address, FakeEngine()):
        await balancer.until(lambda: len(balancer.notifications(Heartbeat)) > 5, "heartbeats")
    numbers = [beat.status.seq for beat in balancer.notifications(Heartbeat)]
    assert numbers == sorted(set(numbers))


async def test_a_refused_agent_stops_with_the_balancer_s_words(balancer: FakeBalancer) -> None:
    balancer.refuse_with = NAME_TAKEN
    with pytest.raises(ExceptionGroup) as caught:
        async with running_agent(balancer.address, FakeEngine()):
            await asyncio.Event().wait()
    refused = caught.value.subgroup(RegistrationRefused)
    assert refused is not None
    assert "use --name" in repr(refused)


async def test_an_agent_that_was_registered_keeps_trying_when_it_is_refused_later(
    balancer: FakeBalancer,
) -> None:
    async with running_agent(balancer.address, FakeEngine()):
        await balancer.registered()
        balancer.refuse_with = NAME_TAKEN
        heard = len(balancer.heard)
        balancer.break_link()
        await balancer.until(lambda: len(balancer.heard) > heard, "another try")
        balancer.refuse_with = None
        await balancer.registered(links=2)


async def test_a_draining_balancer_s_refusal_is_not_the_end(balancer: FakeBalancer) -> None:
    balancer.refuse_with = ErrorObject(code=int(RefusalCode.DRAINING), message="stopping")
    async with running_agent(balancer.address, FakeEngine()):
        await balancer.until(lambda: balancer.heard, "a try")
        balancer.refuse_with = None
        await balancer.registered()


async def test_an_agent_comes_back_with_its_epoch_after_a_broken_link(
    balancer: FakeBalancer,
) -> None:
    async with running_agent(balancer.address, FakeEngine()):
        first = await balancer.registered()
        await balancer.has_slots(4)
        balancer.break_link()
        second = await balancer.registered(links=2)
    assert second.epoch == first.epoch
    assert second.status.slots_total == 4
    assert second.model is not None


async def test_a_balancer_that_comes_late_is_found() -> None:
    async with fake_balancer() as first:
        address = first.address
    async with running_agent(address, FakeEngine()) as app:
        assert app is not None  # dials into nothing meanwhile
    assert longest_delay_s(0) < longest_delay_s(3) < longest_delay_s(50) == 3.0


async def test_another_reason_for_no_link_is_news_and_the_same_one_is_not() -> None:
    statuses = iter([500, 500, 401, 401])
    has_asked_all = asyncio.Event()

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        status = next(statuses, None)
        if status is None:
            has_asked_all.set()
        writer.write(f"HTTP/1.1 {status or 401} No\r\nContent-Length: 0\r\n\r\n".encode())
        writer.close()

    server = await asyncio.start_server(refuse, "127.0.0.1", 0)
    host, port = server.sockets[0].getsockname()
    async with server:
        with capture_logs() as logs:
            async with running_agent(BalancerAddress(host, port), FakeEngine()):
                await asyncio.wait_for(has_asked_all.wait(), 30)
    failures = [line for line in logs if line["event"].startswith("no link to the balancer")]
    news = [line["reason"] for line in failures if line["log_level"] == "warning"]
    assert len(news) == 2
    assert "HTTP 500" in news[0]
    assert "the balancer wants the token of an agent" in news[1]


async def test_a_broken_link_ends_its_calls_in_the_engine(balancer: FakeBalancer) -> None:
    engine = FakeEngine(words(100_000), pace="held")
    async with running_agent(balancer.address, engine):
        await balancer.registered()
        await balancer.has_slots(4)
        call = await balancer.call(ASK)
        await balancer.answered(call)
        balancer.break_link()
        register = await balancer.registered(links=2)
        await eventually(lambda: engine.running == 0, what="the slot is free")
        await balancer.until(
            lambda: (b := balancer.last_heartbeat()) is not None and not b.status.running,
            "a status without the lost call",
        )
        again = await balancer.call(ASK)
        assert isinstance(await balancer.answered(again), Response)
    assert call not in register.status.running
    assert not balancer.notifications(Heartbeat)[-1].status.paused


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "nonsense",
        "[]",
        "[1, 2]",
        "{}",
        '{"jsonrpc": "2.0", "method": "no_such_method"}',
        '{"jsonrpc": "2.0", "method": "cancel", "params": {}}',
        '{"jsonrpc": "2.0", "method": "cancel", "params": {"call": 99}, "id": 5}',
        '{"jsonrpc": "2.0", "id": 77, "result": {}}',
        '{"jsonrpc": "2.0", "id": null, "error": {"code": -1, "message": "x"}}',
        "[" * 1000,
        '{"jsonrpc": "2.0", "method": "credit", "params": {"transfer": 1, "bytes_taken": 5}}',
    ],
)
async def test_garbage_never_disturbs_the_calls_on_the_link(
    balancer: FakeBalancer, frame: str
) -> None:
    async with running_agent(balancer.address, FakeEngine()):
        await balancer.registered()
        await balancer.has_slots(4)
        for _ in range(20):
            await balancer.say(frame)
        await balancer.say_binary(b"\0\1garbage")
        await balancer.say_binary(b"\xff" * 100)
        call = await balancer.call(ASK)
        await balancer.finished(call)
        assert balancer.text(call) == "Hello."
    assert balancer.links == 1
    assert balancer.garbage == []


async def test_a_call_with_wrong_parameters_is_answered_by_name_of_the_field(
    balancer: FakeBalancer,
) -> None:
    async with running_agent(balancer.address, FakeEngine()):
        await balancer.registered()
        await balancer.say(
            '{"jsonrpc":"2.0","id":"x","method":"generate_tokens","params":{"temperature":1001}}'
        )
        answer = await balancer.answered("x")
    assert isinstance(answer, ErrorResponse)
    assert answer.error.code == RpcCode.INVALID_PARAMS
    assert "temperature" in answer.error.message


async def test_a_frame_over_the_limit_closes_the_link_and_another_follows(
    balancer: FakeBalancer,
) -> None:
    async with running_agent(balancer.address, FakeEngine()):
        await balancer.registered()
        await balancer.say(" " * (MAX_FRAME_BYTES + 1))
        await balancer.registered(links=2)


async def test_a_message_too_big_for_a_text_frame_arrives_in_pieces(
    balancer: FakeBalancer,
) -> None:
    engine = FakeEngine()
    prompt = "long " * 80_000
    async with running_agent(balancer.address, engine):
        await balancer.registered()
        await balancer.has_slots(4)
        outbox = Outbox()
        request = generate_tokens_call(
            GenerationRequest(prompt=prompt), created=0, deadline_ms=None, trace_id="t"
        )
        outbox.put(encode_request(1000, request))
        for piece in outbox.take_binary():
            await balancer.say_binary(piece)
        await balancer.answered(1000)
    [submit] = engine.submits
    assert submit.prompt == prompt


async def test_a_snapshot_is_a_status_in_the_sequence(balancer: FakeBalancer) -> None:
    async with running_agent(balancer.address, FakeEngine()):
        await balancer.registered()
        beat = await balancer.has_slots(4)
        await balancer.say(encode_request("s", Snapshot()))
        answer = await balancer.answered("s")
        assert isinstance(answer, Response)
        status = decode_result(answer.result, AgentStatus)
    assert status.seq > beat.status.seq
    assert status.slots_total == 4


async def test_a_stopped_agent_says_goodbye_and_lets_its_calls_end(
    balancer: FakeBalancer,
) -> None:
    engine = FakeEngine(pace="held")
    async with running_agent(balancer.address, engine) as app:
        await balancer.registered()
        await balancer.has_slots(4)
        running = await balancer.call(ASK)
        await balancer.answered(running)
        app.stop()
        await balancer.until(lambda: balancer.notifications(Goodbye), "goodbye")
        late = await balancer.call(ASK)
        answer = await balancer.answered(late)
        assert isinstance(answer, ErrorResponse)
        assert answer.error.code == RefusalCode.DRAINING
        engine.pace = "tick"
        await balancer.finished(running)
        await balancer.until(lambda: not balancer.is_linked, "the agent leaves")
    assert balancer.text(running) == "Hello."


async def test_a_second_stop_does_not_wait_for_calls(balancer: FakeBalancer) -> None:
    async with running_agent(balancer.address, FakeEngine(pace="held")) as app:
        await balancer.registered()
        await balancer.has_slots(4)
        call = await balancer.call(ASK)
        await balancer.answered(call)
        app.stop()
        await balancer.until(lambda: balancer.notifications(Goodbye), "goodbye")
        app.stop()
        await balancer.until(lambda: not balancer.is_linked, "the agent leaves")


async def test_a_dead_engine_costs_the_slots_and_is_an_issue_until_it_is_back(
    balancer: FakeBalancer,
) -> None:
    engine = FakeEngine()
    async with running_agent(balancer.address, engine):
        await balancer.registered()
        await balancer.has_slots(4)
        engine.die("SIGKILL", stay_dead=True)
        beat = await balancer.has_slots(0)
        assert [issue.code for issue in beat.status.issues] == ["engine_died"]
        assert beat.model is not None
        engine.revive()
        beat = await balancer.has_slots(4)
        assert beat.status.issues == ()
    assert balancer.notifications(IssueRaised)[0].issue.message == "died: SIGKILL"
    assert balancer.notifications(IssueCleared)[0].code == "engine_died"
    assert balancer.links == 1


async def test_a_model_that_cannot_be_loaded_is_an_issue_of_its_own(balancer: FakeBalancer) -> None:
    engine = FakeEngine()
    async with running_agent(balancer.address, engine):
        await balancer.registered()
        await balancer.has_slots(4)
        engine.die("SIGKILL", phase="loading", stay_dead=True)
        beat = await balancer.has_slots(0)
        assert [issue.code for issue in beat.status.issues] == ["model_load_failed"]
        engine.revive()
        beat = await balancer.has_slots(4)
        assert beat.status.issues == ()


async def test_a_prompt_that_cannot_be_kept_warm_is_an_issue(
    balancer: FakeBalancer, tmp_path: Path
) -> None:
    file = tmp_path / "system.txt"
    file.write_text("Be brief.")
    engine = FakeEngine()
    engine.refuse_next(RefusalCode.CONTEXT_TOO_LONG, "900 tokens, the context has 512")
    async with running_agent(balancer.address, engine, keep_warm=(file,)):
        await balancer.registered()
        [issue] = await balancer.until(lambda: issues_told(balancer), "the issue")
    assert (issue.code, issue.severity) == ("keep_warm", "warning")
    assert f"{file}: 900 tokens, the context has 512" in issue.message


async def test_who_is_refused_while_a_prompt_is_warmed_hears_that_there_is_a_slot_again(
    balancer: FakeBalancer, tmp_path: Path
) -> None:
    file = tmp_path / "system.txt"
    file.write_text("Be brief.")
    engine = FakeEngine(slots=1, pace="held")
    async with running_agent(balancer.address, engine, keep_warm=(file,)):
        await balancer.registered()
        await eventually(lambda: engine.running == 1, what="the prompt in the engine")
        answer = await balancer.answered(await balancer.call(ASK))
        assert isinstance(answer, ErrorResponse)
        assert answer.error.code == RefusalCode.NO_FREE_SLOT
        refused_at = await balancer.until(lambda: versions_told(balancer), "a heartbeat")
        engine.pace = "fast"
        await balancer.until(lambda: versions_told(balancer) > refused_at, "a higher version")


def versions_told(balancer: FakeBalancer) -> list[int]:
    """The capacity version of the last heartbeat."""
    return [beat.status.capacity_version for beat in balancer.notifications(Heartbeat)[-1:]]


def issues_told(balancer: FakeBalancer) -> tuple[Issue, ...]:
    """Those of the last heartbeat."""
    return tuple(
        issue for beat in balancer.notifications(Heartbeat)[-1:] for issue in beat.status.issues
    )


async def test_an_agent_at_a_port_that_knows_no_agents_is_told_which_port_to_dial() -> None:
    async with running_balancer() as balancer:
        link = BalancerLink(BalancerAddress("127.0.0.1", balancer.inference_port), SilentListener())
        with structlog.testing.capture_logs() as lines:
            running = asyncio.ensure_future(link.run())
            await eventually(
                lambda: any("reason" in line for line in lines), what="the refusal is logged"
            )
            running.cancel()
    [reason, *_] = [line["reason"] for line in lines if "reason" in line]
    assert "HTTP 404; this is not a management port (8081" in reason


async def test_a_balancer_s_name_that_no_resolver_takes_is_no_crash() -> None:
    delays: list[float] = []

    def jitter(longest_s: float) -> float:
        delays.append(longest_s)
        return 0.0

    address = BalancerAddress("balancer..example", 1)
    link = BalancerLink(address, SilentListener(), jitter=jitter)
    running = asyncio.ensure_future(link.run())
    await eventually(lambda: running.done() or len(delays) >= 2, what="a second try")
    assert not running.done()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_a_balancer_that_does_not_answer_is_left_and_dialled_again(
    balancer: FakeBalancer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(balancer_link, "WELCOME_TIMEOUT_S", 0.05)
    balancer.answers_registrations = False
    async with running_agent(balancer.address, FakeEngine()):
        await balancer.until(lambda: len(balancer.heard) >= 2, "a second try")
        balancer.answers_registrations = True
        monkeypatch.setattr(balancer_link, "WELCOME_TIMEOUT_S", 10.0)
        await balancer.registered()


@pytest.mark.parametrize(
    "answer",
    [
        b'{"jsonrpc":"2.0","id":1,"result":{"protocol_version":1}}',
        b'{"jsonrpc":"2.0","id":1,"result":{"protocol_version":9,"heartbeat_interval_ms":5000,'
        b'"heartbeat_misses":3}}',
    ],
)
async def test_a_welcome_that_cannot_be_used_is_no_welcome(
    balancer: FakeBalancer, answer: bytes
) -> None:
    balancer.answer_with = answer
    async with running_agent(balancer.address, FakeEngine()):
        await balancer.until(lambda: balancer.links >= 2, "a second try")
        balancer.answer_with = b""
        await balancer.has_slots(4)


async def test_calls_before_the_welcome_are_dropped(balancer: FakeBalancer) -> None:
    balancer.answer_with = b'{"jsonrpc":"2.0","id":"x","method":"snapshot"}'
    async with running_agent(balancer.address, FakeEngine()):
        await balancer.registered()
        await balancer.say(
            '{"jsonrpc":"2.0","id":1,"result":{"protocol_version":1,"heartbeat_interval_ms":5000,'
            '"heartbeat_misses":3}}'
        )
        await balancer.has_slots(4)
    assert balancer.answer("x") is None


async def test_a_balancer_that_reads_nothing_loses_the_link_not_our_memory(
    balancer: FakeBalancer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(balancer_link, "MAX_UNSENT_BYTES", 200_000)
    engine = FakeEngine(("x" * 50_000,) * 2000, pace="held")
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        await balancer.answered(await balancer.call(ASK))
        balancer.reads_nothing = True
        engine.pace = "tick"
        await balancer.registered(links=2)
        await eventually(lambda: engine.running == 0, what="its call is ended")


async def test_a_fault_of_ours_in_one_message_does_not_cost_the_link(
    balancer: FakeBalancer, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with running_agent(balancer.address, FakeEngine()) as app:
        await balancer.has_slots(4)
        with monkeypatch.context() as patched:
            patched.setattr(app, "on_message", broken)
            await balancer.say(encode_request("s", Snapshot()))
            answer = await balancer.answered("s")
        await balancer.finished(await balancer.call(ASK))
    assert isinstance(answer, ErrorResponse)
    assert answer.error.code == RpcCode.INTERNAL_ERROR
    assert balancer.links == 1


def broken(message: object) -> None:
    raise ZeroDivisionError(message)


async def test_many_messages_of_a_tick_share_a_frame(balancer: FakeBalancer) -> None:
    engine = FakeEngine(words(2000), pace="fast")
    async with running_agent(balancer.address, engine):
        await balancer.registered()
        await balancer.has_slots(4)
        call = await balancer.call(ASK)
        finished = await balancer.finished(call)
    assert finished.usage.completion_tokens == 2001
    assert len(balancer.deltas(call)) == 2001
    assert balancer.frames < 1000


async def test_cancels_of_calls_that_never_were_do_not_pile_up(balancer: FakeBalancer) -> None:
    async with running_agent(balancer.address, FakeEngine()):
        await balancer.registered()
        await balancer.notify(Cancel(call="ghost"))
        finished = await balancer.finished("ghost")
    assert finished.finish_reason == "cancelled"
    assert finished.usage.completion_tokens == 0
