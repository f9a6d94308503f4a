"""What an agent says of its cache: by tokens from the engine, by blocks to the balancer."""

from __future__ import annotations

from collections.abc import Iterable
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from agent import cached_prefixes
from agent.cached_prefixes import MAX_UNHELD_CALLS, CachedPrefixes
from agent.engine.frames import CacheNews
from protocol.chat import Message
from protocol.generation import GenerationRequest
from protocol.prefix_chain import MAX_BLOCKS, PrefixChain, unpacked
from protocol.to_balancer import CacheChanged


def chain_of(*texts: str, scope: str = "") -> PrefixChain:
    messages = tuple(Message(role="user", content=text) for text in texts)
    return PrefixChain.of(GenerationRequest(messages=messages), cache_scope=scope)


def answer(text: str) -> Message:
    return Message(role="assistant", content=text)


class Balancer:
    """Believes what it is told, message by message, and insists on the sequence."""

    def __init__(self) -> None:
        self.blocks: set[bytes] = set()
        self.cache_seq = 0

    def take(self, changes: Iterable[CacheChanged]) -> None:
        for changed in changes:
            assert changed.cache_seq == self.cache_seq + 1
            self.cache_seq = changed.cache_seq
            if changed.starts_over:
                self.blocks.clear()
            gained, lost = list(unpacked(changed.gained)), list(unpacked(changed.lost))
            assert len(gained) <= MAX_BLOCKS
            assert len(lost) <= MAX_BLOCKS
            assert not self.blocks & set(gained), "told twice"
            assert set(lost) <= self.blocks, "lost without being told of"
            self.blocks -= set(lost)
            self.blocks |= set(gained)


def told(cached: CachedPrefixes) -> tuple[list[bytes], list[bytes]]:
    """Gained and lost of the changes there are now."""
    changes = cached.take_changes()
    return (
        [block for changed in changes for block in unpacked(changed.gained)],
        [block for changed in changes for block in unpacked(changed.lost)],
    )


def test_a_whole_prompt_in_the_cache_is_all_of_its_blocks() -> None:
    cached, chain = CachedPrefixes(), chain_of("a" * 2000, "b")
    cached.begin(1, chain, prompt_tokens=500)
    assert cached.take_changes() == []
    cached.take(CacheNews(0, 1, 500))
    assert told(cached) == (chain.blocks, [])
    assert cached.take_changes() == []


def test_a_part_of_a_prompt_is_its_blocks_in_proportion() -> None:
    cached, chain = CachedPrefixes(), chain_of("a" * 5111)
    assert (len(chain.blocks), chain.size_bytes) == (10, 5120)
    cached.begin(1, chain, prompt_tokens=2560)
    cached.take(CacheNews(0, 1, 256 * 3))
    assert told(cached) == (chain.blocks[:3], [])
    cached.take(CacheNews(0, 1, 256 * 4 - 1))
    assert told(cached) == ([], [])
    cached.take(CacheNews(0, 1, 256 * 2))
    assert told(cached) == ([], [chain.blocks[2]])


def test_losing_a_holder_loses_its_blocks_the_last_ones_first() -> None:
    cached, chain = CachedPrefixes(), chain_of("a", "b", "c")
    cached.begin(1, chain, prompt_tokens=30)
    cached.take(CacheNews(0, 1, 30))
    cached.take_changes()
    cached.take(CacheNews(0, 99, 0))
    assert told(cached) == ([], chain.blocks[::-1])


def test_a_block_is_lost_with_its_last_holder_only() -> None:
    cached, one, other = CachedPrefixes(), chain_of("a", "b"), chain_of("a", "c")
    cached.begin(1, one, prompt_tokens=30)
    cached.begin(2, other, prompt_tokens=30)
    cached.take(CacheNews(0, 1, 30))
    cached.take(CacheNews(1, 2, 30))
    cached.take(CacheNews(2, 2, 30))
    assert told(cached) == ([*one.blocks, other.blocks[1]], [])
    cached.take(CacheNews(0, 1, 0))
    assert told(cached) == ([], [one.blocks[1]])
    cached.take(CacheNews(1, 2, 0))
    assert told(cached) == ([], [])
    cached.take(CacheNews(2, 2, 0))
    assert told(cached) == ([], other.blocks[::-1])


