"""Several choices of one request: generations that start, fail, wait and end together."""

from __future__ import annotations

import asyncio

import pytest

from balancer.dispatch.choices import Answers, Flows, generate_choices
from balancer.dispatch.journal import MOST_REQUESTS, MOST_ROUTES, Journal
from balancer.dispatch.sink import Outcome
from balancer.errors import (
    GenerationTimeout,
    QueueFull,
    QueueTimeout,
    RequestCancelled,
    UpstreamFailed,
)
from balancer.policy.choices import seed_of_choice
from balancer.settings import Settings
from protocol.generation import GenerationRequest
from protocol.refusals import RefusalCode
from tests.support.generations import ANYONE, Balancer, RecordingSink, finish_all
from tests.support.memory_agent import MemoryAgent
from tests.support.virtual_time import in_virtual_time, settle

LONG = "a long prompt that is worth keeping together. " * 100


class ChoiceRecording(RecordingSink):
    """Notes its index when it is over and others go on."""

    def __init__(self, index: int, ended: list[int]) -> None:
        super().__init__()
        self._index = index
        self._ended = ended

    def end(self, outcome: Outcome) -> None:
        assert outcome.finish_reason == "stop"
        self._ended.append(self._index)


class Asked:
    """One request for several choices, and its client's view of it."""

    def __init__(
        self,
        balancer: Balancer,
        count: int,
        *,
        prompt: str = "hi",
        prompts: tuple[str, ...] = (),
        request_id: str = "req_n",
        timeout_s: float | None = None,
        body_bytes: int = 100,
    ) -> None:
        self.ended: list[int] = []
        self.sinks = [ChoiceRecording(index, self.ended) for index in range(count)]
        self.task = asyncio.ensure_future(
            generate_choices(
                balancer.dispatcher,
                GenerationRequest(model="demo", prompt=prompt, seed=5),
                ANYONE,
                self.sinks,
                prompts=prompts,
                request_id=request_id,
                timeout_s=timeout_s,
                body_bytes=body_bytes,
            )
        )

    @property
    def answers(self) -> Answers:
        return self.task.result()

    @property
    def texts(self) -> list[str]:
        return [sink.text for sink in self.sinks]


async def asked(balancer: Balancer, count: int, **more: object) -> Asked:
    request = Asked(balancer, count, **more)  # type: ignore[arg-type]  # of any test
    await settle()
    return request


def seeds_of(agent: MemoryAgent) -> list[int]:
    return [call.seed for call in agent.calls.values()]


@in_virtual_time
async def test_choices_are_calls_in_order_that_differ_by_their_seed_alone() -> None:
    balancer = Balancer()
    agent = balancer.agent()
    await asked(balancer, 3, prompt=LONG)
    assert seeds_of(agent) == [seed_of_choice(5, choice) for choice in range(3)]
    assert len({(call.prompt, call.prefix_chain) for call in agent.calls.values()}) == 1
    await finish_all(agent)


@in_virtual_time
async def test_choices_get_what_is_theirs_and_end_one_by_one() -> None:
    balancer = Balancer()
    agent = balancer.agent()
    request = await asked(balancer, 3)
    first, second, third = agent.answer()
    agent.step({third: "c", first: "a"})
    agent.step({first: "A", second: "b"})
    for call in (second, third, first):
        agent.finish(call)
        await settle()
    assert request.texts == ["aA", "b", "c"]
    assert request.ended == [1, 2]
    assert request.answers.last == 0
    assert [outcome.usage.completion_tokens for outcome in request.answers.outcomes] == [2, 1, 1]


@in_virtual_time
async def test_the_whole_counts_the_prompt_once_and_every_completion() -> None:
    balancer = Balancer()
    agent = balancer.agent(slots=2)
    request = await asked(balancer, 3)
    await asyncio.sleep(1.0)
    for call in agent.answer():
        agent.tokens(call, [1, 2], "ab")
    await asyncio.sleep(1.0)
    for call in tuple(agent.running):
        agent.finish(call)
    await asyncio.sleep(1.0)
    await finish_all(agent)
    whole = request.answers.whole
    usage = whole.usage
    assert (usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens) == (7, 4, 2)
    assert (whole.queue_ms, whole.ttft_ms, whole.total_ms) == (0.0, 1000.0, 3000.0)
    assert (whole.agent, whole.attempts) == ("one", 1)
    assert whole.timings.decode_ms == 3000.0  # four tokens in three seconds, not in the longest one


@in_virtual_time
async def test_several_prompts_have_their_choices_one_after_the_other() -> None:
    balancer = Balancer()
    agent = balancer.agent(slots=6)
    prompts = (LONG, "another " + LONG)
    request = await asked(balancer, 6, prompts=prompts)
    calls = list(agent.calls.values())
    chains = [call.prefix_chain for call in calls]
    assert [call.prompt for call in calls] == [prompts[0]] * 3 + [prompts[1]] * 3
    assert seeds_of(agent) == [seed_of_choice(5, choice) for choice in range(6)]
    assert chains == [chains[0]] * 3 + [chains[3]] * 3
    assert chains[0] != chains[3]
    await finish_all(agent)
    usage = request.answers.whole.usage
    assert (usage.prompt_tokens, usage.cached_tokens) == (14, 4)
    assert usage.completion_tokens == sum(
        outcome.usage.completion_tokens for outcome in request.answers.outcomes
    )


