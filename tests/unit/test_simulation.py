"""The simulator keeps its promises, and the balancer's estimates theirs in virtual time."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from balancer.policy.routing.table import POLICIES
from balancer.settings import PolicyName
from tests.benchmarks.simulate.__main__ import main
from tests.benchmarks.simulate.clock import Clock
from tests.benchmarks.simulate.engine import Call, SimulatedAgent
from tests.benchmarks.simulate.estimate import starts
from tests.benchmarks.simulate.figures import Services
from tests.benchmarks.simulate.loads import (
    LOADS,
    Crowd,
    Recorded,
    UnusableRecord,
    blocks,
    failures,
    recorded,
    replayed,
)
from tests.benchmarks.simulate.policies import Scene, agents_needed
from tests.benchmarks.simulate.site import Job, Site, Size
from tests.benchmarks.simulate.speed import Speed, load, save

# many examples of what other tests cover line by line: counting lines would double its time
pytestmark = pytest.mark.uncounted

SPEED = Speed(block_ms=100.0, token_ms=10.0, slot_ms=5.0, prefill_share=0.5)


ROUTE = '{"tenant": "a", "arrived_s": 1.0, "completion_tokens": 3, "chain": "00ff"}'


def ended_s(*asked: tuple[float, int, int]) -> list[float]:
    """When calls end that begin at a time with so many blocks and tokens, on one agent."""
    clock, ends = Clock(), dict[int, float]()
    agent = SimulatedAgent("one", 8, SPEED, clock, cache_blocks=100)

    def note(call: Call) -> None:
        ends[call.key] = round(clock.now_s, 6)

    for key, (at_s, count, tokens) in enumerate(asked):
        call = Call(key, blocks(f"prompt {key}", count), tokens, lambda _call: None, note)
        clock.at(at_s, agent.begin, call)
    clock.run()
    return [ends[key] for key in range(len(asked))]


def test_a_call_alone_takes_its_blocks_and_its_tokens() -> None:
    assert ended_s((0.0, 2, 11)) == [0.3]


def test_calls_that_generate_together_slow_each_other_down() -> None:
    # the first's prompt until 0.1 s; then half of the time is the second's prompt, until 0.3 s, and
    # half is ten tokens of the first; then ten steps of 15 ms for both
    first, second = ended_s((0.0, 1, 1 + 20), (0.0, 1, 1 + 10))
    assert (first, second) == (0.45, 0.45)


def test_a_prefix_that_is_cached_is_not_computed_again_and_the_longest_unused_is_forgotten() -> (
    None
):
    clock = Clock()
    agent = SimulatedAgent("one", 8, SPEED, clock, cache_blocks=3)
    chain = blocks("long", 4)
    agent.begin(Call(0, chain, 1, lambda _call: None, lambda _call: None))
    assert agent.matched_blocks(chain) == 3
    assert agent.matched_blocks(blocks("other", 4)) == 0


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", LOADS)
def test_every_request_is_answered_once_whoever_dies_meanwhile(
    policy: PolicyName, name: str
) -> None:
    site = Site(Size(agents=3, slots=2), SPEED, policy=policy)
    LOADS[name](site, Crowd(requests=200, tenants=5, rate=5.0))
    failures(site, every_s=5.0)
    figures = site.run()
    assert len(figures.ttft_s) == 200
    assert figures.moves > 0
    assert len(site.room) == 0
    assert all(agent.slots_free in (0, 2) and not agent.calls for agent in site.agents)


def test_the_same_seed_gives_the_same_times() -> None:
    runs = []
    for _ in range(2):
        site = Site(Size(agents=3, slots=2), SPEED, policy="power_of_two")
        LOADS["conversations"](site, Crowd(requests=200, tenants=5, rate=5.0))
        runs.append(site.run().ttft_s)
    assert runs[0] == runs[1]


def test_with_a_shared_prefix_who_knows_of_it_sends_requests_where_it_is() -> None:
    hits = {}
    for policy in ("least_busy", "prefix_aware"):
        site = Site(Size(agents=4, slots=4, cache_blocks=60), SPEED, policy=policy)
        LOADS["conversations"](site, Crowd(requests=400, tenants=5, rate=5.0))
        hits[policy] = site.run().hit_rate
    assert hits["prefix_aware"] > hits["least_busy"]


def test_what_a_balancer_recorded_is_played_again_on_another_policy(tmp_path: Path) -> None:
    record = tmp_path / "routes.jsonl"
    routes = [
        {
            "tenant": "a",
            "arrived_s": 1000.0 + number,
            "completion_tokens": 11,
            "chain": blocks(str(number), 2).hex(),
        }
        for number in range(3)
    ]
    record.write_text("".join(json.dumps(route) + "\n" for route in routes))
    site = Site(Size(), SPEED, policy="round_robin")
    replayed(site, recorded(record))
    figures = site.run()
    assert figures.ttft_s == pytest.approx([0.2, 0.2, 0.2])
    assert figures.virtual_s == pytest.approx(2.3)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        (ROUTE + "\n" + ROUTE[:30], "line 2: "),
        ("garbage\n", "line 1: "),
        (ROUTE.replace("00ff", "0x"), "line 1: "),
        ("{}\n", "line 1: "),
    ],
)
def test_what_is_no_record_is_refused_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    record = tmp_path / "routes.jsonl"
    record.write_text(text)
    with pytest.raises(UnusableRecord, match=told):
        recorded(record)


def test_a_record_that_is_not_there_ends_the_command_with_2_and_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        main(["policies", "--replay", str(tmp_path / "nothing")])
    assert caught.value.code == 2
    told = capsys.readouterr().err
    assert "nothing cannot be read: No such file" in told
    assert told.count("\n") == 1


def test_the_first_of_a_record_is_who_arrived_first_not_who_ended_first() -> None:
    routes = [Recorded("a", when_s, 1, blocks(str(when_s), 1).hex()) for when_s in (5.0, 2.0)]
    site = Site(Size(), SPEED, policy="round_robin")
    replayed(site, routes)
    assert site.run().virtual_s == pytest.approx(3.1)


def test_as_few_agents_are_found_as_are_enough() -> None:
    scene = Scene(Size(slots=2), SPEED, Crowd(requests=300, tenants=5, rate=4.0))
    tried = list(agents_needed("least_busy", scene, "strangers", ttft_p99_s=3.0))
    by_agents = dict(tried)
    best = tried[-1][0]
    assert sorted(by_agents[best].ttft_s)[int(0.99 * 299)] <= 3.0
    assert sorted(by_agents[best - 1].ttft_s)[int(0.99 * 299)] > 3.0


@pytest.mark.parametrize(("agents", "slots"), [(1, 1), (1, 8), (4, 8)])
def test_500_requests_that_wait_start_about_when_it_was_said(agents: int, slots: int) -> None:
    found = starts(Size(agents=agents, slots=slots), SPEED, waiting=500)
    assert len(found.listed) == 500
    assert found.listed_error() < 0.25


def test_services_are_compared_among_those_who_waited_all_the_time() -> None:
    services = Services()
    services.look(["a", "b", "left"], 0.0)
    services.begins("a", 0.0)
    services.begins("b", 10.0)
    services.begins("left", 0.0)
    services.waits_no_more("left")
    services.ends("b", 10.0, 15.0)
    services.look([], 20.0)
    assert services.most_apart_s == 15.0


def test_numbers_of_a_calibration_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "speed.json"
    assert load(path) == Speed()
    save(SPEED, path)
    assert load(path) == SPEED


def test_a_job_says_its_length_class_and_its_place() -> None:
    job = Job(7, "a", blocks("x", 2), 10, 0.0, max_tokens=100)
    assert (job.length, job.body_bytes, job.rank) == (128, 1024, (1, 7))
