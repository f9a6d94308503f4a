"""One link: calls find their handlers, nonsense finds nobody, an end comes exactly once."""

from __future__ import annotations

from typing import Any

import pytest
from structlog.testing import capture_logs

from balancer.fleet.roster import Roster
from balancer.observability.metrics import Metrics
from balancer.settings import LiveSettings, Settings
from protocol import codec
from protocol.errors import FrameTooLarge
from protocol.generation import SamplerState, StepDelta, TokenLogprob, Usage
from protocol.jsonrpc import ErrorObject
from protocol.refusals import RefusalCode
from protocol.to_agent import Committed, GenerateTokens
from protocol.to_balancer import Finished, Heartbeat, Tokens
from protocol.transfer_messages import Credit
from tests.support.memory_agent import MemoryAgent


class Clock:
    """A clock that stands until it is told to go on."""

    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Recorder:
    """A handler that writes down what it hears; it can be told to raise."""

    def __init__(self, *, raise_on: str = "") -> None:
        self.heard: list[tuple[str, Any]] = []
        self._raise_on = raise_on

    def _hear(self, what: str, fact: Any = None) -> None:
        self.heard.append((what, fact))
        if what == self._raise_on:
            raise RuntimeError("a defect of the handler")

    def on_committed(self, committed: Committed) -> None:
        self._hear("committed", committed.prompt_tokens)

    def on_tokens(
        self,
        token_ids: tuple[int, ...],
        delta: StepDelta,
        logprobs: tuple[TokenLogprob, ...],
    ) -> None:
        self._hear("tokens", (token_ids, delta, logprobs))

    def on_prefill(self, done: int) -> None: ...

    def on_sampler_state(self, state: SamplerState) -> None: ...

    def on_garbled(self) -> None:
        self._hear("garbled")

    def on_refused(self, error: ErrorObject) -> None:
        self._hear("refused", error.code)

    def on_finished(self, finished: Finished) -> None:
        self._hear("finished", finished.finish_reason)

    def on_failed(self, error: ErrorObject) -> None:
        self._hear("failed", error.code)

    def on_link_lost(self) -> None:
        self._hear("lost")

    @property
    def words(self) -> list[str]:
        return [what for what, _ in self.heard]


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


@pytest.fixture
def agent(clock: Clock, metrics: Metrics) -> MemoryAgent:
    return MemoryAgent(
        Roster(settings=LiveSettings(Settings()), metrics=metrics, now=clock)
    ).register()


PARAMS = GenerateTokens(model="demo", prompt="hi")
NO_USAGE = Usage(prompt_tokens=0, completion_tokens=0)


def call(agent: MemoryAgent, handler: Recorder) -> int:
    return agent.link.call(PARAMS, handler)


def garbage(metrics: Metrics, kind: str) -> float:
    return metrics.registry.get_sample_value("paddler_link_garbage_total", {"kind": kind}) or 0.0


def test_a_call_is_committed_gets_its_tokens_and_finishes(agent: MemoryAgent) -> None:
    handler = Recorder()
    number = call(agent, handler)
    agent.answer()
    agent.tokens(number, [5], "Hi", (TokenLogprob(5, "Hi", -0.1),))
    agent.finish(number)
    assert handler.words == ["committed", "tokens", "finished"]
    assert handler.heard[1][1] == ((5,), "Hi", (TokenLogprob(5, "Hi", -0.1),))
    assert agent.link.claimed_slots == 0


def test_a_call_whose_end_was_lost_does_not_keep_its_client_and_its_slot_for_ever(
    agent: MemoryAgent, metrics: Metrics
) -> None:
    lost, well = Recorder(), Recorder()
    number = call(agent, lost)
    call(agent, well)
    agent.answer()
    agent.link.receive(
        b'{"jsonrpc":"2.0","method":"finished","params":{"call":%d,"finish_reason":"?"}}' % number
    )
    agent.running.remove(number)
    agent.heartbeat()
    assert lost.words == ["committed"]
    agent.heartbeat()
    assert lost.words == ["committed", "failed"]
    assert (well.words, agent.link.claimed_slots) == (["committed"], 1)
    agent.say(Finished(call=number, finish_reason="stop", usage=NO_USAGE))
    assert garbage(metrics, "unknown_call") == 0


def test_a_call_that_one_status_does_not_name_yet_goes_on(agent: MemoryAgent) -> None:
    handler = Recorder()
    number = call(agent, handler)
    agent.heartbeat()
    agent.heartbeat()
    agent.answer()
    agent.heartbeat(agent.status(running=()))
    agent.heartbeat()
    agent.heartbeat(agent.status(running=()))
    agent.finish(number)
    assert handler.words == ["committed", "finished"]