def test_a_holder_that_is_given_another_call_holds_nothing_of_the_first() -> None:
    cached, one, other = CachedPrefixes(), chain_of("a", "b"), chain_of("a", "c", "d")
    cached.begin(1, one, prompt_tokens=30)
    cached.begin(2, other, prompt_tokens=30)
    cached.take(CacheNews(0, 1, 30))
    cached.take_changes()
    cached.take(CacheNews(0, 2, 30))
    assert told(cached) == (other.blocks[1:], [one.blocks[1]])


def test_what_is_lost_and_gained_between_two_reports_is_no_news() -> None:
    cached, chain = CachedPrefixes(), chain_of("a", "b")
    cached.begin(1, chain, prompt_tokens=30)
    cached.take(CacheNews(0, 1, 30))
    cached.take(CacheNews(0, 1, 0))
    assert cached.take_changes() == []
    cached.take(CacheNews(0, 1, 30))
    cached.take_changes()
    cached.take(CacheNews(0, 1, 0))
    cached.take(CacheNews(1, 1, 30))
    assert cached.take_changes() == []


def test_an_answer_is_part_of_the_chain_when_its_call_ends() -> None:
    cached, chain = CachedPrefixes(), chain_of("a", "b")
    cached.begin(1, chain, prompt_tokens=30)
    cached.take(CacheNews(0, 1, 39))
    before = list(chain.blocks)
    assert told(cached) == (before, [])
    cached.end(1, answer("x" * 900), completion_tokens=10)
    assert len(chain.blocks) == 4
    assert told(cached) == (chain.blocks[2:], [])


def test_the_news_of_an_ended_call_may_come_after_its_end() -> None:
    cached, chain = CachedPrefixes(), chain_of("a", "b")
    cached.begin(1, chain, prompt_tokens=30)
    cached.end(1, answer("x"), completion_tokens=10)
    cached.take(CacheNews(0, 1, 39))
    assert told(cached) == (chain.blocks, [])
    cached.take(CacheNews(0, 1, 0))
    cached.take(CacheNews(7, 1, 35))  # in host memory now
    assert told(cached) == ([], [chain.blocks[2]])


def test_an_answer_that_nobody_knows_is_not_part_of_the_chain() -> None:
    cached, chain = CachedPrefixes(), chain_of("a")
    cached.begin(1, chain, prompt_tokens=30)
    cached.take(CacheNews(0, 1, 39))
    cached.end(1, None, completion_tokens=10)
    assert told(cached) == (chain.blocks, [])
    assert len(chain.blocks) == 1


def test_ends_that_an_earlier_call_showed_are_exact_in_the_next_one() -> None:
    """One token a character in the first message, one for ten of the answer's: in proportion the
    first message would seem to end far too early."""
    cached = CachedPrefixes()
    cached.begin(1, chain_of("a" * 100), prompt_tokens=105)
    cached.end(1, answer("b" * 400), completion_tokens=41)
    both = PrefixChain.of(
        GenerationRequest(
            messages=(
                Message(role="user", content="a" * 100),
                answer("b" * 400),
                Message(role="user", content="c" * 100),
            )
        ),
        cache_scope="",
    )
    cached.begin(2, both, prompt_tokens=250)
    for tokens, blocks in ((104, 0), (105, 1), (144, 1), (145, 2), (249, 2), (250, 3)):
        cached.take(CacheNews(0, 2, tokens))
        assert _held(cached) == both.blocks[:blocks], tokens


def _held(cached: CachedPrefixes) -> list[bytes]:
    """All that is held, asked as a balancer would."""
    cached.start_over()
    return told(cached)[0]