@in_virtual_time
async def test_one_choice_is_the_generation_that_it_always_was() -> None:
    balancer = Balancer()
    agent = balancer.agent()
    request = await asked(balancer, 1)
    assert seeds_of(agent) == [5]
    await finish_all(agent)
    assert request.ended == []
    assert request.answers.whole == request.answers.outcomes[0]


@in_virtual_time
async def test_choices_of_a_long_prompt_stay_together_while_there_are_slots() -> None:
    balancer = Balancer()
    agents = [balancer.agent(name, slots=4) for name in ("one", "two")]
    await asked(balancer, 4, prompt=10 * LONG)
    assert sorted(len(agent.calls) for agent in agents) == [0, 4]
    await asked(balancer, 4, prompt="another " + 10 * LONG)
    assert [len(agent.calls) for agent in agents] == [4, 4]


@in_virtual_time
async def test_choices_of_a_short_prompt_are_spread_as_requests_are() -> None:
    balancer = Balancer()
    agents = [balancer.agent(name, slots=4) for name in ("one", "two")]
    await asked(balancer, 4)
    assert [len(agent.calls) for agent in agents] == [2, 2]


@in_virtual_time
async def test_one_choice_that_fails_ends_the_request_and_cancels_the_others() -> None:
    balancer = Balancer()
    agent = balancer.agent()
    request = await asked(balancer, 3)
    first, second, third = agent.answer()
    agent.finish(first)
    agent.fail(second, RefusalCode.ENGINE_FAILED, "broken")
    await settle()
    assert isinstance(request.task.exception(), UpstreamFailed)
    assert agent.cancelled == [third]
    agent.confirm_cancels()
    assert balancer.dispatcher.in_flight == 0
    assert not any(one.slots_used for one in balancer.roster.agents())


@in_virtual_time
async def test_a_client_that_leaves_takes_all_choices_along() -> None:
    balancer = Balancer()
    agent = balancer.agent(slots=2)
    request = await asked(balancer, 4)
    running = agent.answer()
    assert balancer.dispatcher.waiting == 2
    request.task.cancel()
    await settle()
    assert request.task.cancelled()
    assert sorted(agent.cancelled) == running
    assert (balancer.dispatcher.waiting, balancer.dispatcher.in_flight) == (0, 0)


@in_virtual_time
async def test_the_deadline_of_a_request_is_that_of_each_choice() -> None:
    balancer = Balancer()
    agent = balancer.agent(slots=1)
    request = await asked(balancer, 3, timeout_s=10.0)
    running = agent.answer()
    await asyncio.sleep(11.0)
    assert isinstance(request.task.exception(), GenerationTimeout)
    assert agent.cancelled == running
    assert balancer.dispatcher.in_flight == 0


@in_virtual_time
async def test_each_choice_goes_on_elsewhere_by_itself() -> None:
    balancer = Balancer()
    one, two = balancer.agent("one", slots=1), balancer.agent("two", slots=2)
    request = await asked(balancer, 2)
    (stays,) = two.answer()
    (dies,) = one.answer()
    one.step({dies: "a"})
    two.step({stays: "b"})
    one.die()
    await settle()
    (again,) = two.answer()
    resume = two.calls[again].resume
    assert resume is not None
    assert resume.token_ids == (1,)
    two.step({again: "A", stays: "B"})
    await finish_all(two)
    assert sorted(request.texts) == ["aA", "bB"]
    assert request.answers.whole.attempts == 2


@in_virtual_time
async def test_choices_that_wait_count_one_by_one_and_their_body_once() -> None:
    balancer = Balancer()
    agent = balancer.agent(slots=1)
    request = await asked(balancer, 4, body_bytes=1000)
    assert balancer.dispatcher.waiting == 3
    assert balancer.sample("paddler_requests_waiting_bytes") == 750
    await finish_all(agent)
    assert len(request.answers.outcomes) == 4


@pytest.mark.parametrize("settings", [Settings(max_waiting=2), Settings(max_waiting_of_tenant=2)])
@in_virtual_time
async def test_more_choices_than_may_wait_are_refused_and_leave_nothing_behind(
    settings: Settings,
) -> None:
    balancer = Balancer(settings=settings)
    agent = balancer.agent(slots=1)
    request = await asked(balancer, 4)
    assert isinstance(request.task.exception(), QueueFull)
    assert not agent.calls
    assert (balancer.dispatcher.waiting, balancer.dispatcher.in_flight) == (0, 0)
    assert not any(one.slots_used for one in balancer.roster.agents())