def test_tokens_of_one_step_reach_each_its_own_call(agent: MemoryAgent) -> None:
    handlers = [Recorder() for _ in range(3)]
    numbers = [call(agent, handler) for handler in handlers]
    agent.answer()
    agent.step({number: f"text {number}" for number in numbers})
    assert [handler.heard[-1][1][1] for handler in handlers] == [f"text {n}" for n in numbers]


def test_a_cancelled_call_keeps_its_slot_until_the_agent_confirms(agent: MemoryAgent) -> None:
    handler = Recorder()
    number = call(agent, handler)
    agent.answer()
    agent.link.cancel(number)
    agent.link.cancel(number)
    assert agent.cancelled == [number]
    assert agent.link.claimed_slots == 1
    agent.confirm_cancels()
    assert agent.link.claimed_slots == 0
    assert handler.heard[-1] == ("finished", "cancelled")


def test_an_end_that_crosses_its_cancel_is_no_garbage(agent: MemoryAgent, metrics: Metrics) -> None:
    number = call(agent, Recorder())
    agent.answer()
    agent.link.cancel(number)
    agent.finish(number)
    agent.confirm_cancels()
    assert garbage(metrics, "unknown_call") == 0


def test_a_big_call_that_arrives_after_its_own_cancel_is_cancelled_again(
    agent: MemoryAgent, metrics: Metrics
) -> None:
    number = call(agent, Recorder())
    agent.link.cancel(number)
    agent.cancelled.clear()
    agent.say(Finished(call=number, finish_reason="cancelled", usage=NO_USAGE))
    agent.commit(number)
    agent.tokens(number, [1], "late")
    assert agent.cancelled == [number]
    assert garbage(metrics, "unknown_call") == 0


def test_a_closed_link_tells_every_call_exactly_once(agent: MemoryAgent) -> None:
    handlers = [Recorder() for _ in range(3)]
    for handler in handlers:
        call(agent, handler)
    agent.die()
    agent.die()
    agent.link.close("again")
    assert [handler.words for handler in handlers] == [["lost"]] * 3


def test_late_tokens_of_a_closed_link_are_ignored(agent: MemoryAgent) -> None:
    handler = Recorder()
    number = call(agent, handler)
    agent.answer()
    agent.die()
    agent.tokens(number, [1], "late")
    assert handler.words == ["committed", "lost"]


def test_a_handler_that_raises_over_an_unreadable_message_costs_its_own_call_only(
    agent: MemoryAgent,
) -> None:
    broken, well = Recorder(raise_on="garbled"), Recorder()
    number = call(agent, broken)
    call(agent, well)
    with capture_logs():
        agent.link.receive(b"?")
    assert (broken.words, well.words) == (["garbled", "failed"], ["garbled"])
    assert agent.cancelled == [number]


@pytest.mark.parametrize("moment", ["committed", "tokens", "finished"])
def test_a_handler_that_raises_costs_its_own_call_only(agent: MemoryAgent, moment: str) -> None:
    broken, well = Recorder(raise_on=moment), Recorder()
    first, second = call(agent, broken), call(agent, well)
    with capture_logs() as logs:
        agent.answer()
        agent.step({first: "a", second: "b"})
        agent.step({first: "c", second: "d"})
        for number in (first, second):
            agent.finish(number)
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == [
        "call handler failed"
    ]
    assert well.words == ["committed", "tokens", "tokens", "finished"]
    assert agent.closed_reason is None
    assert agent.link.claimed_slots == 0


def test_a_dropped_call_is_cancelled_and_keeps_its_slot_until_confirmed(agent: MemoryAgent) -> None:
    handler = Recorder(raise_on="tokens")
    number = call(agent, handler)
    agent.answer()
    agent.step({number: "a"})
    assert handler.words[-1] == "failed"
    assert (agent.cancelled, agent.link.claimed_slots) == ([number], 1)
    agent.confirm_cancels()
    assert agent.link.claimed_slots == 0


def test_a_result_that_is_none_drops_the_call_and_nothing_else(
    agent: MemoryAgent, metrics: Metrics
) -> None:
    handler = Recorder()
    number = call(agent, handler)
    agent.link.receive(b'{"jsonrpc":"2.0","id":%d,"result":{"prompt_tokens":"many"}}' % number)
    assert handler.words == ["failed"]
    assert agent.cancelled == [number]
    assert garbage(metrics, "bad_message") == 1