def test_an_end_that_cannot_be_is_not_believed() -> None:
    """The same text with fewer tokens than an earlier call showed, as after another template."""
    cached = CachedPrefixes()
    cached.begin(1, chain_of("a"), prompt_tokens=1000)
    chain = chain_of("a", "b")
    cached.begin(2, chain, prompt_tokens=20)
    cached.take(CacheNews(0, 2, 20))
    assert told(cached) == (chain.blocks, [])


def test_a_prompt_as_text_goes_on_with_its_answer() -> None:
    cached = CachedPrefixes()
    chain = PrefixChain.of(GenerationRequest(prompt="a" * 700), cache_scope="")
    cached.begin(1, chain, prompt_tokens=70)
    cached.take(CacheNews(0, 1, 169))
    cached.end(1, answer("b" * 1000), completion_tokens=101)
    expected = PrefixChain.of(GenerationRequest(prompt="a" * 700 + "b" * 1000), cache_scope="")
    assert told(cached) == (expected.blocks, [])


def test_calls_that_nobody_knows_and_ends_told_twice_are_ignored() -> None:
    cached = CachedPrefixes()
    cached.end(5, answer("x"), completion_tokens=3)
    cached.take(CacheNews(0, 5, 10))
    cached.take(CacheNews(0, 5, 0))
    assert cached.take_changes() == []


def test_news_of_an_unknown_call_take_what_the_holder_had() -> None:
    cached, chain = CachedPrefixes(), chain_of("a")
    cached.begin(1, chain, prompt_tokens=3)
    cached.take(CacheNews(0, 1, 3))
    cached.take_changes()
    cached.take(CacheNews(0, 404, 10))
    assert told(cached) == ([], chain.blocks)


def test_an_engine_that_is_gone_held_nothing() -> None:
    cached, chain = CachedPrefixes(), chain_of("a")
    cached.forget_all()
    assert cached.take_changes() == []
    cached.begin(1, chain, prompt_tokens=3)
    cached.take(CacheNews(0, 1, 3))
    cached.take_changes()
    cached.forget_all()
    assert cached.take_changes() == [CacheChanged(cache_seq=2, starts_over=True)]
    cached.take(CacheNews(0, 1, 3))
    assert cached.take_changes() == []


def test_many_blocks_are_told_in_several_messages() -> None:
    cached, balancer = CachedPrefixes(), Balancer()
    chains = [chain_of(*[f"{call} {number}" for number in range(3000)]) for call in range(3)]
    for call, chain in enumerate(chains):
        cached.begin(call, chain, prompt_tokens=9000)
        cached.take(CacheNews(call, call, 9000))
    changes = cached.take_changes()
    assert [changed.cache_seq for changed in changes] == [1, 2, 3]
    balancer.take(changes)
    assert balancer.blocks == {block for chain in chains for block in chain.blocks}
    cached.start_over()
    again = cached.take_changes()
    assert [changed.starts_over for changed in again] == [True, False, False]
    balancer.take(again)
    assert len(balancer.blocks) == 9000
    for holder in range(3):
        cached.take(CacheNews(holder, holder, 0))
    balancer.take(cached.take_changes())
    assert balancer.blocks == set()


def test_more_blocks_than_the_bound_are_not_told_until_there_is_room() -> None:
    cached, chain, other = CachedPrefixes(), chain_of("a", "b", "c"), chain_of("d", "e", "f")
    with patch.object(cached_prefixes, "MAX_CACHED_BLOCKS", 4):
        cached.begin(1, chain, prompt_tokens=30)
        cached.begin(2, other, prompt_tokens=30)
        cached.take(CacheNews(0, 1, 30))
        cached.take(CacheNews(1, 2, 30))
        assert told(cached) == ([*chain.blocks, other.blocks[0]], [])
        cached.take(CacheNews(0, 1, 0))
        cached.take(CacheNews(1, 2, 31))
        assert told(cached) == (other.blocks[1:], chain.blocks[::-1])


