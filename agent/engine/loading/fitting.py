"""How large a context, how many slots and how many GPU layers fit the memory there is. Pure.

What the user fixed is kept, or refused with the figures; the rest is chosen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from agent.engine.loading.memory_needs import GIB, MIB, PADDING, Need, Wanted, needs
from agent.engine.loading.model_shape import ModelShape
from agent.errors import ModelRejected, ModelUnusable

DEFAULT_SLOTS = 4
DEFAULT_MICRO_BATCH = 512
SMALLER_MICRO_BATCHES = (256, 128)
COMFORTABLE_TOKENS = 4096
"""A slot's context that is not given up for more slots, larger batches or more layers on a GPU."""
LEAST_TOKENS = 512
"""Nothing useful is done with less; the choice never goes below, a user may."""
MAX_CONTEXT_TOKENS = 2**31 - PADDING
"""llama.cpp's positions are of 32 bits."""
SPARE_SHARE = 8
"""One part in so many of what is free is left to others, up to the bounds below."""
MOST_SPARE_HOST_BYTES = 4 * GIB
MOST_SPARE_GPU_BYTES = GIB


class Memory(Struct, frozen=True, kw_only=True):
    """Bytes in one place. None: it does not say."""

    free: int | None
    total: int | None = None


class Machine(Struct, frozen=True, kw_only=True):
    """Where a model can be put. GPUs that have no memory of their own share the host's."""

    host: Memory
    gpus: tuple[Memory, ...] = ()
    gpus_share_host: bool = False


class Fit(Struct, frozen=True, kw_only=True):
    """What to load, and what it takes."""

    slots: int
    context_tokens: int
    """Of all slots together."""
    batch_tokens: int
    micro_batch_tokens: int
    gpu_layers: int
    host: Need
    gpus: Need


def fit(shape: ModelShape, wanted: Wanted, machine: Machine) -> Fit:
    """The best that fits, or `ModelUnusable` with figures and remedies: its child `ModelRejected`
    if it would not fit this machine were it empty."""
    _check(wanted)
    for least in _least_contexts(shape):
        for plan in _plans(shape, wanted, machine):
            found = _largest_context(shape, plan, machine, least)
            if found is not None:
                return _as_fit(shape, found)
        if wanted.context_tokens:
            break
    raise _refusal(shape, wanted, machine)


# --- choosing ---


def _check(wanted: Wanted) -> None:
    if wanted.slots > wanted.most_slots:
        raise ModelRejected(
            f"{wanted.slots} slots: this llama.cpp serves 1 to {wanted.most_slots} sequences at "
            f"once. Use --slots {wanted.most_slots} or fewer, and another agent for the rest."
        )
    if wanted.context_tokens and wanted.context_tokens < 2 * max(wanted.slots, 1):
        raise ModelRejected(
            f"A context of {wanted.context_tokens} tokens leaves each of {wanted.slots} slots less "
            f"than 2: use a larger --context or fewer --slots."
        )


def _least_contexts(shape: ModelShape) -> tuple[int, ...]:
    """A slot's context that a choice must reach, the better first."""
    return tuple(min(tokens, shape.trained_tokens) for tokens in (COMFORTABLE_TOKENS, LEAST_TOKENS))


def _plans(shape: ModelShape, wanted: Wanted, machine: Machine) -> Iterator[Wanted]:
    """Everything that could be done, the best first; only the context is left open."""
    for slots in _slot_choices(wanted):
        for gpu_layers in _layer_choices(shape, wanted, machine):
            for micro_batch in _micro_batch_choices(wanted):
                yield replace(
                    wanted,
                    slots=slots,
                    gpu_layers=gpu_layers,
                    micro_batch_tokens=micro_batch,
                    batch_tokens=wanted.batch_tokens or micro_batch,
                )


def _slot_choices(wanted: Wanted) -> tuple[int, ...]:
    if wanted.slots:
        return (wanted.slots,)
    fewer = [slots for slots in (DEFAULT_SLOTS, 2, 1) if slots <= wanted.most_slots]
    most = wanted.context_tokens // 2 or DEFAULT_SLOTS
    return tuple(slots for slots in fewer if slots <= most) or (1,)


def _layer_choices(shape: ModelShape, wanted: Wanted, machine: Machine) -> range | tuple[int]:
    everything = len(shape.layers) + 1
    if not machine.gpus:
        return (0,)
    if wanted.gpu_layers >= 0:
        return (min(wanted.gpu_layers, everything),)
    return range(everything, -1, -1)


def _micro_batch_choices(wanted: Wanted) -> tuple[int, ...]:
    if wanted.micro_batch_tokens:
        return (wanted.micro_batch_tokens,)
    first = min(DEFAULT_MICRO_BATCH, wanted.batch_tokens or DEFAULT_MICRO_BATCH)
    return (first, *(size for size in SMALLER_MICRO_BATCHES if size < first))


