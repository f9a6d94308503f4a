"""Texts to ids and back, and prompts that fill in, with a tiny real vocabulary."""

from __future__ import annotations

import select
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from agent.engine.frames import EngineOptions, Submit
from agent.engine.infill import infill_prompt, missing_tokens
from agent.engine.llama.log import LlamaLog, start_backend
from agent.engine.llama.model import Model
from agent.engine.prompts import PromptRefused, known_tokens
from agent.engine.query_frames import (
    DetokenizeCall,
    Detokenized,
    QueryAnswer,
    QueryRefused,
    TokenizeCall,
    Tokenized,
)
from agent.engine.text_thread import LONG_TEXT_CHARS, TextThread
from agent.engine.tokenizing import MAX_CALLS, MAX_IDS, MAX_TEXT_BYTES, Tokenizing
from protocol.refusals import RefusalCode
from tests.support.tiny_gguf import END, START, tokens, write_tiny_gguf

START_ID, END_ID = tokens().index(START), tokens().index(END)
INFILL = {"pre": 1, "suf": 2, "mid": 3}
WAIT_LIMIT_MS = 60_000


@pytest.fixture(scope="module")
def log() -> LlamaLog:
    return start_backend()


@pytest.fixture(scope="module")
def model(log: LlamaLog, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = write_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf", adds_bos=True)
    model = Model(EngineOptions(model_path=str(path)), log)
    yield model
    model.close()


class Bench:
    """Tokenising with its thread, turned by hand."""

    def __init__(self, model: Model) -> None:
        self.thread = TextThread()
        self._tokenizing = Tokenizing(model.vocabulary, self.thread)
        self.submit, self.cancel = self._tokenizing.submit, self._tokenizing.cancel
        self._poll = select.poll()
        self._poll.register(self.thread.wakes, select.POLLIN)

    @property
    def has_work(self) -> bool:
        return self._tokenizing.has_work

    def turn(self) -> list[QueryAnswer]:
        return self._tokenizing.turn()

    def wait(self) -> None:
        """Until the thread has done something, as the engine's loop does."""
        assert self._poll.poll(WAIT_LIMIT_MS), "nothing came"
        self.thread.collect()


@pytest.fixture
def tokenizing(model: Model) -> Iterator[Bench]:
    bench = Bench(model)
    yield bench
    bench.thread.close()


@pytest.fixture
def infilling(log: LlamaLog, tmp_path: Path) -> Iterator[Model]:
    path = write_tiny_gguf(tmp_path / "infill.gguf", adds_bos=True, infill=INFILL)
    model = Model(EngineOptions(model_path=str(path)), log)
    yield model
    model.close()


def answered(tokenizing: Bench, *commands: TokenizeCall | DetokenizeCall) -> list[QueryAnswer]:
    for command in commands:
        tokenizing.submit(command)
    return collected(tokenizing, len(commands))


def collected(tokenizing: Bench, count: int) -> list[QueryAnswer]:
    """So many answers, in their order."""
    answers: list[QueryAnswer] = []
    while len(answers) < count:
        if not tokenizing.has_work:
            tokenizing.wait()
        answers += tokenizing.turn()
    assert not tokenizing.has_work
    return answers


def ids_of(tokenizing: Bench, text: str, **fields: bool) -> tuple[int, ...]:
    (answer,) = answered(tokenizing, TokenizeCall(call=1, text=text, **fields))
    assert isinstance(answer, Tokenized)
    return answer.token_ids


def test_a_text_becomes_ids_and_ids_the_text(tokenizing: Bench) -> None:
    text = "hello wörld \N{GRINNING FACE}"
    ids = ids_of(tokenizing, text)
    (answer,) = answered(tokenizing, DetokenizeCall(call=2, token_ids=ids))
    assert answer == Detokenized(call=2, text=text)
    assert len(ids) < len(text.encode())


def test_special_tokens_are_read_and_added_as_asked(tokenizing: Bench) -> None:
    assert ids_of(tokenizing, f"a{END}") == (ord("a"), END_ID)
    assert END_ID not in ids_of(tokenizing, f"a{END}", parse_special=False)
    assert ids_of(tokenizing, "a", add_special=True) == (START_ID, ord("a"))


def test_a_prompt_has_the_token_at_its_start_once_and_no_other(tokenizing: Bench) -> None:
    assert ids_of(tokenizing, f"a{END}", as_prompt=True) == (START_ID, ord("a"), END_ID)
    assert ids_of(tokenizing, f"{START}a", as_prompt=True) == (START_ID, ord("a"))
    assert ids_of(tokenizing, "", as_prompt=True) == (START_ID,)


def test_special_tokens_are_shown_only_if_wanted(tokenizing: Bench) -> None:
    ids = (START_ID, ord("a"), END_ID)
    hidden, shown = answered(
        tokenizing,
        DetokenizeCall(call=1, token_ids=ids),
        DetokenizeCall(call=2, token_ids=ids, show_special=True),
    )
    assert hidden == Detokenized(call=1, text="a")
    assert shown == Detokenized(call=2, text=f"{START}a{END}")


def test_pieces_are_bytes_that_make_the_text_again(tokenizing: Bench) -> None:
    text = "wörld"
    (answer,) = answered(tokenizing, TokenizeCall(call=1, text=text, with_pieces=True))
    assert isinstance(answer, Tokenized)
    assert len(answer.pieces) == len(answer.token_ids)
    assert "".join(answer.pieces).encode("latin-1").decode() == text


def test_half_a_character_becomes_a_replacement(tokenizing: Bench) -> None:
    (answer,) = answered(tokenizing, DetokenizeCall(call=1, token_ids=(0xC3, ord("a"))))
    assert answer == Detokenized(call=1, text="\ufffda")


def test_a_long_text_has_the_ids_of_its_short_parts_and_does_not_hold_the_others_up(
    tokenizing: Bench,
) -> None:
    part = "hello world\n"
    half = part * (LONG_TEXT_CHARS // len(part))
    long = half + half
    tokenizing.submit(TokenizeCall(call=1, text=long))
    tokenizing.submit(TokenizeCall(call=2, text=part))
    (first,) = tokenizing.turn()
    assert first.call == 2
    assert isinstance(first, Tokenized)
    (second,) = collected(tokenizing, 1)
    assert isinstance(second, Tokenized)
    assert second.token_ids == 2 * ids_of(tokenizing, half)


def test_many_ids_are_written_out_over_several_turns(tokenizing: Bench) -> None:
    tokenizing.submit(DetokenizeCall(call=1, token_ids=(ord("a"),) * MAX_IDS))
    turns = 0
    answers: list[QueryAnswer] = []
    while tokenizing.has_work:
        answers += tokenizing.turn()
        turns += 1
    assert turns > 2
    assert answers == [Detokenized(call=1, text="a" * MAX_IDS)]


def test_a_cancelled_call_is_never_heard_of_again(tokenizing: Bench) -> None:
    long = "hello " * LONG_TEXT_CHARS
    tokenizing.submit(TokenizeCall(call=1, text=long))
    tokenizing.submit(TokenizeCall(call=2, text="a"))
    tokenizing.submit(DetokenizeCall(call=3, token_ids=(1,)))
    tokenizing.submit(TokenizeCall(call=4, text=long))
    for call in (1, 2, 3, 99):
        tokenizing.cancel(call)
    assert [answer.call for answer in collected(tokenizing, 1)] == [4]


def test_too_many_calls_are_refused(tokenizing: Bench) -> None:
    calls = [TokenizeCall(call=call, text="a") for call in range(MAX_CALLS + 1)]
    answers = {answer.call: answer for answer in answered(tokenizing, *calls)}
    refused = answers.pop(MAX_CALLS)
    assert isinstance(refused, QueryRefused)
    assert refused.code == RefusalCode.NO_FREE_SLOT
    assert {type(answer) for answer in answers.values()} == {Tokenized}


@pytest.mark.parametrize(
    ("command", "param"),
    [
        (TokenizeCall(call=1, text="a" * (MAX_TEXT_BYTES + 1)), "text"),
        (DetokenizeCall(call=1, token_ids=(1,) * (MAX_IDS + 1)), "token_ids"),
        (DetokenizeCall(call=1, token_ids=(1, len(tokens()))), "token_ids"),
        (DetokenizeCall(call=1, token_ids=(1, -1)), "token_ids"),
    ],
)
def test_what_cannot_be_done_is_refused_by_its_parameter(
    tokenizing: Bench, command: TokenizeCall | DetokenizeCall, param: str
) -> None:
    (refused,) = answered(tokenizing, command)
    assert isinstance(refused, QueryRefused)
    assert refused.code == RefusalCode.UNSUPPORTED
    assert refused.facts == {"param": param}
    assert param in refused.message


def test_filling_in_puts_the_model_s_tokens_around_prefix_and_suffix(infilling: Model) -> None:
    prompt = infill_prompt(infilling.vocabulary, "ab", f"c{END}")
    after = infilling.vocabulary.tokenize(f"c{END}", parse_special=False).tolist()
    assert prompt.tolist() == [START_ID, 1, ord("a"), ord("b"), 2, *after, 3]
    assert END_ID not in after


def test_a_call_with_a_suffix_is_a_call_to_fill_in(infilling: Model) -> None:
    submit = Submit(call=1, prompt="ab", suffix="c")
    prompt, max_tokens = known_tokens(submit, infilling.vocabulary, 100)
    assert (prompt == infill_prompt(infilling.vocabulary, "ab", "c")).all()
    assert max_tokens == 100 - len(prompt)
    empty = known_tokens(Submit(call=1, prompt="", suffix=""), infilling.vocabulary, 100)[0]
    assert empty.tolist() == [START_ID, 1, 2, 3]


@pytest.mark.parametrize(
    ("missing", "says"),
    [
        (("pre", "suf", "mid"), "prefix and the suffix and the middle"),
        (("mid",), "no token for the middle"),
    ],
)
def test_a_model_that_cannot_fill_in_says_what_it_lacks(
    log: LlamaLog, tmp_path: Path, missing: tuple[str, ...], says: str
) -> None:
    has = {name: token for name, token in INFILL.items() if name not in missing}
    path = write_tiny_gguf(tmp_path / "some.gguf", infill=has)
    model = Model(EngineOptions(model_path=str(path)), log)
    assert len(missing_tokens(model.vocabulary)) == len(missing)
    with pytest.raises(PromptRefused, match=says) as refused:
        known_tokens(Submit(call=1, prompt="a", suffix="b"), model.vocabulary, 100)
    model.close()
    assert refused.value.facts == {"param": "suffix"}
    assert refused.value.code == RefusalCode.UNSUPPORTED


def test_ids_cannot_be_filled_in_around_and_too_long_is_too_long(infilling: Model) -> None:
    with pytest.raises(PromptRefused, match="not token ids"):
        known_tokens(Submit(call=1, prompt=(1, 2), suffix="b"), infilling.vocabulary, 100)
    for size in (60, 100_000):
        submit = Submit(call=1, prompt="a" * size, suffix="b" * size)
        with pytest.raises(PromptRefused, match="maximum context length is 100 tokens") as refused:
            known_tokens(submit, infilling.vocabulary, 100)
        assert refused.value.code == RefusalCode.CONTEXT_TOO_LONG


def test_no_token_of_the_texts_is_lost(infilling: Model) -> None:
    vocabulary = infilling.vocabulary
    prompt = infill_prompt(vocabulary, "hello ", " world")
    joined = b"".join(vocabulary.pieces[token] for token in prompt if token not in (1, 2, 3))
    assert joined == b"hello  world"
    assert np.isin([1, 2, 3], prompt).all()
