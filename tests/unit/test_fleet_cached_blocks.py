"""What the balancer believes an agent caches: reports in order, gaps, and what a chain matches."""

from __future__ import annotations

from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from balancer.fleet import cached_blocks
from balancer.fleet.agent import SNAPSHOT_PAUSE_S, Agent
from balancer.fleet.cached_blocks import CachedBlocks
from balancer.fleet.prefix_index import PrefixIndex
from balancer.fleet.roster import Roster
from balancer.observability.metrics import Metrics
from balancer.settings import LiveSettings, Settings
from protocol import codec
from protocol.chat import Message
from protocol.generation import GenerationRequest
from protocol.jsonrpc import ErrorObject
from protocol.prefix_chain import HASH_BYTES, PrefixChain, unpacked
from protocol.to_balancer import CacheChanged
from tests.support.memory_agent import MemoryAgent


def block(number: int) -> bytes:
    return number.to_bytes(HASH_BYTES, "big")


def packed(*numbers: int) -> bytes:
    return b"".join(map(block, numbers))


def changed(seq: int, gained: bytes = b"", lost: bytes = b"", **more: bool) -> CacheChanged:
    return CacheChanged(cache_seq=seq, gained=gained, lost=lost, **more)


def of_one_agent() -> CachedBlocks:
    return CachedBlocks(PrefixIndex(), "one")


operations = st.tuples(
    st.sampled_from(["begin", "end", "gain", "lose", "start over"]),
    st.lists(st.integers(0, 5), max_size=4).map(lambda numbers: packed(*numbers)),
)

# --- the table ---


def test_blocks_are_gained_and_lost_in_order() -> None:
    held = of_one_agent()
    held.take(changed(1, packed(1, 2, 3)))
    held.take(changed(2, packed(4), lost=packed(3, 2)))
    assert len(held) == 2
    assert held.matched_blocks(packed(1, 2)) == 1
    assert held.matched_blocks(packed(4)) == 1
    assert held.is_known


@pytest.mark.parametrize("seq", [1, 2])
def test_a_report_that_comes_again_or_was_overtaken_changes_nothing(seq: int) -> None:
    held = of_one_agent()
    held.take(changed(1, packed(1)))
    held.take(changed(2, packed(2)))
    held.take(changed(seq, packed(9), lost=packed(1)))
    held.take(changed(seq, starts_over=True))
    assert len(held) == 2
    assert held.is_known


def test_a_missed_report_makes_everything_unknown_until_one_starts_over() -> None:
    held = of_one_agent()
    held.take(changed(1, packed(1)))
    held.take(changed(3, packed(3)))
    assert (len(held), held.is_known) == (0, False)
    held.take(changed(4, packed(4)))
    assert (len(held), held.is_known) == (0, False)
    held.take(changed(5, packed(1, 3), starts_over=True))
    held.take(changed(6, packed(4)))
    assert (len(held), held.is_known) == (3, True)


def test_two_reports_in_the_wrong_order_are_a_gap() -> None:
    held = of_one_agent()
    held.take(changed(2, packed(2)))
    held.take(changed(1, packed(1)))
    assert (len(held), held.is_known) == (0, False)


def test_a_status_tells_of_a_report_that_did_not_come() -> None:
    held = of_one_agent()
    held.take(changed(1, packed(1)))
    held.compare(1)
    held.compare(0)
    assert held.is_known
    held.compare(2)
    assert (len(held), held.is_known) == (0, False)


def test_a_report_missed_while_it_starts_over_is_a_gap_too() -> None:
    held = of_one_agent()
    held.take(changed(7, packed(1), starts_over=True))
    held.take(changed(9, packed(3)))
    assert (len(held), held.is_known) == (0, False)


def test_more_blocks_than_the_bound_are_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cached_blocks, "MAX_CACHED_BLOCKS", 2)
    held = of_one_agent()
    held.take(changed(1, packed(1, 2, 3)))
    held.take(changed(2, packed(4)))
    assert len(held) == 2
    held.take(changed(3, packed(5), lost=packed(1)))
    assert held.matched_blocks(packed(5)) == 1