def _largest_context(
    shape: ModelShape, plan: Wanted, machine: Machine, least: int
) -> Wanted | None:
    """The plan with the largest context that fits, None if that is less than `least` a slot."""
    if plan.context_tokens:
        return plan if _fits(shape, plan, machine) else None
    if machine.host.free is None or any(gpu.free is None for gpu in machine.gpus):
        # nothing is known: neither refuse nor take everything
        share = min(shape.trained_tokens, COMFORTABLE_TOKENS)
        return replace(plan, context_tokens=plan.slots * share)
    most = min(shape.trained_tokens, MAX_CONTEXT_TOKENS // plan.slots)
    if _fits(shape, replace(plan, context_tokens=plan.slots * most), machine):
        return replace(plan, context_tokens=plan.slots * most)

    def padded(paddings: int) -> Wanted:
        return replace(plan, context_tokens=plan.slots * paddings * PADDING)

    low, high = -(-least // PADDING), -(-most // PADDING)
    if low >= high or not _fits(shape, padded(low), machine):
        return None
    while high - low > 1:  # low fits, high does not
        middle = (low + high) // 2
        low, high = (middle, high) if _fits(shape, padded(middle), machine) else (low, middle)
    return padded(low)


def _fits(shape: ModelShape, plan: Wanted, machine: Machine) -> bool:
    host, gpus = needs(shape, plan)
    on_host = host.total + (gpus.total if machine.gpus_share_host else 0)
    if machine.host.free is not None and on_host > usable_host(machine.host.free):
        return False
    if not machine.gpus or not gpus.total or any(gpu.free is None for gpu in machine.gpus):
        return True
    return _on_gpus(shape, machine, gpus) <= sum(usable_gpu(gpu.free or 0) for gpu in machine.gpus)


def _on_gpus(shape: ModelShape, machine: Machine, gpus: Need) -> int:
    """Each of several has its own buffers, and layers do not divide."""
    others = len(machine.gpus) - 1
    layer = max((layer.weight_bytes for layer in shape.layers), default=0)
    return gpus.total + others * (gpus.computing + layer)


def usable_host(free: int) -> int:
    """What may be taken of free main memory."""
    return free - min(free // SPARE_SHARE, MOST_SPARE_HOST_BYTES)


def usable_gpu(free: int) -> int:
    """What may be taken of a GPU's free memory."""
    return free - min(free // SPARE_SHARE, MOST_SPARE_GPU_BYTES)


def _as_fit(shape: ModelShape, plan: Wanted) -> Fit:
    host, gpus = needs(shape, plan)
    return Fit(
        slots=plan.slots,
        context_tokens=plan.context_tokens,
        batch_tokens=plan.batch_tokens,
        micro_batch_tokens=plan.micro_batch_tokens,
        gpu_layers=plan.gpu_layers,
        host=host,
        gpus=gpus,
    )


# --- refusing ---


def _refusal(shape: ModelShape, wanted: Wanted, machine: Machine) -> ModelUnusable:
    """The most modest plan's figures against what is free, and what would help."""
    *_, modest = _plans(shape, wanted, machine)
    share = min(LEAST_TOKENS, shape.trained_tokens)
    plan = replace(modest, context_tokens=wanted.context_tokens or modest.slots * share)
    empty = Machine(
        host=Memory(free=machine.host.total),
        gpus=tuple(Memory(free=gpu.total) for gpu in machine.gpus),
        gpus_share_host=machine.gpus_share_host,
    )
    kind = ModelUnusable if _fits(shape, plan, empty) else ModelRejected
    return kind(
        f"The model does not fit: {_figures(shape, plan, machine)}. "
        f"{_remedies(shape, wanted, machine)}"
    )


def _figures(shape: ModelShape, plan: Wanted, machine: Machine) -> str:
    host, gpus = needs(shape, plan)
    of = f"{plan.slots} slots of {plan.context_tokens // plan.slots} tokens"
    extra = plan.extra_host_bytes
    texts = [_figure("main memory", host, of, machine.host.free, usable_host, extra=extra)]
    if gpus.total:
        free = sum(gpu.free or 0 for gpu in machine.gpus)
        texts.append(_figure("GPU memory", gpus, of, free, usable_gpu))
    return "; ".join(texts)


def _figure(
    place: str,
    need: Need,
    of: str,
    free: int | None,
    usable: Callable[[int], int],
    *,
    extra: int = 0,
) -> str:
    parts = [
        f"weights {_gib(need.weights)}",
        f"cache {_gib(need.cache)} ({of})",
        f"computing {_gib(need.computing + need.process - extra)}",
    ]
    if extra:
        parts.append(f"host cache and other files {_gib(extra)}")
    text = f"it needs {_gib(need.total)} of {place} ({', '.join(parts)})"
    if free is None:
        return text
    return f"{text}, {_gib(free)} are free, of which {_gib(free - usable(free))} are for others"


def _remedies(shape: ModelShape, wanted: Wanted, machine: Machine) -> str:
    """The settings that would do, tried out, and the ones that always help."""
    found = []
    if wanted.context_tokens:
        open_context = replace(wanted, context_tokens=0)
        for plan in _plans(shape, open_context, machine):
            smaller = _largest_context(shape, plan, machine, 1)
            if smaller is not None:
                found.append(f"--context {smaller.context_tokens}")
                break
    for slots in (wanted.slots // 2, wanted.slots // 4, 1):
        fewer = replace(wanted, slots=slots)
        if 0 < slots < wanted.slots and _some_plan(shape, fewer, machine):
            found.append(f"--slots {slots}")
            break
    spare = replace(wanted, extra_host_bytes=0)
    if wanted.extra_host_bytes and _some_plan(shape, spare, machine):
        found.append("a smaller --host-cache")
    quantized = replace(wanted, cache_type="q8_0")
    # without flash attention there is no quantized cache
    if wanted.flash_attention and quantized != wanted and _some_plan(shape, quantized, machine):
        found.append("--cache-type q8_0")
    tried = f"Use {' or '.join(found)}" if found else "Use a smaller or more quantized model"
    return f"{tried}, or free some memory."


def _some_plan(shape: ModelShape, wanted: Wanted, machine: Machine) -> bool:
    least = _least_contexts(shape)[-1]
    return any(
        _largest_context(shape, plan, machine, least) is not None
        for plan in _plans(shape, wanted, machine)
    )


def _gib(size: int) -> str:
    return f"{size / GIB:.1f} GiB" if size >= GIB else f"{size / MIB:.0f} MiB"
