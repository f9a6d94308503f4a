"""LoRA adapters: each call gets what its own adapters say, whoever decodes beside it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.chat.output import OutputFormat
from agent.commands.served import resume_key
from agent.engine.frames import EngineOptions, Sampling, Submit
from agent.engine.llama.adapters import Adapters
from agent.engine.llama.log import LlamaLog, start_backend
from agent.engine.llama.model import Model
from agent.engine.query_frames import ExportSequence, QueryRefused
from agent.errors import ModelRejected
from protocol.refusals import RefusalCode
from tests.support.engine_bench import EngineBench
from tests.support.engine_calls import Heard
from tests.support.engine_invariants import check_idle, checked
from tests.support.tiny_gguf import write_tiny_gguf
from tests.support.tiny_lora_gguf import write_tiny_lora

GREEDY = Sampling(temperature=0.0, ignore_eos=True)
PROMPT = tuple(range(65, 91)) * 4
SETS: tuple[tuple[tuple[str, float], ...], ...] = (
    (),
    (("poet", 1.0),),
    (("poet", 0.5),),
    (("clerk", 1.0),),
    (("clerk", 1.0), ("poet", 1.0)),
)

NewBench = Callable[..., EngineBench]


@pytest.fixture(scope="module")
def log() -> LlamaLog:
    return start_backend()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("adapters")
    write_tiny_lora(folder / "poet.gguf", seed=1)
    write_tiny_lora(folder / "clerk.gguf", seed=2)
    return folder


@pytest.fixture(scope="module")
def model(log: LlamaLog, folder: Path) -> Iterator[Model]:
    path = write_tiny_gguf(folder / "tiny.gguf")
    model = Model(EngineOptions(model_path=str(path)), log)
    yield model
    model.close()


@pytest.fixture(scope="module")
def files(folder: Path) -> tuple[tuple[str, str], ...]:
    return tuple((name, str(folder / f"{name}.gguf")) for name in ("poet", "clerk"))


@pytest.fixture
def new_bench(
    model: Model, log: LlamaLog, files: tuple[tuple[str, str], ...]
) -> Iterator[NewBench]:
    made: list[EngineBench] = []

    def new(**fields: object) -> EngineBench:
        settings = {"slots": 4, "threads": 1, "cache_type": "f32", "flash_attention": "off"}
        settings |= {"adapters": files}
        options = EngineOptions(model_path="", **(settings | fields))  # type: ignore[arg-type]  # of any test
        made.append(checked(EngineBench(model, log, options)))
        return made[-1]

    yield new
    for bench in made:
        check_idle(bench)
        bench.close()


@pytest.fixture
def bench(new_bench: NewBench) -> EngineBench:
    return new_bench()


def ask(bench: EngineBench, adapters: tuple[tuple[str, float], ...]) -> Heard:
    return bench.call(PROMPT, sampling=GREEDY, max_tokens=24, adapters=adapters)


def cached(heard: Heard) -> int:
    assert heard.ended is not None
    return heard.ended.usage.cached_tokens


def test_adapters_and_their_scales_change_what_is_said(new_bench: NewBench) -> None:
    plain = new_bench(prefix_cache="off")
    said = [tuple(ask(plain, adapters).token_ids) for adapters in SETS]
    assert len(set(said)) == len(SETS)
    assert tuple(ask(plain, ()).token_ids) == said[0]


@pytest.mark.parametrize("unified", ["off", "on"], ids=["streams", "unified"])
def test_calls_of_all_sets_at_once_get_what_they_get_alone(
    new_bench: NewBench, unified: str
) -> None:
    plain = new_bench(prefix_cache="off", slots=1)
    bench = new_bench(unified_kv=unified, slots=10, micro_batch_tokens=32)
    for number, adapters in enumerate(SETS):
        for call in (number, number + 10):
            bench.submit(
                Submit(call=call, prompt=PROMPT, sampling=GREEDY, max_tokens=24, adapters=adapters)
            )
        bench.turn()
    bench.finish()
    for number, adapters in enumerate(SETS):
        alone = ask(plain, adapters).token_ids
        assert bench.heard[number].token_ids == alone
        assert bench.heard[number + 10].token_ids == alone


def test_a_prefix_is_shared_within_a_set_only_in_whatever_order_it_is_named(
    bench: EngineBench,
) -> None:
    assert [cached(ask(bench, adapters)) for adapters in SETS] == [0] * len(SETS)
    again = (("poet", 1.0), ("clerk", 1.0))
    assert cached(ask(bench, again)) == len(PROMPT) - 1


def test_an_adapter_of_scale_zero_is_none(bench: EngineBench) -> None:
    first = ask(bench, ())
    again = ask(bench, (("poet", 0.0),))
    assert again.token_ids == first.token_ids
    assert cached(again) == len(PROMPT) - 1


def test_calls_of_different_sets_take_turns_and_never_share_a_batch(bench: EngineBench) -> None:
    for call, adapters in enumerate(SETS[:4]):
        bench.submit(
            Submit(
                call=call,
                prompt=PROMPT,
                sampling=GREEDY,
                max_tokens=24,
                speculate=False,
                adapters=adapters,
            )
        )
    bench.finish()
    calls = [[tokens.call for tokens in step.tokens] for step in bench.heard.steps]
    spoke = [call for (call,) in filter(None, calls)]
    assert spoke == [0, 1, 2, 3] * 24


def test_two_of_one_set_advance_as_fast_as_one(bench: EngineBench) -> None:
    for call, adapters in enumerate((SETS[1], SETS[1], SETS[3])):
        prompt = PROMPT[call:]  # nothing to wait for
        bench.submit(
            Submit(
                call=call,
                prompt=prompt,
                sampling=GREEDY,
                max_tokens=24,
                speculate=False,
                adapters=adapters,
            )
        )
    bench.finish()
    calls = [tuple(tokens.call for tokens in step.tokens) for step in bench.heard.steps]
    assert [one for one in calls if one] == [(0, 1), (2,)] * 24


def test_what_adapters_made_is_not_moved_elsewhere(bench: EngineBench, tmp_path: Path) -> None:
    bench.submit(Submit(call=1, prompt=PROMPT, sampling=GREEDY, max_tokens=24, adapters=SETS[1]))
    bench.turn(2)
    command = ExportSequence(call=9, target=1, path=str(tmp_path / "state"), most_bytes=1 << 30)
    refused = bench.serving.moved(command)
    assert isinstance(refused, QueryRefused)
    assert "adapters" in refused.message
    bench.finish()


@pytest.mark.parametrize(
    ("adapters", "says"),
    [
        ((("singer", 1.0),), "'singer' is not loaded here; loaded are: poet, clerk"),
        ((("poet", 1e9),), "1000000000.0, allowed are -100 to 100"),
        ((("poet", float("nan")),), "allowed are"),
        ((("poet", 1.0), ("poet", 2.0)), "twice"),
    ],
)
def test_what_cannot_be_put_on_is_refused_with_what_can(
    bench: EngineBench, adapters: tuple[tuple[str, float], ...], says: str
) -> None:
    refused = ask(bench, adapters).refused
    assert refused is not None
    assert refused.code == RefusalCode.UNSUPPORTED
    assert refused.facts["param"] == "adapters"
    assert says in refused.message


def test_without_any_adapter_the_refusal_says_so(new_bench: NewBench) -> None:
    refused = ask(new_bench(adapters=()), SETS[1]).refused
    assert refused is not None
    assert "loaded are: none" in refused.message


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"width": 64}, "Was it made for this model"),
        ({"architecture": "gemma3"}, "arch mismatch"),
        ({"invoked_by": (3, 4)}, "activated LoRA"),
    ],
)
def test_an_adapter_that_cannot_act_on_the_model_is_said_to_be_so(
    model: Model, log: LlamaLog, tmp_path: Path, fields: dict[str, object], says: str
) -> None:
    path = write_tiny_lora(tmp_path / "other.gguf", **fields)  # type: ignore[arg-type]  # of the table
    with pytest.raises(ModelRejected, match=says):
        Adapters(model, (("other", str(path)),), log)


def test_a_model_is_no_adapter(model: Model, log: LlamaLog, folder: Path) -> None:
    with pytest.raises(ModelRejected, match="but got"):
        Adapters(model, (("other", str(folder / "tiny.gguf")),), log)


def test_agents_with_other_adapters_do_not_take_over_each_other_s_calls(
    new_bench: NewBench, folder: Path, tmp_path: Path
) -> None:
    def key(*names_and_files: tuple[str, Path]) -> str:
        adapters = tuple((name, str(file)) for name, file in names_and_files)
        facts = new_bench(adapters=adapters).facts
        assert [name for name, _ in facts.adapters] == [name for name, _ in names_and_files]
        return resume_key(facts, "", OutputFormat.of_template(""), "tiny")

    poet, clerk = folder / "poet.gguf", folder / "clerk.gguf"
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(poet.read_bytes())
    assert key(("a", poet), ("b", clerk)) == key(("b", clerk), ("a", copy))
    keys = {key(), key(("a", poet)), key(("b", poet)), key(("a", clerk))}
    assert len(keys) == 4