def test_blocks_of_a_running_call_count_until_it_ends_and_longer_if_they_are_reported() -> None:
    held = of_one_agent()
    held.expect(packed(1, 2, 3))
    held.expect(packed(1, 2))
    held.take(changed(1, packed(1)))
    assert held.matched_blocks(packed(1, 2, 3)) == 3
    held.expect_no_more(packed(1, 2, 3), held=0)
    assert held.matched_blocks(packed(1, 2, 3)) == 2
    held.expect_no_more(packed(1, 2), held=0)
    assert held.matched_blocks(packed(1, 2, 3)) == 1
    held.take(changed(2, lost=packed(1)))
    assert held.matched_blocks(packed(1, 2, 3)) == 0


@pytest.mark.parametrize("count", range(6))
def test_what_is_held_already_is_not_expected_once_more(count: int) -> None:
    held = of_one_agent()
    held.take(changed(1, packed(*range(count))))
    assert held.expect(packed(*range(5))) == count
    assert held.matched_blocks(packed(*range(5))) == 5
    held.expect_no_more(packed(*range(5)), held=count)
    assert held.matched_blocks(packed(*range(5))) == count


@given(st.lists(operations, max_size=30))
def test_the_index_has_what_is_held_or_will_be_and_nothing_else(
    done: list[tuple[str, bytes]],
) -> None:
    index = PrefixIndex()
    held, other = CachedBlocks(index, "one"), CachedBlocks(index, "other")
    other.take(changed(1, packed(1, 2)))
    reported: set[bytes] = set()
    running: list[tuple[bytes, int]] = []
    for seq, (what, blocks) in enumerate(done, start=1):
        if what == "begin":
            running.append((blocks, held.expect(blocks)))
        elif what == "end" and running:
            chain, had = running.pop(0)
            held.expect_no_more(chain, held=had)
        if what == "gain":
            held.take(changed(seq, blocks))
            reported |= set(unpacked(blocks))
        elif what == "start over":
            held.take(changed(seq, blocks, starts_over=True))
            reported = set(unpacked(blocks))
        else:
            held.take(changed(seq, lost=blocks if what == "lose" else b""))
            reported -= set(unpacked(blocks)) if what == "lose" else set()
    counts = reported | {one for chain, had in running for one in list(unpacked(chain))[had:]}
    for number in range(6):
        assert held.matched_blocks(packed(number)) == (block(number) in counts)
        assert other.matched_blocks(packed(number)) == (number in (1, 2))
    assert len(index) == len(counts | {block(1), block(2)})


def test_an_agent_that_is_gone_leaves_nothing_behind_though_its_calls_end_later() -> None:
    index = PrefixIndex()
    gone = CachedBlocks(index, "gone")
    gone.take(changed(1, packed(1, 2)))
    gone.expect(packed(1, 3))
    gone.leave()
    assert len(index) == 0
    newcomer = CachedBlocks(index, "newcomer")
    newcomer.take(changed(1, packed(1, 3)))
    gone.expect_no_more(packed(1, 3), held=1)
    assert index.matched_blocks(packed(1, 3)) == {"newcomer": 2}
    assert gone.matched_blocks(packed(1, 3)) == 0


# --- the fleet ---


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def roster(clock: Clock) -> Roster:
    return Roster(settings=LiveSettings(Settings()), metrics=Metrics(), now=clock)


def only(roster: Roster) -> Agent:
    (agent,) = roster.agents()
    return agent


def test_an_agent_with_an_empty_cache_is_not_asked(roster: Roster) -> None:
    agent = MemoryAgent(roster).register()
    agent.say(changed(1, packed(1, 2)))
    agent.heartbeat(agent.status(cache_seq=1))
    assert only(roster).matched_blocks(packed(1, 2, 3)) == 2
    assert agent.snapshots_asked == []


def test_an_agent_that_comes_with_a_cache_is_asked_behind_the_welcome(roster: Roster) -> None:
    agent = MemoryAgent(roster)
    agent.cache_seq = 8
    agent.register()
    assert [type(message).__name__ for message in agent.received] == ["Response", "Request"]
    agent.say(changed(9, packed(1), starts_over=True), changed(10, packed(2)))
    agent.cache_seq = 10
    agent.answer_snapshot()
    assert agent.snapshots_asked == []
    assert only(roster).matched_blocks(packed(1, 2)) == 2


