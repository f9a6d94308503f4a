"""Images and sounds in prompts: real mtmd, with tiny projectors of random weights."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from agent.engine.frames import CancelCall, EngineOptions, Medium, Sampling, Submit
from agent.engine.llama.log import LlamaLog, start_backend
from agent.engine.llama.model import Model
from agent.engine.llama.projector import Image, Projector, Sound
from agent.engine.media import Media
from agent.engine.query_frames import Exported, ExportSequence, Imported, ImportSequence
from agent.errors import ModelRejected
from protocol.refusals import RefusalCode
from tests.support.engine_bench import EngineBench
from tests.support.engine_calls import Heard
from tests.support.engine_invariants import check_idle, checked
from tests.support.media_files import MediaFiles, picture, tone
from tests.support.mtmd_reference import MARKER, reference_logits
from tests.support.tiny_gguf import tokens, write_tiny_gguf
from tests.support.tiny_projector_gguf import (
    IMAGE_TOKENS,
    SOUND_TOKENS,
    Kind,
    write_tiny_projector,
)

GREEDY = Sampling(temperature=0.0)
CAT, DOG = picture(1), picture(2)
PROMPT = "look at this: <- what is it?"
AT = PROMPT.index("<-")
ALL_LOGPROBS = replace(GREEDY, top_logprobs=20)


@dataclass
class Senses:
    """Benches with the model and a projector of a kind, made when first asked for."""

    model: Model
    log: LlamaLog
    folder: Path
    files: MediaFiles
    stack: ExitStack

    def projector(self, kind: Kind) -> Projector:
        path = self.folder / f"{kind}.gguf"
        if not path.exists():
            write_tiny_projector(path, kind)
        projector = Projector(self.model, exact(mmproj_path=str(path)), self.log)
        self.stack.callback(projector.close)
        return projector

    def bench(self, kind: Kind = "mlp", **options: object) -> EngineBench:
        bench = EngineBench(self.model, self.log, exact(**options), self.projector(kind))
        self.stack.callback(bench.close)
        return checked(bench)

    def image(self, pixels: np.ndarray, at: int = AT) -> tuple[Medium, ...]:
        return (self.files.image(pixels, at=at),)


def exact(**fields: object) -> EngineOptions:
    """Options under which splitting batches changes nothing."""
    settings = {
        "slots": 4,
        "threads": 1,
        "cache_type": "f32",
        "flash_attention": "off",
        "gpu_layers": 0,
    }
    return EngineOptions(model_path="", **(settings | fields))  # type: ignore[arg-type]  # of any test


@pytest.fixture(scope="module")
def loaded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Model, LlamaLog, Path]]:
    folder = tmp_path_factory.mktemp("media")
    log = start_backend()
    path = write_tiny_gguf(folder / "tiny.gguf")
    model = Model(EngineOptions(model_path=str(path)), log)
    yield model, log, folder
    model.close()


@pytest.fixture
def senses(loaded: tuple[Model, LlamaLog, Path]) -> Iterator[Senses]:
    model, log, folder = loaded
    files = MediaFiles()
    with ExitStack() as stack:
        stack.callback(files.close)
        yield Senses(model, log, folder, files, stack)


def seen(bench: EngineBench, media: tuple[Medium, ...], **fields: object) -> Heard:
    return bench.call(PROMPT, media=media, **({"sampling": GREEDY, "max_tokens": 24} | fields))


def cached(heard: Heard) -> int:
    assert heard.ended is not None
    return heard.ended.usage.cached_tokens


def agree(one: Heard, other: Heard) -> bool:
    """Whether the same may come first, but for what batches of other shapes change."""
    first, second = (
        {top.token_id: top.logprob for top in heard.logprobs[0].top} for heard in (one, other)
    )
    both = first.keys() & second.keys()
    return len(both) > 15 and all(abs(first[token] - second[token]) < 1e-3 for token in both)


@pytest.mark.parametrize("kind", ["mlp", "gemma3"])
def test_the_same_image_gives_the_same_answer_and_comes_from_the_cache(
    senses: Senses, kind: Kind
) -> None:
    bench = senses.bench(kind)
    first = seen(bench, senses.image(CAT), sampling=ALL_LOGPROBS)
    again = seen(bench, senses.image(CAT), sampling=ALL_LOGPROBS)
    assert first.accepted is not None
    assert again.token_ids == first.token_ids
    assert cached(first) == 0
    assert cached(again) == first.accepted.prompt_tokens - 1
    check_idle(bench)


@pytest.mark.parametrize("kind", ["mlp", "gemma3"])
def test_a_shared_image_is_as_good_as_one_that_was_decoded(senses: Senses, kind: Kind) -> None:
    alone = seen(senses.bench(kind, prefix_cache="off"), senses.image(CAT), sampling=ALL_LOGPROBS)
    bench = senses.bench(kind)
    seen(bench, senses.image(CAT), sampling=ALL_LOGPROBS)
    shared = seen(bench, senses.image(CAT), sampling=ALL_LOGPROBS)
    assert shared.token_ids == alone.token_ids
    assert agree(shared, alone)


@pytest.mark.parametrize("kind", ["mlp", "gemma3"])
def test_the_logits_are_those_of_llama_cpps_own_way(senses: Senses, kind: Kind) -> None:
    bench = senses.bench(kind)
    with_marker = PROMPT[:AT] + MARKER + PROMPT[AT:]
    path = senses.folder / f"{kind}.gguf"
    logits = reference_logits(senses.model, bench.context, path, with_marker, CAT)
    bench.context.forget(0)
    heard = seen(bench, senses.image(CAT), sampling=ALL_LOGPROBS)
    expected = logits - logits.max() - np.log(np.exp(logits - logits.max()).sum())
    for top in heard.logprobs[0].top:
        assert top.logprob == pytest.approx(float(expected[top.token_id]), abs=1e-5)


def test_an_image_is_as_many_tokens_as_the_projector_makes_of_it(senses: Senses) -> None:
    heard = seen(senses.bench(), senses.image(CAT))
    assert heard.accepted is not None
    text = seen(senses.bench(), ())
    assert text.accepted is not None
    assert heard.accepted.prompt_tokens == text.accepted.prompt_tokens + IMAGE_TOKENS


@pytest.mark.parametrize("kind", ["mlp", "gemma3"])
def test_another_image_gives_other_logits_and_shares_the_text_before_it_only(
    senses: Senses, kind: Kind
) -> None:
    bench = senses.bench(kind)
    cat = seen(bench, senses.image(CAT), sampling=ALL_LOGPROBS)
    dog = seen(bench, senses.image(DOG), sampling=ALL_LOGPROBS)
    none = seen(bench, (), sampling=ALL_LOGPROBS)
    assert not any(agree(*pair) for pair in ((cat, dog), (cat, none), (dog, none)))
    assert cached(dog) <= AT + len("<start_of_image>")
    alone = seen(senses.bench(kind, prefix_cache="off"), senses.image(DOG), sampling=ALL_LOGPROBS)
    assert agree(dog, alone)
    assert dog.token_ids == alone.token_ids


def test_two_images_are_told_apart_by_their_order(senses: Senses) -> None:
    bench = senses.bench()
    cat, dog = senses.files.image(CAT, at=4), senses.files.image(DOG, at=4)
    one = seen(bench, (cat, dog), sampling=ALL_LOGPROBS)
    other = seen(bench, (dog, cat), sampling=ALL_LOGPROBS)
    twice = seen(bench, (cat, cat), sampling=ALL_LOGPROBS)
    assert not agree(one, other)
    assert cached(other) <= 4
    assert cached(twice) <= 4 + IMAGE_TOKENS


def test_a_conversation_goes_on_behind_its_image_without_decoding_it_again(
    senses: Senses,
) -> None:
    bench = senses.bench()
    first = seen(bench, senses.image(CAT))
    asked = PROMPT + first.text + " and then?"
    later = bench.call(asked, media=senses.image(CAT), sampling=GREEDY, max_tokens=4)
    assert first.accepted is not None
    assert cached(later) >= first.accepted.prompt_tokens
    assert later.ended is not None
    assert later.ended.timings.encode_ms == 0


def test_an_image_that_two_calls_bring_at_once_is_encoded_for_one(senses: Senses) -> None:
    bench = senses.bench()
    for call in (1, 2):
        bench.submit(
            Submit(call=call, prompt=PROMPT, media=senses.image(CAT), sampling=GREEDY, max_tokens=9)
        )
    bench.finish()
    ended = [bench.heard[call].ended for call in (1, 2)]
    assert ended[0] is not None
    assert ended[1] is not None
    assert ended[0].timings.encode_ms > 0
    assert ended[1].timings.encode_ms == 0
    assert bench.heard[1].token_ids == bench.heard[2].token_ids


def test_what_was_seen_in_another_scope_is_not_shared(senses: Senses) -> None:
    bench = senses.bench()
    alice = seen(bench, senses.image(CAT), scope="alice")
    bob = seen(bench, senses.image(CAT), scope="bob")
    assert cached(bob) == 0
    assert bob.ended is not None
    assert bob.ended.timings.encode_ms > 0
    assert bob.token_ids == alice.token_ids


@pytest.mark.parametrize("kind", ["mlp", "gemma3"])
def test_running_streams_lose_no_token_and_get_the_same_ones(senses: Senses, kind: Kind) -> None:
    alone = senses.bench(kind, speculation="off").call("neighbour", sampling=GREEDY, max_tokens=60)
    bench = senses.bench(kind, speculation="off")
    bench.submit(Submit(call=1, prompt="neighbour", sampling=GREEDY, max_tokens=60))
    bench.turn(5)
    for call, pixels in ((2, CAT), (3, DOG), (4, picture(3))):
        bench.submit(
            Submit(
                call=call, prompt=PROMPT, media=senses.image(pixels), sampling=GREEDY, max_tokens=9
            )
        )
    done: list[int] = []
    while bench.serving.has_work:
        bench.turn()
        done.append(len(bench.heard[1].token_ids))
    assert bench.heard[1].token_ids == alone.token_ids
    # a turn that encodes or decodes an image has no token of the stream, the one behind it has
    gaps = [after - before for before, after in zip(done, done[2:], strict=False)]
    assert min(gaps[: done.index(60) - 1]) >= 1
    for call, pixels in ((2, CAT), (3, DOG), (4, picture(3))):
        expected = seen(senses.bench(kind), senses.image(pixels), max_tokens=9)
        assert bench.heard[call].token_ids == expected.token_ids


def test_an_image_larger_than_a_batch_is_decoded_in_several(senses: Senses) -> None:
    small = senses.bench(micro_batch_tokens=5)
    assert small.context.batch_tokens < IMAGE_TOKENS
    heard = seen(small, senses.image(CAT), sampling=ALL_LOGPROBS)
    whole = seen(senses.bench(), senses.image(CAT), sampling=ALL_LOGPROBS)
    assert heard.token_ids == whole.token_ids


def test_one_that_must_be_seen_at_once_is_refused_with_the_batch_it_needs(senses: Senses) -> None:
    refused = seen(senses.bench("gemma3", slots=1, micro_batch_tokens=3), senses.image(CAT)).refused
    assert refused is not None
    assert refused.code == RefusalCode.UNSUPPORTED
    assert "--micro-batch 4" in refused.message


def test_the_prompt_may_begin_and_end_with_an_image(senses: Senses) -> None:
    bench = senses.bench()
    heard = [
        bench.call("what", media=senses.image(CAT, at), sampling=GREEDY, max_tokens=9)
        for at in (0, 4, 4)
    ]
    assert all(len(one.token_ids) > 0 for one in heard)
    assert heard[1].token_ids == heard[2].token_ids
    # its last embedding has to give the first logits once more, and it is never cut
    assert cached(heard[2]) == 4


@pytest.mark.parametrize("turns", range(6))
def test_a_call_can_be_cancelled_at_any_moment_and_leaves_nothing_wrong_behind(
    senses: Senses, turns: int
) -> None:
    bench = senses.bench(micro_batch_tokens=6)
    bench.submit(
        Submit(call=1, prompt=PROMPT, media=senses.image(CAT), sampling=GREEDY, max_tokens=60)
    )
    bench.turn(turns)
    bench.serving.cancel(CancelCall(call=1))
    bench.turn()
    assert bench.heard[1].ended is not None
    check_idle(bench)
    again = seen(bench, senses.image(CAT))
    assert cached(again) not in range(AT + 1, AT + IMAGE_TOKENS)
    assert again.token_ids == seen(senses.bench(), senses.image(CAT)).token_ids


def test_calls_with_images_give_way_and_come_back_when_cells_are_short(senses: Senses) -> None:
    expected = [
        seen(senses.bench(), senses.image(picture(seed)), max_tokens=70).token_ids
        for seed in range(3)
    ]
    bench = senses.bench(unified_kv="on", context_tokens=256, host_cache_bytes=1 << 20)
    for call in range(3):
        media = senses.image(picture(call))
        bench.submit(Submit(call=call, prompt=PROMPT, media=media, sampling=GREEDY, max_tokens=70))
    bench.finish()
    assert [bench.heard[call].token_ids for call in range(3)] == expected
    check_idle(bench)


def test_drafting_from_a_prompt_with_an_image_changes_nothing(senses: Senses) -> None:
    fields = {"media": senses.image(CAT, 9), "sampling": GREEDY, "max_tokens": 60}
    texts = [
        senses.bench(speculation=mode).call("abcabcabcabcabc", **fields).token_ids
        for mode in ("off", "on")
    ]
    assert texts[0] == texts[1]


def test_a_generation_goes_on_elsewhere_with_its_image(senses: Senses) -> None:
    whole = seen(senses.bench(), senses.image(CAT))
    resumed = seen(senses.bench(), senses.image(CAT), resume_ids=tuple(whole.token_ids[:10]))
    assert resumed.token_ids == whole.token_ids[10:]


def test_a_moved_call_brings_its_image_with_it(senses: Senses) -> None:
    stays, goes = senses.bench(), senses.bench()
    takes = senses.bench(host_cache_bytes=1 << 24)
    whole = seen(stays, senses.image(CAT))
    goes.submit(
        Submit(call=1, prompt=PROMPT, media=senses.image(CAT), sampling=GREEDY, max_tokens=24)
    )
    while len(goes.heard[1].token_ids) < 10:
        goes.turn()
    state = os.memfd_create("state")
    path = f"/proc/{os.getpid()}/fd/{state}"
    sent = goes.serving.moved(ExportSequence(call=2, target=1, path=path, most_bytes=1 << 30))
    assert isinstance(sent, Exported)
    got = takes.serving.moved(
        ImportSequence(
            call=3, scope="", token_ids=sent.token_ids, path=path, size_bytes=sent.size_bytes
        )
    )
    os.close(state)
    assert isinstance(got, Imported)
    resumed = seen(takes, senses.image(CAT), resume_ids=tuple(goes.heard[1].token_ids))
    assert goes.heard[1].token_ids + resumed.token_ids == whole.token_ids
    assert resumed.ended is not None
    assert resumed.ended.timings.encode_ms == 0
    goes.finish()


def test_dry_penalties_look_past_the_image(senses: Senses) -> None:
    heard = seen(senses.bench(), senses.image(CAT), sampling=replace(GREEDY, dry_multiplier=0.8))
    assert heard.ended is not None


def test_a_sound_is_heard_and_shared(senses: Senses) -> None:
    bench = senses.bench("ultravox")
    high, low = (senses.files.sound(tone(hertz), at=AT) for hertz in (880.0, 220.0))
    first = seen(bench, (high,), sampling=ALL_LOGPROBS)
    again = seen(bench, (high,), sampling=ALL_LOGPROBS)
    other = seen(bench, (low,), sampling=ALL_LOGPROBS)
    assert again.token_ids == first.token_ids
    assert first.accepted is not None
    assert first.accepted.prompt_tokens > SOUND_TOKENS
    assert cached(again) == first.accepted.prompt_tokens - 1
    assert not agree(other, first)


def refusal(bench: EngineBench, media: tuple[Medium, ...], prompt: str = PROMPT) -> tuple[int, str]:
    refused = bench.call(prompt, media=media, max_tokens=1).refused
    assert refused is not None
    return refused.code, refused.message


@pytest.mark.parametrize("kind", ["mlp", "ultravox"])
def test_what_the_model_cannot_take_is_refused_by_name(senses: Senses, kind: Kind) -> None:
    medium = senses.files.sound(tone(440.0), at=AT) if kind == "mlp" else senses.image(CAT)[0]
    code, message = refusal(senses.bench(kind), (medium,))
    assert code == RefusalCode.UNSUPPORTED
    assert message == f"this model takes no {'sounds' if kind == 'mlp' else 'images'}"


def test_a_model_without_a_projector_takes_text_only(
    senses: Senses, loaded: tuple[Model, LlamaLog, Path]
) -> None:
    bench = EngineBench(loaded[0], loaded[1], exact())
    senses.stack.callback(bench.close)
    code, message = refusal(bench, senses.image(CAT))
    assert (code, message) == (
        RefusalCode.UNSUPPORTED,
        "this model takes text only, no images or sounds",
    )


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        ({"at": 99}, RefusalCode.UNSUPPORTED, "a medium at 99"),
        ({"at": -1}, RefusalCode.UNSUPPORTED, "a medium at -1"),
        ({"width": 0}, RefusalCode.INVALID_MEDIA, "empty"),
        ({"height": 1 << 20}, RefusalCode.ENGINE_FAILED, "it has less than"),
        ({"path": "/nowhere"}, RefusalCode.ENGINE_FAILED, "No such file"),
    ],
)
def test_a_medium_that_is_none_is_refused_and_the_engine_lives_on(
    senses: Senses, change: dict[str, object], code: int, message: str
) -> None:
    bench = senses.bench()
    medium = replace(senses.image(CAT)[0], **change)
    refused = refusal(bench, (medium,))
    assert refused[0] == code
    assert message in refused[1]
    assert seen(bench, senses.image(CAT)).ended is not None


def test_a_prompt_of_token_ids_has_no_place_for_an_image(senses: Senses) -> None:
    refused = senses.bench().call((1, 2, 3), media=senses.image(CAT, 0), max_tokens=1).refused
    assert refused is not None
    assert (refused.code, refused.facts) == (RefusalCode.UNSUPPORTED, {"param": "messages"})


def test_images_count_against_the_context(senses: Senses) -> None:
    bench = senses.bench()
    media = senses.image(CAT, 0) * (bench.context.context_tokens // IMAGE_TOKENS)
    code, message = refusal(bench, media)
    assert code == RefusalCode.CONTEXT_TOO_LONG
    assert f"maximum context length is {bench.context.context_tokens} tokens" in message


def test_an_image_that_cannot_be_encoded_fails_its_call_alone(
    senses: Senses, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench = senses.bench()
    bench.submit(Submit(call=1, prompt="neighbour", sampling=GREEDY, max_tokens=20))

    def fail(*_: object) -> None:
        raise ValueError("no luck")

    monkeypatch.setattr(Projector, "embeddings", fail)
    heard = seen(bench, senses.image(CAT))
    assert heard.failed is not None
    assert "no luck" in heard.failed.message
    assert len(bench.heard[1].token_ids) == 20
    check_idle(bench)


def test_embeddings_that_were_not_used_the_longest_give_way(
    senses: Senses, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.zeros((IMAGE_TOKENS, 32), dtype=np.float32)
    monkeypatch.setattr("agent.engine.media.MAX_KEPT_BYTES", 2 * rows.nbytes)
    media = Media(senses.projector("mlp"), most_whole=512)
    for name in (b"a", b"b"):
        media.keep(name, rows)
    assert media.kept(b"a") is not None
    media.keep(b"c", rows)
    assert [media.kept(name) is not None for name in (b"a", b"b", b"c")] == [True, False, True]


@pytest.mark.parametrize("shape", [(1, 1), (1, 200), (200, 1), (2000, 7)])
def test_images_of_any_shape_are_taken(senses: Senses, shape: tuple[int, int]) -> None:
    height, width = shape
    heard = seen(senses.bench(), senses.image(picture(1, width=width, height=height)))
    assert heard.ended is not None


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: write_tiny_projector(path, model_width=64), "mismatch"),
        (write_tiny_gguf, "--mmproj"),
        (lambda path: path.write_bytes(b"GGUF" + bytes(100)), "--mmproj"),
        (lambda path: path.write_bytes(b"no GGUF"), "not a GGUF file"),
    ],
)
def test_a_file_that_is_no_projector_of_the_model_is_refused_with_the_reason(
    loaded: tuple[Model, LlamaLog, Path],
    tmp_path: Path,
    write: Callable[[Path], object],
    words: str,
) -> None:
    write(tmp_path / "file.gguf")
    options = exact(mmproj_path=str(tmp_path / "file.gguf"))
    with pytest.raises(ModelRejected, match=words):
        Projector(loaded[0], options, loaded[1])


def test_a_model_that_places_images_in_two_dimensions_is_refused_for_now(
    senses: Senses, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llama_cpp.mtmd_cpp.mtmd_decode_use_mrope", lambda _: True)
    with pytest.raises(ModelRejected, match="M-RoPE"):
        senses.projector("mlp")


def test_a_long_sound_is_encoded_piece_by_piece_each_as_it_is_alone(senses: Senses) -> None:
    projector = senses.projector("ultravox")
    parts = (b"hear", Sound(tone(300.0, seconds=70.0)), b"?")
    pieces = projector.pieces(parts)
    assert [piece.count for piece in pieces if piece.tokens is None] == [SOUND_TOKENS] * 3
    in_order = [projector.embeddings(parts, pieces, index) for index in (1, 2, 3)]
    backwards = [projector.embeddings(parts, pieces, index) for index in (3, 2, 1)]
    assert all((one == other).all() for one, other in zip(in_order, backwards[::-1], strict=True))
    assert (in_order[0] != in_order[2]).any()


@pytest.mark.parametrize(
    ("kind", "modalities", "rate"),
    [("mlp", ("vision",), 0), ("ultravox", ("audio",), 16_000)],
)
def test_the_facts_name_what_a_prompt_may_hold(
    senses: Senses, kind: Kind, modalities: tuple[str, ...], rate: int
) -> None:
    facts = senses.bench(kind).facts
    assert (facts.modalities, facts.audio_sample_rate) == (modalities, rate)
    assert facts.projector_digest


def test_counting_needs_no_pixels_and_encoding_the_same_ones_gives_the_same_embeddings(
    senses: Senses,
) -> None:
    projector = senses.projector("mlp")
    parts = (b"a", Image(CAT), b"b", Image(DOG))
    pieces = projector.pieces(parts)
    assert [piece.count for piece in pieces] == [1, IMAGE_TOKENS, 1, IMAGE_TOKENS]
    assert [piece.part for piece in pieces if piece.tokens is None] == [1, 3]
    rows = [projector.embeddings(parts, pieces, index) for index in (1, 3, 1)]
    assert (rows[0] == rows[2]).all()
    assert (rows[0] != rows[1]).any()


def test_text_around_an_image_is_tokenised_as_it_is_alone(senses: Senses) -> None:
    special = tokens().index("<|im_start|>")
    (piece, _) = senses.projector("mlp").pieces((b"<|im_start|>hello", Image(CAT)))
    assert piece.tokens is not None
    assert piece.tokens.tolist() == [
        special,
        *senses.model.vocabulary.tokenize("hello").tolist(),
    ]