def test_more_holders_than_the_bound_are_not_counted() -> None:
    cached, chain = CachedPrefixes(), chain_of("a")
    cached.begin(1, chain, prompt_tokens=3)
    with patch.object(cached_prefixes, "MAX_HOLDERS", 1):
        cached.take(CacheNews(0, 1, 3))
        cached.take(CacheNews(1, 1, 3))
        cached.take(CacheNews(0, 1, 0))
    assert cached.take_changes() == []


def test_ended_calls_that_nobody_holds_are_forgotten_the_oldest_first() -> None:
    cached = CachedPrefixes()
    for call in range(MAX_UNHELD_CALLS + 1):
        cached.begin(call, chain_of(f"{call}"), prompt_tokens=3)
        cached.end(call, None, completion_tokens=0)
    cached.take(CacheNews(0, 0, 3))
    assert cached.take_changes() == []
    cached.take(CacheNews(1, 1, 3))
    assert told(cached)[0] == chain_of("1").blocks


def test_a_call_that_is_held_is_not_forgotten_however_many_others_are() -> None:
    cached, chain = CachedPrefixes(), chain_of("a")
    cached.begin(0, chain, prompt_tokens=3)
    cached.end(0, None, completion_tokens=0)
    cached.take(CacheNews(0, 0, 3))
    for call in range(1, MAX_UNHELD_CALLS + 2):
        cached.begin(call, chain_of(f"{call}"), prompt_tokens=3)
        cached.end(call, None, completion_tokens=0)
    cached.take(CacheNews(1, 0, 3))
    cached.take(CacheNews(0, 0, 0))
    assert told(cached) == (chain.blocks, [])


def test_of_two_ends_that_calls_show_the_first_is_taken() -> None:
    """A prompt's tokens count the head of its answer, too."""
    cached, user, reply = CachedPrefixes(), Message(role="user", content="a"), answer("b" * 99)
    cached.begin(1, chain_of("a"), prompt_tokens=105)
    cached.end(1, reply, completion_tokens=41)
    for call, turns, tokens in ((2, (user, reply), 160), (3, (user, reply, user), 250)):
        chain = PrefixChain.of(GenerationRequest(messages=turns), cache_scope="")
        cached.begin(call, chain, prompt_tokens=tokens)
    cached.take(CacheNews(0, 3, 145))
    assert told(cached) == (chain.blocks[:2], [])


def test_known_ends_are_bounded() -> None:
    cached = CachedPrefixes()
    with patch.object(cached_prefixes, "MAX_KNOWN_ENDS", 1):
        cached.begin(1, chain_of("a" * 100), prompt_tokens=1)
        cached.begin(2, chain_of("other"), prompt_tokens=1)
        chain = chain_of("a" * 100, "b" * 100)
        cached.begin(3, chain, prompt_tokens=100)
    cached.take(CacheNews(0, 3, 10))
    assert cached.take_changes() == []


def test_it_says_when_there_is_something_to_tell() -> None:
    calls: list[None] = []
    cached, chain = CachedPrefixes(lambda: calls.append(None)), chain_of("a")
    cached.begin(1, chain, prompt_tokens=3)
    cached.end(1, None, completion_tokens=0)
    assert not calls
    cached.take(CacheNews(0, 1, 3))
    assert calls