@pytest.mark.parametrize("by", ["report", "heartbeat"])
def test_a_gap_is_answered_with_one_question(roster: Roster, by: str, clock: Clock) -> None:
    agent = MemoryAgent(roster).register()
    agent.say(changed(1, packed(1)))
    clock.now_s += 1
    if by == "report":
        agent.say(changed(3, packed(3)), changed(4, packed(4)))
    else:
        agent.heartbeat(agent.status(cache_seq=4))
    assert len(agent.snapshots_asked) == 1
    assert only(roster).matched_blocks(packed(1)) == 0
    agent.heartbeat(agent.status(cache_seq=4))
    assert len(agent.snapshots_asked) == 1
    agent.say(changed(5, packed(1, 3), starts_over=True))
    agent.answer_snapshot(agent.status(cache_seq=5))
    assert only(roster).matched_blocks(packed(1, 3)) == 2


def test_a_snapshot_is_a_status_like_any_other(roster: Roster) -> None:
    agent = MemoryAgent(roster, slots=4).register()
    agent.say(changed(2))
    agent.answer_snapshot(agent.status(slots_total=9, cache_seq=2))
    assert only(roster).slots_total == 9


def test_a_snapshot_that_was_overtaken_changes_nothing(roster: Roster) -> None:
    agent = MemoryAgent(roster, slots=4).register()
    old = agent.status(slots_total=9)
    agent.heartbeat()
    agent.say(changed(2))
    agent.answer_snapshot(old)
    assert only(roster).slots_total == 4


def test_an_agent_whose_reports_always_have_gaps_is_not_asked_all_the_time(
    roster: Roster, clock: Clock
) -> None:
    agent = MemoryAgent(roster).register()
    for seq in count(2, 2):
        agent.say(changed(seq, packed(seq)))
        if agent.snapshots_asked:
            agent.answer_snapshot()
        if seq == 20:
            break
    assert only(roster).cached.is_known is False
    assert agent.snapshots_asked == []
    clock.now_s += SNAPSHOT_PAUSE_S
    agent.heartbeat(agent.status(cache_seq=20))
    assert len(agent.snapshots_asked) == 1


@pytest.mark.parametrize("answer", ["error", "nonsense"])
def test_a_snapshot_that_failed_is_asked_for_again_later(
    roster: Roster, clock: Clock, answer: str
) -> None:
    agent = MemoryAgent(roster).register()
    agent.say(changed(2))
    asked = agent.snapshots_asked.pop()
    if answer == "error":
        agent.link.receive(codec.encode_error(asked, ErrorObject(code=-32603, message="no")))
    else:
        agent.link.receive(codec.encode_result(asked, changed(1)))
    clock.now_s += SNAPSHOT_PAUSE_S
    agent.heartbeat(agent.status(cache_seq=2))
    assert len(agent.snapshots_asked) == 1
    assert agent.closed_reason is None


def test_a_snapshot_that_nobody_answers_is_not_asked_for_twice(
    roster: Roster, clock: Clock
) -> None:
    agent = MemoryAgent(roster).register()
    agent.say(changed(2))
    clock.now_s += SNAPSHOT_PAUSE_S
    agent.heartbeat(agent.status(cache_seq=2))
    assert len(agent.snapshots_asked) == 1


def test_a_lost_link_takes_what_was_known_with_it(roster: Roster) -> None:
    first = MemoryAgent(roster).register()
    first.say(changed(1, packed(1)))
    first.die()
    again = MemoryAgent(roster).register()
    assert only(roster).matched_blocks(packed(1)) == 0
    again.say(changed(1, packed(1)))
    assert only(roster).matched_blocks(packed(1)) == 1


def test_half_a_block_is_a_message_that_cannot_be_used(roster: Roster) -> None:
    agent = MemoryAgent(roster).register()
    agent.say(changed(1, packed(1)))
    frame = (
        b'{"jsonrpc":"2.0","method":"cache_changed","params":{"cache_seq":2,"gained":"AAAAAAAA"}}'
    )
    agent.link.receive(frame)
    assert only(roster).matched_blocks(packed(1)) == 1


def test_an_agent_with_the_conversation_so_far_matches_all_of_it(roster: Roster) -> None:
    so_far = (Message(role="user", content="a" * 700), Message(role="assistant", content="b"))
    turns = (*so_far, Message(role="user", content="c"))
    cached, asked = (
        PrefixChain.of(GenerationRequest(messages=messages), cache_scope="")
        for messages in (so_far, turns)
    )
    MemoryAgent(roster).register().say(changed(1, cached.packed))
    assert only(roster).matched_blocks(asked.packed) == len(cached.blocks) == 3
    assert only(roster).matched_blocks(b"") == 0
