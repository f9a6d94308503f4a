"""A small model that drafts for the shipped one: its cache in step, its guesses checked."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import numpy as np
import pytest

from agent.demo_model import DEMO_MODEL_PATH
from agent.engine.frames import EngineOptions
from agent.engine.llama import draft_model
from agent.engine.llama.arrays import Ints
from agent.engine.llama.context import Context
from agent.engine.llama.draft_model import DraftModel
from agent.engine.llama.log import LlamaLog, start_backend
from agent.engine.llama.model import Model
from agent.engine.pace import DecodeCosts, Pace
from agent.engine.speculation import Speculation
from agent.errors import ModelRejected
from tests.support.shallow_gguf import write_shallow_gguf
from tests.support.sure_prompts import sure_prompts_of
from tests.support.tiny_gguf import write_tiny_gguf

SLOTS = 3
OPTIONS = EngineOptions(
    model_path=str(DEMO_MODEL_PATH),
    slots=SLOTS,
    threads=1,
    cache_type="f32",
    flash_attention="off",
    context_tokens=SLOTS * 640,
)
NewDraftModel = Callable[..., DraftModel]


@pytest.fixture(scope="module")
def log() -> LlamaLog:
    return start_backend()


@pytest.fixture(scope="module")
def model(log: LlamaLog) -> Iterator[Model]:
    model = Model(OPTIONS, log)
    yield model
    model.close()


@pytest.fixture(scope="module")
def context(model: Model, log: LlamaLog) -> Iterator[Context]:
    context = Context(model, OPTIONS, log)
    yield context
    context.close()


@pytest.fixture(scope="module")
def shallow(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shallow_gguf(tmp_path_factory.mktemp("model") / "shallow.gguf", layers=4)


@pytest.fixture
def new(model: Model, context: Context, log: LlamaLog) -> Iterator[NewDraftModel]:
    made: list[DraftModel] = []

    def make(path: Path = DEMO_MODEL_PATH) -> DraftModel:
        made.append(DraftModel(str(path), main=model, context=context, options=OPTIONS, log=log))
        return made[-1]

    yield make
    for one in made:
        one.close()


def text_of(model: Model, question: str) -> Ints:
    text = f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
    return model.vocabulary.tokenize(text)


def going_on(model: Model, context: Context, known: Ints, count: int) -> list[int]:
    """What the big model says, one token a decode."""
    context.forget(0)
    context.batch.clear()
    context.batch.add_prompt(known, 0, 0, output=True)
    tokens: list[int] = []
    while True:
        assert context.decode() == 0
        tokens.append(int(context.logits()[0].argmax()))
        if len(tokens) == count or tokens[-1] in model.vocabulary.end_tokens:
            return tokens
        position = np.array([len(known) + len(tokens) - 1], dtype=np.int32)
        last = np.array(tokens[-1:], dtype=np.int32)
        context.batch.clear()
        context.batch.add_decode(last, position, np.zeros(1, dtype=np.int32))


def test_a_model_drafts_for_itself_what_it_says(
    new: NewDraftModel, model: Model, context: Context
) -> None:
    known = text_of(model, "Count from 1 to 30.")
    said = going_on(model, context, known, 40)
    drafter = new().drafter(0, known)
    assert drafter.draft(8).tolist() == said[:8]
    drafter.accept(said[:9])  # all of them were right, and one came with them
    assert drafter.draft(8).tolist() == said[9:17]


def test_what_was_wrong_is_taken_back(new: NewDraftModel, model: Model, context: Context) -> None:
    known = text_of(model, "Count from 1 to 30.")
    said = going_on(model, context, known, 3)
    other = [*said, *model.vocabulary.tokenize("A B C").tolist()]
    expected = going_on(model, context, np.concatenate((known, np.array(other, dtype="i4"))), 6)
    made = new()
    drafter = made.drafter(0, known)
    drafter.draft(8)
    drafter.accept(other)
    assert made.cached(0) == len(known) + 3
    drafts = drafter.draft(6).tolist()
    assert drafts
    assert drafts == expected[: len(drafts)]


def test_tokens_that_nobody_drafted_are_read_before_the_next_guess(
    new: NewDraftModel, model: Model, context: Context
) -> None:
    known = text_of(model, "Say the alphabet.")
    said = going_on(model, context, known, 40)
    drafter = new().drafter(1, known)
    for token in said[:20]:
        drafter.accept([token])
    assert drafter.draft(4).tolist() == said[20:24]
    assert drafter.draft(4).tolist() == said[20:24]


def test_several_slots_are_drafted_in_one_go_as_each_alone(
    new: NewDraftModel, model: Model
) -> None:
    questions = ["Count from 1 to 30.", "Say the alphabet.", "Count from 7 to 20."]
    together, alone = new(), new()
    texts = [text_of(model, question).tolist() for question in questions]
    drafters = [
        together.drafter(slot, np.array(text, dtype="i4")) for slot, text in enumerate(texts)
    ]
    for _ in range(4):
        wanted = {0: 3, 2: 6, 1: 5}
        together.prepare(wanted)
        for slot, drafter in enumerate(drafters):
            drafts = drafter.draft(wanted[slot]).tolist()
            assert 0 < len(drafts) <= wanted[slot]
            by_itself = alone.drafter(slot, np.array(texts[slot], dtype="i4"))
            assert by_itself.draft(wanted[slot]).tolist() == drafts
            drafter.accept(drafts)
            texts[slot] += drafts


def test_a_draft_ends_where_the_text_ends(
    new: NewDraftModel, model: Model, context: Context
) -> None:
    question, answer = sure_prompts_of("alphabet")[0]
    known = text_of(model, question)
    drafter = new().drafter(0, known)
    drafter.accept(going_on(model, context, known, 300)[:-2])
    drafts = drafter.draft(16).tolist()
    assert len(drafts) == 2
    assert drafts[-1] in model.vocabulary.end_tokens
    assert answer


def test_a_long_prompt_is_read_over_several_steps_and_delays_nobody(
    new: NewDraftModel, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(draft_model, "CATCH_UP_TOKENS", 64)
    made = new()
    short = made.drafter(0, text_of(model, "Count from 1 to 30."))
    long = made.drafter(1, text_of(model, "Say the alphabet. " * 60))
    lengths = []
    for _ in range(20):
        made.prepare({0: 4, 1: 4})
        drafts = short.draft(4)
        assert len(drafts) == 4
        short.accept(drafts.tolist())
        lengths.append(len(long.draft(4)))
        if lengths[-1]:
            break
    assert 4 < len(lengths) < 20


def test_the_next_call_of_a_slot_takes_up_what_both_texts_begin_with_in_its_scope(
    new: NewDraftModel, model: Model
) -> None:
    made = new()
    first = text_of(model, "Count from 1 to 30.")
    second = text_of(model, "Count from 1 to 20.")
    expected = made.drafter(1, second).draft(6).tolist()
    for scope, kept in (("a", True), ("b", False)):
        made.drafter(0, first, scope="a").draft(6)
        drafter = made.drafter(0, second, scope=scope)
        assert (made.cached(0) > 4) is kept
        assert drafter.draft(6).tolist() == expected


def test_nothing_is_drafted_beyond_the_context(new: NewDraftModel, model: Model) -> None:
    known = np.resize(text_of(model, "Say the alphabet."), 636)
    drafter = new().drafter(0, known)
    assert len(drafter.draft(8)) == 0
    for _ in range(4):
        drafts = drafter.draft(4)
    assert len(drafts) <= 4


def test_text_is_the_same_with_a_shallower_model_drafting_and_comes_in_fewer_decodes(
    new: NewDraftModel, model: Model, context: Context, shallow: Path
) -> None:
    made = new(shallow)
    decodes = tokens = 0
    for question, _ in sure_prompts_of("copying")[:5] + sure_prompts_of("counting")[:2]:
        known = text_of(model, question)
        said = going_on(model, context, known, 120)
        # the costs are those of a machine on which rows and drafts are free
        speculation = Speculation(
            made.drafter(0, known), Pace(DecodeCosts(split=True), probe_every=16), is_dear=True
        )
        speculation.accept(said[:1])
        at = 1
        while at < len(said):
            drafts = speculation.draft(speculation.allowance(busy_slots=1, slots=SLOTS)).tolist()
            right = 0
            while right < len(drafts) and said[at + right : at + right + 1] == [drafts[right]]:
                right += 1
            speculation.accept(said[at : at + right + 1])
            at += right + 1
            decodes += 1
        tokens += len(said) - 1
    assert decodes < 0.7 * tokens


def test_a_model_of_another_vocabulary_is_refused(new: NewDraftModel, tmp_path: Path) -> None:
    with pytest.raises(ModelRejected, match=r"another vocabulary \(264 tokens\).*same family"):
        new(write_tiny_gguf(tmp_path / "tiny.gguf"))


def test_a_model_that_ends_texts_otherwise_is_refused(
    log: LlamaLog, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = msgspec.structs.replace(OPTIONS, model_path=str(write_tiny_gguf(tmp_path / "a")))
    main = Model(options, log)
    context = Context(main, options, log)
    monkeypatch.setattr(main.vocabulary, "end_tokens", (5,))
    with pytest.raises(ModelRejected, match="ends texts with"):
        DraftModel(options.model_path, main=main, context=context, options=options, log=log)
    context.close()
    main.close()


def test_where_the_cache_has_no_room_nothing_is_drafted_and_later_all_is_read_anew(
    model: Model, log: LlamaLog
) -> None:
    options = msgspec.structs.replace(OPTIONS, context_tokens=512, unified_kv="on")
    context = Context(model, options, log)
    made = DraftModel(str(DEMO_MODEL_PATH), main=model, context=context, options=options, log=log)
    known = np.resize(text_of(model, "Say the alphabet."), 400)
    made.drafter(0, known)
    made.drafter(1, known)
    for _ in range(6):
        made.prepare({0: 4, 1: 4})
    assert min(made.cached(0), made.cached(1)) < 400  # 800 do not fit into 512
    drafter = made.drafter(1, known[:30])
    made.drafter(0, known[:30])
    assert len(drafter.draft(4)) == 4
    made.close()
    context.close()


def test_a_unified_cache_has_more_texts_than_slots_and_the_older_ones_make_room(
    model: Model, log: LlamaLog
) -> None:
    options = msgspec.structs.replace(OPTIONS, context_tokens=512, unified_kv="on")
    context = Context(model, options, log)
    made = DraftModel(str(DEMO_MODEL_PATH), main=model, context=context, options=options, log=log)
    known = np.resize(text_of(model, "Say the alphabet."), 200)
    drafts = []
    for sequence in range(SLOTS + 3):
        drafter = made.drafter(sequence, known, scope=str(sequence))
        drafts.append(drafter.draft(4).tolist())
    assert drafts[1:] == drafts[:1] * (SLOTS + 2)
    assert len(drafts[0]) == 4
    made.close()
    context.close()


def test_a_slot_that_the_context_does_not_have_is_an_error(new: NewDraftModel) -> None:
    with pytest.raises(ValueError, match="slot 3 of 3"):
        new().drafter(SLOTS, np.ones(4, dtype="i4"))
