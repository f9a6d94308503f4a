"""What a call gets from llama.cpp: in this process, with a tiny random model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from agent.engine.budget import LEAST_TOKENS
from agent.engine.frames import (
    CancelCall,
    ContinueCall,
    EngineOptions,
    PauseCall,
    Sampling,
    Submit,
)
from agent.engine.llama.context import Context
from agent.engine.llama.log import LlamaLog, start_backend
from agent.engine.llama.model import Model
from agent.errors import ModelUnusable
from protocol.refusals import RefusalCode, consequence_of
from tests.support.engine_bench import EngineBench
from tests.support.engine_calls import Heard
from tests.support.tiny_gguf import CONTEXT, END, START, TEMPLATE, TOOL, tokens, write_tiny_gguf

SLOTS = 4
GREEDY = Sampling(temperature=0.0)
END_ID, TOOL_ID = tokens().index(END), tokens().index(TOOL)


@pytest.fixture(scope="module")
def log() -> LlamaLog:
    return start_backend()


@pytest.fixture(scope="module")
def model(log: LlamaLog, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Model]:
    path = write_tiny_gguf(tmp_path_factory.mktemp("model") / "tiny.gguf")
    model = Model(EngineOptions(model_path=str(path)), log)
    yield model
    model.close()


@pytest.fixture
def model_with_bos(log: LlamaLog, tmp_path: Path) -> Iterator[Model]:
    path = write_tiny_gguf(tmp_path / "bos.gguf", adds_bos=True)
    model = Model(EngineOptions(model_path=str(path)), log)
    yield model
    model.close()


def test_a_start_token_is_added_where_the_model_wants_one_and_the_text_has_none(
    model_with_bos: Model, log: LlamaLog
) -> None:
    bench = EngineBench(model_with_bos, log, exact())
    assert bench.facts.adds_bos
    counts = [
        heard.accepted.prompt_tokens
        for prompt in ("abc", "<|im_start|>abc", "", tuple(b"abc"))
        if (heard := bench.call(prompt, max_tokens=1)).accepted
    ]
    assert counts == [4, 4, 1, 3]
    bench.context.close()


def test_models_with_other_tokenizers_have_other_digests(
    bench: EngineBench, model_with_bos: Model, log: LlamaLog
) -> None:
    other = EngineBench(model_with_bos, log, exact())
    assert other.facts.tokenizer_digest != bench.facts.tokenizer_digest
    other.context.close()


def exact(**fields: object) -> EngineOptions:
    """Options under which splitting batches changes nothing."""
    settings = {
        "slots": SLOTS,
        "threads": 1,
        "cache_type": "f32",
        "flash_attention": "off",
        "speculation": "off",
    }
    return EngineOptions(model_path="", **(settings | fields))  # type: ignore[arg-type]  # of any test


@pytest.fixture
def bench(model: Model, log: LlamaLog) -> Iterator[EngineBench]:
    bench = EngineBench(model, log, exact())
    yield bench
    bench.context.close()


def test_the_facts_are_the_models(bench: EngineBench) -> None:
    facts = bench.facts
    assert (facts.slots, facts.context_tokens, facts.kv_cells) == (SLOTS, CONTEXT, SLOTS * CONTEXT)
    assert (facts.vocabulary, facts.trained_context_tokens) == (len(tokens()), CONTEXT)
    assert (facts.architecture, facts.name) == ("llama", "tiny")
    assert facts.description.startswith("llama ")
    assert "?" not in facts.description, "llama.cpp has no name for this size"
    assert facts.chat_template == TEMPLATE
    assert (facts.bos_token, facts.eos_token, facts.adds_bos) == ("<|im_start|>", END, False)
    assert len(facts.tokenizer_digest) == 32
    assert facts.size_bytes > 0
    assert facts.parameters > 0
    assert facts.llama_cpp_version


def test_a_call_is_accepted_with_exact_counts_and_ends_at_its_cap(bench: EngineBench) -> None:
    heard = bench.call("hello<|im_end|>", sampling=GREEDY, max_tokens=7)
    assert heard.accepted is not None
    assert heard.ended is not None
    # `h e` and `l l` merge to `hell`, then o, then one special token
    assert (heard.accepted.prompt_tokens, heard.accepted.max_tokens) == (3, 7)
    assert (heard.ended.finish_reason, len(heard.token_ids)) == ("length", 7)
    assert (heard.ended.usage.prompt_tokens, heard.ended.usage.completion_tokens) == (3, 7)
    assert heard.ended.timings.prefill_ms > 0


def test_text_and_the_same_token_ids_are_the_same_prompt(bench: EngineBench) -> None:
    ids = tuple(b"abc")
    by_text = bench.call("abc", sampling=GREEDY, max_tokens=5)
    assert bench.call(ids, sampling=GREEDY, max_tokens=5).token_ids == by_text.token_ids


def test_without_a_cap_the_answer_ends_with_the_context(bench: EngineBench) -> None:
    heard = bench.call("abc", sampling=Sampling(ignore_eos=True))
    assert heard.ended is not None
    assert heard.ended.finish_reason == "length"
    assert heard.ended.usage.completion_tokens == CONTEXT - 3


def test_an_end_token_ends_the_call_is_counted_and_adds_no_text(bench: EngineBench) -> None:
    sampling = Sampling(temperature=0.0, logit_bias=((END_ID, 1000.0),), top_logprobs=2)
    heard = bench.call(sampling=sampling)
    assert heard.ended is not None
    assert heard.ended.finish_reason == "stop"
    assert heard.ended.stop_sequence is None
    assert (heard.token_ids, heard.text, heard.logprobs) == ([END_ID], "", [])
    assert heard.ended.usage.completion_tokens == 1


def test_no_end_before_min_tokens(bench: EngineBench) -> None:
    sampling = Sampling(temperature=0.0, logit_bias=((END_ID, 1000.0),))
    heard = bench.call(sampling=sampling, min_tokens=3)
    assert len(heard.token_ids) == 4
    assert heard.token_ids[-1] == END_ID


def test_no_stop_string_ends_the_text_before_min_tokens(bench: EngineBench) -> None:
    free = bench.call(sampling=GREEDY, max_tokens=30)
    early = free.text[:1]
    assert early
    heard = bench.call(sampling=GREEDY, max_tokens=30, min_tokens=30, stop=(early, "\x00\x01"))
    assert len(heard.token_ids) == 30
    assert heard.texts[:29] == free.texts[:29]
    assert bench.call(sampling=GREEDY, max_tokens=30, stop=(early,)).text == ""


def test_user_defined_tokens_are_text_and_control_tokens_are_not(bench: EngineBench) -> None:
    start = tokens().index("<|im_start|>")
    assert bench.call(sampling=Sampling(logit_bias=((TOOL_ID, 1000.0),)), max_tokens=1).text == TOOL
    heard = bench.call(sampling=Sampling(logit_bias=((start, 1000.0),)), max_tokens=1)
    assert (heard.token_ids, heard.text) == ([start], "")


def test_a_character_cut_by_the_cap_is_replaced(bench: EngineBench) -> None:
    heard = bench.call(sampling=Sampling(logit_bias=((0xE2, 1000.0),)), max_tokens=1)
    assert heard.text == "\ufffd"


def test_a_stop_string_may_complete_with_the_replaced_end(bench: EngineBench) -> None:
    sampling = Sampling(logit_bias=((0xE2, 1000.0),))
    heard = bench.call(sampling=sampling, max_tokens=1, stop=("\ufffd",))
    assert heard.ended is not None
    assert (heard.text, heard.ended.finish_reason) == ("", "stop")
    assert heard.ended.stop_sequence == "\ufffd"


def test_a_stop_string_across_tokens_never_leaks_and_is_counted(bench: EngineBench) -> None:
    free = bench.call(sampling=GREEDY, max_tokens=60)
    stop = free.text[20:24]
    heard = bench.call(sampling=GREEDY, max_tokens=60, stop=("never this", stop))
    before = free.text[: free.text.index(stop)]
    assert heard.text == before
    assert heard.ended is not None
    assert (heard.ended.finish_reason, heard.ended.stop_sequence) == ("stop", stop)
    assert heard.ended.usage.completion_tokens == len(heard.token_ids) > len(before)
    for end in range(len(heard.texts)):
        assert before.startswith("".join(heard.texts[:end]))


def test_what_could_have_become_a_stop_is_let_out_at_the_end(bench: EngineBench) -> None:
    free = bench.call(sampling=GREEDY, max_tokens=10)
    heard = bench.call(sampling=GREEDY, max_tokens=10, stop=(free.text[-3:] + "\x00",))
    assert heard.text == free.text


def test_one_seed_gives_one_text_another_gives_another(bench: EngineBench) -> None:
    texts = [bench.call(sampling=Sampling(seed=seed), max_tokens=30).text for seed in (1, 1, 2)]
    assert texts[0] == texts[1] != texts[2]


def test_concurrent_calls_get_what_they_would_get_alone(bench: EngineBench) -> None:
    prompts = {1: "hello", 2: "a much longer prompt " * 9, 3: "x", 4: "world and more"}
    alone = {
        number: bench.call(prompt, sampling=Sampling(seed=number), max_tokens=20)
        for number, prompt in prompts.items()
    }
    for number, prompt in prompts.items():
        sampling = Sampling(seed=number)
        bench.submit(Submit(call=number, prompt=prompt, sampling=sampling, max_tokens=20))
        bench.turn()
    bench.finish()
    for number in prompts:
        assert bench.heard[number].token_ids == alone[number].token_ids


def test_a_prompt_beside_running_streams_goes_in_by_chunks(model: Model, log: LlamaLog) -> None:
    bench = EngineBench(model, log, exact(target_gap_ms=1e-6))
    bench.submit(Submit(call=1, prompt="a", sampling=Sampling(ignore_eos=True)))
    bench.turn()
    bench.submit(Submit(call=2, prompt="b " * 200, sampling=GREEDY, max_tokens=3))
    bench.turn()
    (progress,) = bench.heard.steps[-1].prefill
    assert (progress.call, progress.done, progress.total) == (2, LEAST_TOKENS, 400)
    assert len(bench.heard[1].token_ids) == 2
    bench.finish()
    assert (
        bench.heard[2].token_ids == bench.call("b " * 200, sampling=GREEDY, max_tokens=3).token_ids
    )
    bench.context.close()


@pytest.mark.parametrize(
    "sampling",
    [
        GREEDY,
        Sampling(seed=11, temperature=1.0),
        Sampling(seed=12, temperature=1.5, top_p=0.9, presence_penalty=0.7, repeat_penalty=1.2),
        Sampling(seed=13, top_k=30, min_p=0.02, logit_bias=((0xC3, 5.0), (0xA9, 5.0))),
        Sampling(seed=14, mirostat=1, mirostat_tau=3.0, mirostat_eta=0.5),
        Sampling(seed=15, mirostat=2, mirostat_tau=3.0, mirostat_eta=0.5),
        Sampling(seed=16, dry_multiplier=2.0, dry_allowed_length=1, xtc_probability=0.5),
    ],
    ids=["greedy", "plain", "penalties", "half characters", "mirostat 1", "mirostat 2", "dry, xtc"],
)
def test_a_call_resumed_after_any_token_goes_on_as_if_never_cut(
    bench: EngineBench, sampling: Sampling
) -> None:
    stop = ("\x00\x01", "ab")
    whole = bench.call(sampling=sampling, max_tokens=24, min_tokens=5, stop=stop)
    for cut in range(len(whole.token_ids)):
        emitted = "".join(whole.texts[:cut])
        heard = bench.call(
            sampling=sampling,
            max_tokens=24,
            min_tokens=5,
            stop=stop,
            resume_ids=tuple(whole.token_ids[:cut]),
            resume_emitted_chars=len(emitted),
            resume_sampler_state=whole.sampler_states[cut - 1] if cut else (),
        )
        assert heard.accepted is not None
        assert heard.accepted.resumed_texts == tuple(whole.texts[:cut])
        assert np.allclose(heard.sampler_states, whole.sampler_states[cut:], atol=1e-4)
        assert heard.token_ids == whole.token_ids[cut:]
        assert emitted + heard.text == whole.text
        assert heard.ended is not None
        assert whole.ended is not None
        assert replace(heard.ended.usage, cached_tokens=0) == whole.ended.usage
        assert heard.ended.finish_reason == whole.ended.finish_reason


def test_resuming_what_was_over_ends_at_once(bench: EngineBench) -> None:
    whole = bench.call(sampling=GREEDY, max_tokens=5)
    heard = bench.call(
        sampling=GREEDY,
        max_tokens=5,
        resume_ids=tuple(whole.token_ids),
        resume_emitted_chars=len(whole.text),
    )
    assert heard.ended is not None
    assert heard.ended.finish_reason == "length"
    assert heard.token_ids == []


@pytest.mark.parametrize(
    ("resume_ids", "chars"),
    [((97, 98), 3), ((END_ID, 97), 1), ((97, 98, 99, 100), 4), ((2**31 - 1,), 0)],
)
def test_a_resume_that_does_not_fit_is_refused(
    bench: EngineBench, resume_ids: tuple[int, ...], chars: int
) -> None:
    heard = bench.call(resume_ids=resume_ids, resume_emitted_chars=chars, max_tokens=3)
    assert heard.refused is not None
    assert heard.refused.code == RefusalCode.RESUME_MISMATCH


@pytest.mark.parametrize(
    ("sampling", "ids", "state"),
    [
        (Sampling(mirostat=2), (97, 98), ()),
        (Sampling(mirostat=2), (97, 98), (1.0, 2.0)),
        (Sampling(), (97, 98), (1.0,)),
        (Sampling(), (), (1.0,)),
    ],
)
def test_a_resume_without_the_sampler_s_state_or_with_another_s_is_refused(
    bench: EngineBench, sampling: Sampling, ids: tuple[int, ...], state: tuple[float, ...]
) -> None:
    heard = bench.call(sampling=sampling, resume_ids=ids, resume_sampler_state=state, max_tokens=5)
    assert heard.refused is not None
    assert heard.refused.code == RefusalCode.RESUME_MISMATCH
    assert "state" in heard.refused.message


def test_dry_counts_the_prompt(bench: EngineBench) -> None:
    prompt = "hello world hello world hello"
    free = bench.call(prompt, sampling=GREEDY, max_tokens=1)
    repeated = tuple(prompt.encode()) + tuple(free.token_ids) + tuple(prompt.encode())
    dry = Sampling(temperature=0.0, dry_multiplier=100.0, dry_sequence_breakers=())
    again = bench.call(repeated, sampling=dry, max_tokens=1)
    assert again.token_ids != free.token_ids


def test_a_resume_may_leave_the_comparison_to_others(bench: EngineBench) -> None:
    heard = bench.call(resume_ids=(97, 98), max_tokens=5)
    assert heard.accepted is not None
    assert heard.accepted.resumed_texts == ("a", "b")


@pytest.mark.parametrize("prompt", ["x" * CONTEXT, "x" * 100_000, tuple([97] * CONTEXT)])
def test_a_prompt_that_leaves_no_room_is_refused_with_the_numbers(
    bench: EngineBench, prompt: str | tuple[int, ...]
) -> None:
    heard = bench.call(prompt)
    assert heard.refused is not None
    assert heard.refused.code == RefusalCode.CONTEXT_TOO_LONG
    assert str(CONTEXT) in heard.refused.message


def test_a_prompt_one_token_short_of_the_context_gets_one_token(bench: EngineBench) -> None:
    heard = bench.call("x" * (CONTEXT - 1), sampling=Sampling(ignore_eos=True))
    assert len(heard.token_ids) == 1


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt": ""},
        {"prompt": ()},
        {"prompt": (len(tokens()),)},
        {"prompt": (-1,)},
        {"max_tokens": 0},
        {"sampling": Sampling(temperature=-1)},
        {"sampling": Sampling(logit_bias=((len(tokens()), 1.0),))},
    ],
)
def test_parameters_that_only_the_model_can_judge_are_the_clients_mistake_not_the_agents(
    bench: EngineBench, fields: dict[str, object]
) -> None:
    heard = bench.call(**fields)  # type: ignore[arg-type]  # of any test
    assert heard.refused is not None
    consequence = consequence_of(heard.refused.code)
    assert (consequence.status, consequence.blame) == (400, "client")


def test_one_call_more_than_slots_is_refused_and_the_others_go_on(bench: EngineBench) -> None:
    for number in range(SLOTS + 1):
        bench.submit(Submit(call=number, prompt="abc", sampling=GREEDY, max_tokens=4))
    bench.finish()
    refused = bench.heard[SLOTS].refused
    assert refused is not None
    assert refused.code == RefusalCode.NO_FREE_SLOT
    assert all(len(bench.heard[number].token_ids) == 4 for number in range(SLOTS))


def test_a_second_call_of_the_same_number_does_not_disturb_the_first(bench: EngineBench) -> None:
    alone = bench.call(sampling=GREEDY, max_tokens=6)
    bench.submit(Submit(call=1, prompt="hello world", sampling=GREEDY, max_tokens=6))
    bench.turn(2)
    bench.submit(Submit(call=1, prompt="other"))
    bench.finish()
    assert bench.heard[1].token_ids == alone.token_ids
    assert bench.heard[1].refused is None


def test_a_cancelled_call_ends_with_its_usage_and_frees_its_slot(bench: EngineBench) -> None:
    for number in range(SLOTS):
        bench.submit(Submit(call=number, prompt="abc", sampling=Sampling(ignore_eos=True)))
    bench.turn(3)
    bench.serving.cancel(CancelCall(call=2))
    bench.serving.cancel(CancelCall(call=99))
    bench.submit(Submit(call=10, prompt="abc", sampling=GREEDY, max_tokens=2))
    bench.turn(3)
    ended = bench.heard[2].ended
    assert ended is not None
    assert (ended.finish_reason, ended.usage.completion_tokens) == ("cancelled", 3)
    assert len(bench.heard[10].token_ids) == 2


def test_a_cancelled_prompt_stops_between_its_chunks(model: Model, log: LlamaLog) -> None:
    bench = EngineBench(model, log, exact(batch_tokens=32))
    bench.submit(Submit(call=1, prompt="x" * 200))
    bench.turn(2)
    bench.serving.cancel(CancelCall(call=1))
    bench.turn()
    step = bench.heard.steps[-1]
    assert (step.has_work, step.kv_cells_used, step.number) == (False, 0, 2)
    ended = bench.heard[1].ended
    assert ended is not None
    assert ended.usage.completion_tokens == 0
    bench.context.close()


def test_a_paused_call_stands_still_and_then_goes_on_unchanged(bench: EngineBench) -> None:
    alone = bench.call(sampling=Sampling(seed=3), max_tokens=12)
    bench.submit(Submit(call=1, prompt="hello world", sampling=Sampling(seed=3), max_tokens=12))
    bench.turn(4)
    bench.serving.pause(PauseCall(call=1))
    bench.submit(Submit(call=2, prompt="other", sampling=GREEDY, max_tokens=5))
    bench.finish()
    assert len(bench.heard[1].token_ids) == 4
    assert not bench.serving.has_work
    bench.serving.go_on(ContinueCall(call=1))
    bench.finish()
    assert bench.heard[1].token_ids == alone.token_ids


def test_nothing_to_do_is_nothing_to_say(bench: EngineBench) -> None:
    bench.turn()
    assert bench.heard.steps == []


def test_logprobs_are_one_a_token_with_the_likeliest_beside(bench: EngineBench) -> None:
    heard = bench.call(sampling=Sampling(temperature=0.0, top_logprobs=5), max_tokens=6)
    assert [entry.token_id for entry in heard.logprobs] == heard.token_ids
    for entry in heard.logprobs:
        assert len(entry.top) == 5
        assert entry.top[0].logprob == entry.logprob
        assert entry.top[0].token_id == entry.token_id
        assert sum(np.exp(top.logprob) for top in entry.top) <= 1
    everything = bench.call(
        sampling=Sampling(temperature=0.0, top_logprobs=len(tokens())), max_tokens=1
    )
    (entry,) = everything.logprobs
    assert sum(np.exp(top.logprob) for top in entry.top) == pytest.approx(1)
    plain = bench.call(sampling=Sampling(temperature=0.0, top_logprobs=0), max_tokens=6)
    assert [entry.top for entry in plain.logprobs] == [()] * 6
    assert bench.call(sampling=GREEDY, max_tokens=6).logprobs == []


@pytest.mark.parametrize(
    "options",
    [
        exact(unified_kv="on"),
        exact(cache_type="q8_0", flash_attention="on"),
        exact(cache_type="f16", flash_attention="auto", slots=1),
        exact(micro_batch_tokens=16, slots=2),
    ],
    ids=["unified", "q8_0", "f16", "small batches"],
)
def test_every_kind_of_cache_serves(model: Model, log: LlamaLog, options: EngineOptions) -> None:
    bench = EngineBench(model, log, options)
    for number in range(options.slots):
        prompt = "some words " * (number + 1) * 3
        bench.submit(Submit(call=number, prompt=prompt, sampling=GREEDY, max_tokens=10))
    bench.finish()
    assert all(len(bench.heard[number].token_ids) == 10 for number in range(options.slots))
    bench.context.close()


def test_the_context_asked_for_is_shared_out_to_the_slots(model: Model, log: LlamaLog) -> None:
    bench = EngineBench(model, log, exact(context_tokens=400))
    assert bench.facts.context_tokens == 100
    heard = bench.call("x" * 90, sampling=Sampling(ignore_eos=True))
    assert len(heard.token_ids) == 10
    bench.context.close()


def test_a_context_without_room_for_an_answer_is_said_to_be_too_small(
    model: Model, log: LlamaLog
) -> None:
    with pytest.raises(ModelUnusable, match=r"only 1: use a larger --context"):
        Context(model, exact(context_tokens=SLOTS), log)


@pytest.mark.parametrize("slots", [0, 257])
def test_an_impossible_number_of_slots_is_said_with_the_numbers(
    model: Model, log: LlamaLog, slots: int
) -> None:
    with pytest.raises(ModelUnusable, match=f"{slots} slots"):
        Context(model, exact(slots=slots), log)


def failing(bench: EngineBench, fails: Callable[[], bool]) -> None:
    """Let some decodes fail after llama.cpp did them, as after an error half-way."""
    decode = bench.context.decode

    def sometimes() -> int:
        code = decode()
        return 1 if fails() else code

    bench.context.decode = sometimes  # type: ignore[method-assign]  # a fault put in


def test_a_batch_that_fails_is_tried_again_call_by_call(bench: EngineBench) -> None:
    alone = [bench.call(p, sampling=GREEDY, max_tokens=8).token_ids for p in ("abc", "xyz")]
    failing(bench, lambda: len(bench.context.batch.slots) > 1)
    for number, prompt in enumerate(("abc", "xyz")):
        bench.submit(Submit(call=number, prompt=prompt, sampling=GREEDY, max_tokens=8))
    bench.finish()
    assert [bench.heard[number].token_ids for number in range(2)] == alone


def test_only_the_call_that_cannot_be_decoded_fails(bench: EngineBench) -> None:
    for number in range(3):
        bench.submit(Submit(call=number, prompt="abc", sampling=GREEDY, max_tokens=8))
    bench.turn(2)
    failing(bench, lambda: 1 in bench.context.batch.slots)
    bench.finish()
    failed = bench.heard[1].failed
    assert failed is not None
    assert failed.code == RefusalCode.ENGINE_FAILED
    assert [len(bench.heard[number].token_ids) for number in range(3)] == [8, 2, 8]
    bench.submit(Submit(call=9, prompt="abc", sampling=GREEDY, max_tokens=2))
    assert bench.serving.has_work


@pytest.mark.parametrize(
    ("content", "says"),
    [(None, "No such file"), (b"hello", "not a GGUF"), (b"GGUF\x03\x00", "cannot load")],
)
def test_a_file_that_is_no_model_is_said_to_be_so(
    log: LlamaLog, tmp_path: Path, content: bytes | None, says: str
) -> None:
    path = tmp_path / "bad.gguf"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ModelUnusable, match=says):
        Model(EngineOptions(model_path=str(path)), log)


def test_a_control_token_is_text_where_it_was_asked_for_and_nowhere_else(
    bench: EngineBench,
) -> None:
    start = tokens().index(START)
    always = Sampling(temperature=0.0, logit_bias=((start, 1000.0),))

    def heard(*shown: str, stop: tuple[str, ...] = ()) -> Heard:
        return bench.call(sampling=always, max_tokens=2, shown_specials=shown, stop=stop)

    assert (heard().token_ids, heard().text) == ([start, start], "")
    assert heard(START).text == START + START
    assert heard(START, stop=(START,)).text == ""
    assert heard(TOOL).text == ""


def test_sets_of_shown_tokens_are_bounded(bench: EngineBench) -> None:
    vocabulary = bench.model.vocabulary
    first = vocabulary.pieces_with((START,))
    assert vocabulary.pieces_with((START,)) is first
    for name in ("a", "b", "c", "d", "e"):
        vocabulary.pieces_with((name,))
    assert vocabulary.pieces_with((START,)) is not first
    assert vocabulary.pieces_with((START,)) == first
    assert vocabulary.pieces_with(()) is vocabulary.pieces