@given(st.lists(st.text(max_size=1500), min_size=1, max_size=6), st.integers(1, 3000), st.data())
@settings(max_examples=60)
def test_more_tokens_are_never_fewer_blocks_and_all_tokens_are_all_blocks(
    texts: list[str], prompt_tokens: int, data: st.DataObject
) -> None:
    texts = [text.encode("utf-8", "ignore").decode() for text in texts]
    cached = CachedPrefixes()
    for call, length in enumerate(data.draw(st.lists(st.integers(1, len(texts)), max_size=3))):
        tokens = data.draw(st.integers(1, 3000))
        cached.begin(call, chain_of(*texts[:length]), prompt_tokens=tokens)
    chain = chain_of(*texts)
    cached.begin(100, chain, prompt_tokens=prompt_tokens)
    held = []
    for tokens in sorted({*data.draw(st.lists(st.integers(1, prompt_tokens))), prompt_tokens}):
        cached.take(CacheNews(0, 100, tokens))
        held.append(_held(cached))
    assert all(blocks == chain.blocks[: len(blocks)] for blocks in held)
    assert [len(blocks) for blocks in held] == sorted(len(blocks) for blocks in held)
    assert held[-1] == chain.blocks


class Bookkeeping(RuleBasedStateMachine):
    """Any order of the engine's news against a model that counts nothing.

    A word of a prompt is a block, and a token.
    """

    def __init__(self) -> None:
        super().__init__()
        self.cached = CachedPrefixes()
        self.balancer = Balancer()
        self.chains: dict[int, PrefixChain] = {}
        self.prompts: dict[int, int] = {}
        self.running: set[int] = set()
        self.holders: dict[int, tuple[int, int]] = {}
        self.next_call = 1

    @initialize()
    def nothing(self) -> None:
        assert self.cached.take_changes() == []

    @rule(first=st.integers(0, 2), words=st.integers(1, 5), scope=st.sampled_from(["", "t"]))
    def begin(self, first: int, words: int, scope: str) -> None:
        text = "".join(f"{first if n == 0 else n:<512}" for n in range(words))
        chain = PrefixChain.of(GenerationRequest(prompt=text), cache_scope=scope)
        self.chains[self.next_call] = PrefixChain.of(
            GenerationRequest(prompt=text), cache_scope=scope
        )
        self.prompts[self.next_call] = words
        self.running.add(self.next_call)
        self.cached.begin(self.next_call, chain, prompt_tokens=words)
        self.next_call += 1

    @precondition(lambda self: self.running)
    @rule(data=st.data(), words=st.integers(0, 3), is_known=st.booleans())
    def end(self, data: st.DataObject, words: int, is_known: bool) -> None:
        call = data.draw(st.sampled_from(sorted(self.running)))
        text = answer("".join(f"{-n:<512}" for n in range(words))) if is_known else None
        self.running.remove(call)
        if text is not None:
            self.chains[call].append_answer(text)
        self.cached.end(call, text, completion_tokens=words + 1)

    @precondition(lambda self: self.chains)
    @rule(data=st.data(), holder=st.integers(0, 4), tokens=st.integers(0, 9))
    def hold(self, data: st.DataObject, holder: int, tokens: int) -> None:
        call = data.draw(st.sampled_from(sorted(self.chains)[-8:]))
        self.holders.pop(holder, None)
        if tokens:
            self.holders[holder] = (call, tokens)
        self.cached.take(CacheNews(holder, call, tokens))

    @rule()
    def lose_the_engine(self) -> None:
        self.cached.forget_all()
        self.chains.clear()
        self.running.clear()
        self.holders.clear()

    @rule()
    def start_over(self) -> None:
        self.cached.start_over()

    @rule()
    def tell(self) -> None:
        self.balancer.take(self.cached.take_changes())
        assert self.balancer.blocks == self._expected()

    @invariant()
    def seq_is_that_of_the_last_message(self) -> None:
        assert self.cached.cache_seq == self.balancer.cache_seq

    def _expected(self) -> set[bytes]:
        return {
            block
            for call, tokens in self.holders.values()
            for block in self.chains[call].blocks[:tokens]
        }

    def teardown(self) -> None:
        self.tell()
        for holder in list(self.holders):
            self.hold_nothing(holder)
        self.tell()
        assert self.balancer.blocks == set()

    def hold_nothing(self, holder: int) -> None:
        del self.holders[holder]
        self.cached.take(CacheNews(holder, 0, 0))


TestBookkeeping = Bookkeeping.TestCase
TestBookkeeping.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
