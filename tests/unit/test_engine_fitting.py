"""The arithmetic of memory on known models, and what is chosen or refused for which machine."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from agent.engine.loading.fitting import (
    LEAST_TOKENS,
    Fit,
    Machine,
    Memory,
    fit,
    usable_gpu,
    usable_host,
)
from agent.engine.loading.gguf_file import GgufHeader, Tensor, read_gguf
from agent.engine.loading.memory_needs import GIB, KIB, MIB, Wanted, needs
from agent.engine.loading.model_shape import LayerShape, ModelShape, shape_of
from agent.errors import ModelRejected, ModelUnusable
from tests.support import shaped_gguf

PLAN = Wanted(slots=1, context_tokens=4096, batch_tokens=512, micro_batch_tokens=512, gpu_layers=0)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ModelShape]:
    folder = tmp_path_factory.mktemp("models")
    llama = shaped_gguf.llama
    paths = {
        "llama 8b": llama(folder / "8b.gguf"),
        "llama 70b": llama(folder / "70b.gguf", width=8192, layers=80, heads=64, hidden=28672),
        "gemma3 4b": shaped_gguf.gemma3(folder / "gemma.gguf"),
        "mamba 130m": shaped_gguf.mamba(folder / "mamba.gguf"),
        "deepseek2 lite": shaped_gguf.deepseek2_lite(folder / "deepseek.gguf"),
        "granite hybrid": shaped_gguf.granite_hybrid(folder / "granite.gguf"),
    }
    return {name: shape_of(read_gguf(path)) for name, path in paths.items()}


@pytest.mark.parametrize(
    ("name", "cache_type", "bytes_a_token"),
    [
        ("llama 8b", "f16", 128 * KIB),
        ("llama 8b", "f32", 256 * KIB),
        ("llama 8b", "q8_0", 68 * KIB),
        ("llama 70b", "f16", 320 * KIB),
        ("gemma3 4b", "f16", 136 * KIB),
        ("deepseek2 lite", "f16", 27 * 576 * 2),
        ("granite hybrid", "f16", 4 * 2 * 512 * 2),
        ("mamba 130m", "f16", 0),
    ],
)
def test_a_token_of_cache_costs_what_is_known_of_the_model(
    models: dict[str, ModelShape], name: str, cache_type: str, bytes_a_token: int
) -> None:
    short, long = (
        needs(models[name], replace(PLAN, context_tokens=tokens, cache_type=cache_type))[0].cache
        for tokens in (4096, 8192)
    )
    assert (long - short) / 4096 == bytes_a_token


@pytest.mark.parametrize(
    ("unified", "sequences"), [(False, 2), (True, 30)], ids=["streams", "unified"]
)
def test_reduced_rows_take_four_times_the_room_for_each_sequence(
    models: dict[str, ModelShape], unified: bool, sequences: int
) -> None:
    shape = models["llama 8b"]
    plan = replace(PLAN, slots=2, unified=unified, idle_sequences=28 if unified else 0)
    whole = needs(shape, plan)[0].process
    reduced = needs(shape, replace(plan, reduces_rows=True))[0].process
    assert reduced - whole == shape.vocabulary * (16 * sequences - 4 * 2)


@pytest.mark.parametrize(
    ("name", "bytes_a_sequence"),
    [
        ("mamba 130m", 24 * 4 * (3 * 1536 + 16 * 1536)),
        ("granite hybrid", 36 * 4 * (3 * (3072 + 2 * 128) + 128 * 3072)),
        ("llama 8b", 0),
    ],
)
def test_a_sequence_of_a_recurrent_model_costs_its_state(
    models: dict[str, ModelShape], name: str, bytes_a_sequence: int
) -> None:
    few = needs(models[name], replace(PLAN, slots=2, unified=True))[0].cache
    many = needs(models[name], replace(PLAN, slots=2, unified=True, idle_sequences=28))[0].cache
    assert many - few == 28 * bytes_a_sequence


def test_windows_are_saved_where_the_cache_keeps_no_more(models: dict[str, ModelShape]) -> None:
    """Of 34 layers 29 see 1024 tokens; their cache has room for a batch beside."""
    plan = replace(PLAN, context_tokens=32768, whole_windows=False)
    a_token_a_layer = 2 * 4 * 256 * 2
    expected = a_token_a_layer * (5 * 32768 + 29 * (1024 + 512))
    assert needs(models["gemma3 4b"], plan)[0].cache == expected
    whole = needs(models["gemma3 4b"], replace(plan, whole_windows=True))[0].cache
    assert whole == a_token_a_layer * 34 * 32768


@pytest.mark.parametrize(
    ("slots", "asked", "unified", "cells"),
    [(1, 4096, False, 4096), (3, 1000, False, 3 * 512), (4, 1, False, 1024), (3, 1000, True, 1024)],
)
def test_cells_are_padded_as_llama_cpp_pads_them(
    models: dict[str, ModelShape], slots: int, asked: int, unified: bool, cells: int
) -> None:
    plan = replace(PLAN, slots=slots, context_tokens=asked, unified=unified)
    assert needs(models["llama 8b"], plan)[0].cache == cells * 128 * KIB


@pytest.mark.parametrize(
    ("name", "gib"),
    [("llama 8b", 4.2), ("llama 70b", 37.0), ("gemma3 4b", 2.35), ("deepseek2 lite", 10.6)],
)
def test_weights_are_the_tensors_bytes(
    models: dict[str, ModelShape], name: str, gib: float
) -> None:
    assert models[name].weight_bytes / GIB == pytest.approx(gib, rel=0.01)
    assert needs(models[name], PLAN)[0].weights == models[name].weight_bytes


def test_layers_on_a_gpu_leave_main_memory(models: dict[str, ModelShape]) -> None:
    shape = models["llama 8b"]
    on_host = needs(shape, PLAN)[0]
    host, gpu = needs(shape, replace(PLAN, gpu_layers=17))
    assert host.weights + gpu.weights == on_host.weights
    assert host.cache == gpu.cache == on_host.cache // 2
    assert gpu.weights == shape.output_bytes + 16 * shape.layers[0].weight_bytes
    host, gpu = needs(shape, replace(PLAN, gpu_layers=999))
    assert host.weights == shape.input_bytes
    assert (host.cache, gpu.cache) == (0, on_host.cache)
    assert host.computing < on_host.computing / 4


def test_an_output_that_shares_the_embedding_is_on_a_gpu_a_second_time(
    models: dict[str, ModelShape],
) -> None:
    shape = models["gemma3 4b"]
    host, gpu = needs(shape, replace(PLAN, gpu_layers=999))
    assert host.weights + gpu.weights > shape.weight_bytes
    assert host.weights == shape.tied_bytes


# --- choosing ---


def machine(host: float, *gpus: float, total: float = 512) -> Machine:
    """GiB that are free."""
    return Machine(
        host=Memory(free=int(host * GIB), total=int(total * GIB)),
        gpus=tuple(Memory(free=int(gpu * GIB), total=80 * GIB) for gpu in gpus),
    )


@pytest.mark.parametrize(
    ("name", "where", "slots", "share", "layers"),
    [
        ("llama 8b", machine(256), 4, 131072, 0),
        ("llama 8b", machine(16), 4, 18944, 0),
        ("llama 8b", machine(8), 4, 4608, 0),
        ("llama 8b", machine(6.5), 2, 4352, 0),
        ("llama 8b", machine(6), 1, 4096, 0),
        ("llama 8b", machine(32, 80), 4, 131072, 33),
        ("llama 8b", machine(32, 16), 4, 21760, 33),
        ("llama 8b", machine(32, 6), 4, 4096, 28),
        ("llama 70b", machine(64), 4, 18176, 0),
        ("llama 70b", machine(64, 24, 24), 4, 6912, 81),
        ("mamba 130m", machine(1), 4, 1048576, 0),
    ],
)
def test_what_is_left_open_is_chosen_to_fit(
    models: dict[str, ModelShape], name: str, where: Machine, slots: int, share: int, layers: int
) -> None:
    chosen = fit(models[name], Wanted(), where)
    assert (chosen.slots, chosen.context_tokens // chosen.slots, chosen.gpu_layers) == (
        slots,
        share,
        layers,
    )


def test_what_is_fixed_is_kept(models: dict[str, ModelShape]) -> None:
    wanted = Wanted(
        slots=7, context_tokens=7000, batch_tokens=100, micro_batch_tokens=50, gpu_layers=3
    )
    chosen = fit(models["llama 8b"], wanted, machine(64, 24))
    assert (chosen.slots, chosen.context_tokens) == (7, 7000)
    assert (chosen.batch_tokens, chosen.micro_batch_tokens, chosen.gpu_layers) == (100, 50, 3)


def test_batches_shrink_before_a_layer_leaves_the_gpu(models: dict[str, ModelShape]) -> None:
    wanted = Wanted(slots=1)
    shape = models["llama 8b"]
    tight = replace(
        wanted, context_tokens=4096, micro_batch_tokens=128, batch_tokens=128, gpu_layers=33
    )
    need = needs(shape, tight)[1].total
    free = next(size for size in range(need, 2 * need, MIB) if usable_gpu(size) >= need)
    chosen = fit(shape, wanted, machine(64, free / GIB))
    assert (chosen.gpu_layers, chosen.micro_batch_tokens) == (33, 128)


@given(
    host=st.floats(0.5, 200),
    gpu=st.none() | st.floats(0.5, 100),
    slots=st.integers(0, 16),
    context=st.just(0) | st.integers(64, 300_000),
    name=st.sampled_from(("llama 8b", "llama 70b", "gemma3 4b", "granite hybrid")),
)
def test_what_is_chosen_always_fits_and_what_is_refused_has_figures(
    models: dict[str, ModelShape],
    host: float,
    gpu: float | None,
    slots: int,
    context: int,
    name: str,
) -> None:
    where = machine(host, *([gpu] if gpu else []))
    wanted = Wanted(slots=slots, context_tokens=context)
    try:
        chosen = fit(models[name], wanted, where)
    except ModelUnusable as refusal:
        text = str(refusal)
    else:
        _assert_fits(chosen, host, gpu)
        assert chosen.slots == slots or not slots
        assert chosen.context_tokens == context or not context
        assert context or chosen.context_tokens >= chosen.slots * LEAST_TOKENS
        return
    assert "it needs" in text
    assert "Use " in text


def _assert_fits(chosen: Fit, host: float, gpu: float | None) -> None:
    assert chosen.host.total <= usable_host(int(host * GIB))
    assert chosen.gpus.total <= (usable_gpu(int(gpu * GIB)) if gpu else 0)


def test_a_gpu_without_memory_of_its_own_takes_the_host_s(models: dict[str, ModelShape]) -> None:
    shared = replace(machine(16, 16), gpus_share_host=True)
    chosen = fit(models["llama 8b"], Wanted(), shared)
    assert chosen.gpu_layers == 33
    assert chosen.host.total + chosen.gpus.total <= usable_host(16 * GIB)


@pytest.mark.parametrize(
    "where",
    [
        Machine(host=Memory(free=None)),
        Machine(host=Memory(free=64 * GIB), gpus=(Memory(free=None),)),
    ],
    ids=["main memory", "a GPU's memory"],
)
def test_memory_that_cannot_be_read_is_no_reason_to_refuse_or_to_take_everything(
    models: dict[str, ModelShape], where: Machine
) -> None:
    chosen = fit(models["llama 8b"], Wanted(), where)
    assert chosen.context_tokens == 4 * 4096
    assert fit(models["llama 8b"], Wanted(context_tokens=8192), where).context_tokens == 8192


# --- refusing ---


def refusal(shape: ModelShape, wanted: Wanted, where: Machine) -> ModelUnusable:
    with pytest.raises(ModelUnusable) as raised:
        fit(shape, wanted, where)
    return raised.value


def test_a_context_too_large_is_refused_with_the_one_that_fits(
    models: dict[str, ModelShape],
) -> None:
    wanted = Wanted(slots=4, context_tokens=131072)
    error = refusal(models["llama 8b"], wanted, machine(16))
    text = str(error)
    assert "weights 4.2 GiB, cache 16.0 GiB (4 slots of 32768 tokens)" in text
    assert "16.0 GiB are free, of which 2.0 GiB are for others" in text
    assert "Use --context 75776" in text
    assert fit(models["llama 8b"], replace(wanted, context_tokens=75776), machine(16))


def test_too_many_slots_are_refused_with_a_number_that_fits(models: dict[str, ModelShape]) -> None:
    wanted = Wanted(slots=64)
    text = str(refusal(models["llama 8b"], wanted, machine(7)))
    assert "64 slots of 512 tokens" in text
    assert "Use --slots 16, or free some memory" in text
    assert fit(models["llama 8b"], replace(wanted, slots=16), machine(7))


def test_a_shortage_of_the_moment_is_tried_again_and_a_small_machine_is_not(
    models: dict[str, ModelShape],
) -> None:
    now = refusal(models["llama 8b"], Wanted(), machine(4, total=64))
    assert not isinstance(now, ModelRejected)
    never = refusal(models["llama 70b"], Wanted(), machine(4, total=32))
    assert isinstance(never, ModelRejected)
    assert "Use a smaller or more quantized model" in str(never)


def test_a_gpu_that_is_too_small_for_the_layers_asked_for_is_named(
    models: dict[str, ModelShape],
) -> None:
    text = str(refusal(models["llama 70b"], Wanted(gpu_layers=81), machine(64, 24)))
    assert "of GPU memory" in text
    assert "24.0 GiB are free, of which 1.0 GiB are for others" in text


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (Wanted(slots=300), "300 slots: this llama.cpp serves 1 to 256"),
        (Wanted(slots=64, context_tokens=100), "less than 2: use a larger --context"),
    ],
)
def test_what_no_machine_could_do_is_rejected(
    models: dict[str, ModelShape], wanted: Wanted, words: str
) -> None:
    error = refusal(models["llama 8b"], wanted, machine(512))
    assert isinstance(error, ModelRejected)
    assert words in str(error)


# --- odd models ---


def header(architecture: str, layers: int, tensors: dict[str, int], **facts: object) -> GgufHeader:
    """Facts without their prefix, dots written as two underscores."""
    metadata: dict[str, object] = {
        "context_length": 4096,
        "embedding_length": 64,
        "block_count": layers,
        "attention.head_count": 4,
        **{key.replace("__", "."): value for key, value in facts.items()},
    }
    named = {f"{architecture}.{key}": value for key, value in metadata.items()}
    return GgufHeader(
        metadata={"general.architecture": architecture, **named},  # type: ignore[dict-item]  # a test's own literals
        counts={},
        tensors=tuple(Tensor(name, (1,), size) for name, size in tensors.items()),
    )


def attention(layers: int) -> dict[str, int]:
    return {f"blk.{layer}.attn_k.weight": 10 for layer in range(layers)}


def cached(shape: ModelShape) -> list[int]:
    return [layer.keys + layer.values for layer in shape.layers]


def test_layers_of_unequal_heads_are_counted_one_by_one() -> None:
    shape = shape_of(header("llama", 3, attention(3), attention__head_count_kv=(4, 1, 0)))
    assert cached(shape) == [128, 32, 0]


def test_layers_that_share_a_cache_have_none() -> None:
    shape = shape_of(header("gemma4", 6, attention(6), attention__shared_kv_layers=2))
    assert [bool(size) for size in cached(shape)] == [True] * 4 + [False] * 2
    shape = shape_of(header("gemma3n", 30, attention(30)))
    assert sum(map(bool, cached(shape))) == 20


def test_layers_that_predict_further_tokens_have_no_cache() -> None:
    tensors = attention(3) | {"blk.2.nextn.eh_proj.weight": 5}
    assert cached(shape_of(header("glm4moe", 3, tensors))) == [128, 128, 0]


def test_windowed_layers_may_have_heads_of_their_own() -> None:
    shape = shape_of(
        header(
            "gemma4",
            2,
            attention(2),
            attention__sliding_window=512,
            attention__sliding_window_pattern=(True, False),
            attention__key_length=32,
            attention__value_length=32,
            attention__key_length_swa=16,
            attention__value_length_swa=16,
        )
    )
    assert shape.layers == (
        LayerShape(weight_bytes=10, keys=64, values=64, windowed=True),
        LayerShape(weight_bytes=10, keys=128, values=128),
    )


def test_a_window_of_an_unknown_pattern_is_not_believed() -> None:
    shape = shape_of(header("phi3", 4, attention(4), attention__sliding_window=2047))
    assert not any(layer.windowed for layer in shape.layers)
    assert shape.window == 0


@pytest.mark.parametrize(
    ("tensor", "facts", "numbers"),
    [
        ("time_mix_w1.weight", {"wkv__head_size": 64}, 2 * 64 + 64 * 64),
        ("shortconv.conv.weight", {"shortconv__l_cache": 3}, 64 * 2),
        ("ssm_a", {"kda__head_dim": 16, "ssm__conv_kernel": 4}, 9 * 4 * 16 + 16 * 16 * 4),
    ],
    ids=["RWKV", "LFM2", "Kimi"],
)
def test_recurrent_layers_are_told_by_their_tensors(
    tensor: str, facts: dict[str, int], numbers: int
) -> None:
    shape = shape_of(header("some", 1, {f"blk.0.{tensor}": 1}, **facts))
    assert shape.layers[0].state == numbers
    assert cached(shape) == [0]


@pytest.mark.parametrize("missing", ["block_count", "embedding_length", "context_length"])
def test_a_file_that_is_no_language_model_is_rejected(missing: str) -> None:
    with pytest.raises(ModelRejected, match="no language model"):
        shape_of(header("clip", 2, {}, **{missing: 0}))


def test_a_fit_is_told_with_what_it_takes(models: dict[str, ModelShape]) -> None:
    chosen: Fit = fit(models["llama 8b"], Wanted(), machine(64))
    parts = chosen.host
    assert parts.total == parts.weights + parts.cache + parts.computing + parts.process