@in_virtual_time
async def test_choices_that_find_free_slots_need_no_room_to_wait() -> None:
    balancer = Balancer(settings=Settings(queue_timeout_s=0.0))
    agent = balancer.agent(slots=4)
    request = await asked(balancer, 4)
    too_many = await asked(balancer, 2, request_id="req_m")
    assert isinstance(too_many.task.exception(), QueueFull)
    await finish_all(agent)
    assert len(request.answers.outcomes) == 4


@in_virtual_time
async def test_choices_that_wait_for_each_other_do_not_wait_too_long() -> None:
    balancer = Balancer(settings=Settings(queue_timeout_s=10.0))
    agent = balancer.agent(slots=1)
    request = await asked(balancer, 5)
    for _ in range(5):
        (call,) = agent.answer()
        agent.step({call: "a"})
        await asyncio.sleep(8.0)
        agent.finish(call)
        await settle()
    assert len(request.answers.outcomes) == 5


@in_virtual_time
async def test_choices_of_which_none_gets_on_end_after_the_time_to_wait() -> None:
    balancer = Balancer(settings=Settings(queue_timeout_s=10.0))
    agent = balancer.agent(slots=1)
    request = await asked(balancer, 2)
    await asyncio.sleep(8.0)
    agent.answer()
    await asyncio.sleep(9.5)
    assert not request.task.done()
    await asyncio.sleep(1.0)
    assert isinstance(request.task.exception(), QueueTimeout)


@in_virtual_time
async def test_operators_see_every_choice_and_end_them_with_one_word() -> None:
    balancer = Balancer()
    agent = balancer.agent(slots=2)
    request = await asked(balancer, 3)
    agent.answer()
    rows = balancer.dispatcher.requests()
    assert [(row.id, row.choice, row.state) for row in rows] == [
        ("req_n", 0, "running"),
        ("req_n", 1, "running"),
        ("req_n", 2, "waiting"),
    ]
    assert [route.choice for route in balancer.dispatcher.routes("req_n")] == [0, 1, 2]
    assert balancer.dispatcher.cancel("req_n")
    await settle()
    assert isinstance(request.task.exception(), RequestCancelled)
    assert not balancer.dispatcher.cancel("req_n")
    assert len(agent.cancelled) == 2


def test_routes_are_bounded_by_requests_and_by_choices() -> None:
    journal = Journal()
    for number in range(MOST_REQUESTS + 1):
        journal.open(f"r{number}", "t", now=0.0)
    assert (journal.routes("r0"), len(journal.routes("r1"))) == ([], 1)
    journal.open("r1", "t", now=0.0)
    assert len(journal.routes("r1")) == 1
    for number in range(MOST_ROUTES // 128 + 1):
        for choice in range(128):
            journal.open(f"n{number}", "t", now=0.0, choice=choice)
    assert (journal.routes("r1"), journal.routes("n0")) == ([], [])
    assert len(journal.routes("n1")) == 128


def test_what_is_over_is_remembered_by_its_end_and_bounded() -> None:
    journal = Journal()
    early, late, running = (journal.open(name, "t", now=0.0) for name in ("r1", "r2", "r3"))
    for route in (late, early):
        journal.close(route, bytes, completion_tokens=1)
    assert journal.finished(9) == [early, late]
    assert journal.finished(1) == [early]
    assert running not in journal.finished(9)
    journal.open("r1", "t", now=0.0)
    for number in range(MOST_REQUESTS):
        journal.open(f"n{number}", "t", now=0.0)
    assert journal.finished(9) == []


class OneFlow:
    """A generation's handle that writes down what it is told."""

    def __init__(self, *, attempts: int, queue_ms: float) -> None:
        self.attempts = attempts
        self.queue_ms = queue_ms
        self.heard: list[str] = []

    def pause(self) -> None:
        self.heard.append("pause")

    def resume(self) -> None:
        self.heard.append("resume")

    def drop(self, reason: str) -> None:
        self.heard.append(reason)


def test_a_slow_client_pauses_all_choices_and_those_that_come_later() -> None:
    flows = Flows()
    assert (flows.attempts, flows.queue_ms) == (0, 0.0)
    early = OneFlow(attempts=1, queue_ms=3.0)
    flows.add(early)
    flows.pause()
    late = OneFlow(attempts=2, queue_ms=9.0)
    flows.add(late)
    flows.resume()
    flows.drop("too slow")
    assert early.heard == late.heard == ["pause", "resume", "too slow"]
    assert (flows.attempts, flows.queue_ms) == (2, 3.0)


def test_choices_are_told_to_pause_and_to_go_on_only_when_that_changes() -> None:
    flows, flow = Flows(), OneFlow(attempts=1, queue_ms=0.0)
    flows.add(flow)
    for _ in range(2):
        flows.resume()
    for _ in range(2):
        flows.pause()
    for _ in range(2):
        flows.resume()
    assert flow.heard == ["pause", "resume"]