@pytest.mark.parametrize(
    ("frame", "kind", "may_be_tokens"),
    [
        (b"\x00\xff", "bad_message", True),
        (b"[" * 100, "bad_frame", True),
        (b" " * (codec.MAX_FRAME_BYTES + 1), "bad_frame", True),
        (b'{"jsonrpc":"2.0","method":"dance"}', "bad_message", False),
        (b'{"jsonrpc":"2.0","method":"finished","params":{}}', "bad_message", False),
        (b'{"jsonrpc":"2.0","method":"tokens","params":{"calls":[9]}}', "bad_message", False),
        (b'{"jsonrpc":"2.0","method":"tokens","params":{"calls":[1,"?]}}', "bad_message", True),
        (b'{"jsonrpc":"2.0","method":"tokens","params":{"calls":[1.5]}}', "bad_message", True),
        (b'{"jsonrpc":"2.0","id":99,"result":{}}', "unknown_call", False),
        (b'{"jsonrpc":"2.0","id":null,"error":{"code":-32700,"message":"what?"}}', "rejected",
         False),
        (codec.encode_notification(Tokens(calls=(9,), token_ids=((1,),), deltas=("x",))),
         "unknown_call", False),
    ],
)  # fmt: skip
def test_nonsense_is_logged_once_and_counted_and_told_to_whose_tokens_it_may_be(
    agent: MemoryAgent, metrics: Metrics, frame: bytes, kind: str, may_be_tokens: bool
) -> None:
    handler = Recorder()
    call(agent, handler)
    with capture_logs() as logs:
        for _ in range(3):
            agent.link.receive(frame)
    assert [entry["event"] for entry in logs] == ["message dropped"]
    assert garbage(metrics, kind) == 3
    assert handler.words == ["garbled"] * 3 * may_be_tokens
    assert agent.closed_reason is None


def test_an_unreadable_step_is_told_to_the_calls_that_it_names(agent: MemoryAgent) -> None:
    handlers = [Recorder() for _ in range(3)]
    first, second, _ = (call(agent, handler) for handler in handlers)
    agent.answer()
    agent.link.receive(
        b'{"jsonrpc":"2.0","method":"tokens","params":{"calls":[%d,%d],"token_ids":"?"}}'
        % (first, second)
    )
    assert [handler.words[1:] for handler in handlers] == [["garbled"], ["garbled"], []]


def test_ten_useless_messages_in_a_minute_close_the_link(agent: MemoryAgent) -> None:
    handler = Recorder()
    call(agent, handler)
    agent.link.receive(b"[" + b",".join([b'{"jsonrpc":"2.0","method":"dance"}'] * 50) + b"]")
    assert agent.closed_reason
    assert "too many unusable messages" in agent.closed_reason
    assert handler.words == ["lost"]


def test_tokens_for_unknown_calls_close_the_link_without_reaching_the_others(
    agent: MemoryAgent,
) -> None:
    handler = Recorder()
    number = call(agent, handler)
    unknown = tuple(range(900, 912))
    calls = (*unknown, number)
    agent.say(
        Tokens(calls=calls, token_ids=((1,),) * len(calls), deltas=("x",) * len(calls)),
    )
    assert agent.closed_reason
    assert handler.words == ["lost"]


def test_useless_messages_far_apart_do_not_close_the_link(agent: MemoryAgent, clock: Clock) -> None:
    for _ in range(30):
        agent.link.receive(b"?")
        clock.now_s += 7.0
    assert agent.closed_reason is None


def test_a_bad_request_is_answered_on_its_own(agent: MemoryAgent) -> None:
    agent.link.receive(b'{"jsonrpc":"2.0","method":"dance","params":{},"id":"r-7"}')
    assert agent.refusal
    assert "unknown method" in agent.refusal.message


def test_a_second_register_is_refused_and_the_link_stays(agent: MemoryAgent) -> None:
    agent.register()
    assert agent.refusal
    assert agent.refusal.message == "already registered"
    assert agent.closed_reason is None


def test_before_register_nothing_else_counts(clock: Clock, metrics: Metrics) -> None:
    agent = MemoryAgent(Roster(settings=LiveSettings(Settings()), metrics=metrics, now=clock))
    agent.say(Heartbeat(status=agent.status()))
    assert garbage(metrics, "unregistered") == 1
    assert agent.register().welcome is not None


def test_a_call_that_is_too_big_claims_no_slot(clock: Clock, metrics: Metrics) -> None:
    def refuse_calls(message: bytes) -> None:
        if b"generate_tokens" in message:
            raise FrameTooLarge("too big")

    roster = Roster(settings=LiveSettings(Settings()), metrics=metrics, now=clock)
    link = roster.open_link(send=refuse_calls, close=lambda _reason: None)
    with pytest.raises(FrameTooLarge):
        link.call(PARAMS, Recorder())
    assert link.claimed_slots == 0


def test_flow_control_of_big_messages_goes_to_the_socket(clock: Clock, metrics: Metrics) -> None:
    heard: list[object] = []
    roster = Roster(settings=LiveSettings(Settings()), metrics=metrics, now=clock)
    link = roster.open_link(
        send=lambda _message: None, close=lambda _reason: None, on_transfer=heard.append
    )
    agent = MemoryAgent(roster)
    agent.link = link
    agent.register()
    agent.say(Credit(transfer=1, bytes_taken=10))
    assert heard == [Credit(transfer=1, bytes_taken=10)]


def test_the_longest_step_is_measured_between_token_frames(
    agent: MemoryAgent, clock: Clock
) -> None:
    number = call(agent, Recorder())
    agent.answer()
    for pause_s in (0.0, 0.25, 0.5, 60.0, 0.1):
        clock.now_s += pause_s
        agent.step({number: "x"})
    assert agent.link.longest_step_s == 0.5


@pytest.mark.parametrize("end", ["refuse", "fail"])
def test_a_refusal_or_failure_ends_the_call_once(agent: MemoryAgent, end: str) -> None:
    handler = Recorder()
    number = call(agent, handler)
    if end == "refuse":
        agent.refuse(number, RefusalCode.CONTEXT_TOO_LONG)
    else:
        agent.commit(number)
        agent.fail(number)
    assert handler.words[-1] == {"refuse": "refused", "fail": "failed"}[end]
    assert agent.link.claimed_slots == 0


def test_pause_and_continue_reach_the_agent_while_the_call_lives(agent: MemoryAgent) -> None:
    number = call(agent, Recorder())
    agent.answer()
    agent.link.pause(number)
    assert agent.paused == [number]
    agent.link.continue_(number)
    assert agent.paused == []
    agent.finish(number)
    agent.link.pause(number)
    assert agent.paused == []


def test_call_ids_never_repeat_across_links(clock: Clock, metrics: Metrics) -> None:
    roster = Roster(settings=LiveSettings(Settings()), metrics=metrics, now=clock)
    agents = [MemoryAgent(roster, name).register() for name in ("one", "two")]
    numbers = [call(agent, Recorder()) for agent in agents for _ in range(3)]
    assert len(set(numbers)) == 6


@pytest.mark.parametrize("moment", ["lost", "finished"])
def test_a_handler_that_raises_at_its_end_does_not_keep_others_from_theirs(
    agent: MemoryAgent, moment: str
) -> None:
    broken, well = Recorder(raise_on=moment), Recorder()
    first = call(agent, broken)
    call(agent, well)
    agent.answer()
    with capture_logs() as logs:
        if moment == "finished":
            agent.finish(first)
        agent.die()
    assert [entry["event"] for entry in logs if entry["log_level"] == "error"] == [
        "call handler failed"
    ]
    assert well.words == ["committed", "lost"]


def test_a_handler_that_raises_again_when_it_is_dropped_is_logged(agent: MemoryAgent) -> None:
    class Worse(Recorder):
        def on_failed(self, error: ErrorObject) -> None:
            raise RuntimeError(error.message)

    number = call(agent, Worse(raise_on="tokens"))
    agent.answer()
    with capture_logs() as logs:
        agent.step({number: "a"})
    assert [entry["event"] for entry in logs] == [
        "call handler failed",
        "call handler failed twice",
    ]
    agent.confirm_cancels()
    assert agent.link.claimed_slots == 0


def test_results_that_are_none_close_the_link_in_the_end(agent: MemoryAgent) -> None:
    handlers = [Recorder() for _ in range(10)]
    for handler in handlers:
        number = call(agent, handler)
        agent.link.receive(b'{"jsonrpc":"2.0","id":%d,"result":{}}' % number)
    assert agent.closed_reason
    assert [handler.words for handler in handlers] == [["failed"]] * 9 + [["lost"]]


def test_a_dropped_call_hears_nothing_of_the_links_end(agent: MemoryAgent) -> None:
    handler = Recorder(raise_on="tokens")
    number = call(agent, handler)
    agent.answer()
    agent.step({number: "a"})
    agent.die()
    assert handler.words == ["committed", "tokens", "failed"]
