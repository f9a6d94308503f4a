"""Before and while a model is loaded: does it fit, how far is it, is it still wanted."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from msgspec.structs import replace

from agent.engine.channel import Channel
from agent.engine.frames import EngineOptions, LoadProgress
from agent.engine.loading.fitting import DEFAULT_SLOTS, Fit, Machine, Memory, fit
from agent.engine.loading.gguf_file import read_gguf
from agent.engine.loading.host_memory import host_memory, lies_in_memory
from agent.engine.loading.memory_needs import GIB, Need, Wanted
from agent.engine.loading.model_shape import shape_of
from agent.engine.stderr_lines import say

PROGRESS_INTERVAL_S = 0.25
HOST_CACHE_SHARE = 4
MOST_HOST_CACHE_BYTES = 8 * GIB
"""Saved states get a quarter of the memory that is free, and no more than this."""


class LoadWatch:
    """llama.cpp's progress callback: tells the agent now and then, and listens to it.

    `listen` takes in what the agent sent and raises what ends the engine. Nothing may be raised
    through llama.cpp, so that is kept for `raise_if_ended`, and the load is cancelled.
    """

    def __init__(
        self,
        channel: Channel,
        listen: Callable[[], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._channel = channel
        self._listen = listen
        self._clock = clock
        self._told_at: float | None = None
        self._end: Exception | None = None

    def __call__(self, fraction: float) -> bool:
        """Whether to go on; `fraction` of the weights is loaded."""
        if self._end is None:
            try:
                self._listen()
                self._tell(fraction)
            except Exception as end:  # noqa: BLE001 (a C function is between this and its handler)
                self._end = end
        return self._end is None

    def raise_if_ended(self) -> None:
        """Raise what ended the load, if something did."""
        if self._end is not None:
            raise self._end

    def _tell(self, fraction: float) -> None:
        now = self._clock()
        if self._told_at is not None and now - self._told_at < PROGRESS_INTERVAL_S:
            return
        self._told_at = now
        self._channel.send(LoadProgress(fraction=min(max(fraction, 0.0), 1.0)))


def fitted(
    options: EngineOptions,
    *,
    gpus: Sequence[Memory],
    gpus_share_host: bool,
    most_slots: int,
    idle_sequences: int,
    reduces_rows: bool,
) -> EngineOptions:
    """The options with everything chosen that was left open, so that it fits the memory there is.

    Raises `ModelUnusable`: the file is damaged, or it does not fit; with figures.
    """
    path = Path(options.model_path)
    shape = shape_of(read_gguf(path))
    if options.fit == "off":
        return replace(options, slots=options.slots or DEFAULT_SLOTS)
    host = host_memory()
    wanted = Wanted(
        slots=options.slots,
        context_tokens=options.context_tokens,
        batch_tokens=options.batch_tokens,
        micro_batch_tokens=options.micro_batch_tokens,
        gpu_layers=options.gpu_layers,
        cache_type=options.cache_type,
        flash_attention=options.flash_attention != "off",
        unified=options.unified_kv == "on",
        idle_sequences=0 if any(layer.state for layer in shape.layers) else idle_sequences,
        extra_host_bytes=max(options.host_cache_bytes, 0) + _other_file_bytes(options),
        weights_are_in_memory=lies_in_memory(path),
        reduces_rows=reduces_rows,
        most_slots=most_slots,
    )
    machine = Machine(
        host=Memory(free=host.free, total=host.total),
        gpus=tuple(gpus),
        gpus_share_host=gpus_share_host,
    )
    chosen = fit(shape, wanted, machine)
    _tell(chosen, machine)
    return replace(
        options,
        slots=chosen.slots,
        context_tokens=chosen.context_tokens,
        batch_tokens=chosen.batch_tokens,
        micro_batch_tokens=chosen.micro_batch_tokens,
        gpu_layers=chosen.gpu_layers if gpus else options.gpu_layers,
    )


def _other_file_bytes(options: EngineOptions) -> int:
    """Files of LoRA adapters and the projector; what is missing is reported when it is loaded."""
    files = [Path(file) for _, file in options.adapters]
    files += [Path(file) for file in (options.mmproj_path, options.draft_model_path) if file]
    return sum(file.stat().st_size for file in files if file.is_file())


def _tell(chosen: Fit, machine: Machine) -> None:
    share = chosen.context_tokens // chosen.slots
    say(
        f"fit: {chosen.slots} slots of {share} tokens, micro-batches of "
        f"{chosen.micro_batch_tokens}; {_told(chosen.host)} of main memory, "
        f"{_free(machine.host.free)}"
    )
    if machine.gpus:
        frees = [gpu.free for gpu in machine.gpus]
        known = sum(free for free in frees if free is not None)
        free = known if None not in frees else None
        say(f"fit: {chosen.gpu_layers} layers, {_told(chosen.gpus)} of GPU memory, {_free(free)}")


def _told(need: Need) -> str:
    return (
        f"{need.total / GIB:.2f} GiB (weights {need.weights / GIB:.2f}, "
        f"cache {need.cache / GIB:.2f}, computing {need.computing / GIB:.2f})"
    )


def _free(free: int | None) -> str:
    if free is None:
        return "how much is free cannot be read: set --context and --gpu-layers"
    return f"{free / GIB:.2f} GiB free"


def host_cache_bytes(options: EngineOptions) -> int:
    """The bound of saved states: as set, or a share of what is free once the model is loaded."""
    if options.host_cache_bytes >= 0:
        return options.host_cache_bytes
    free = host_memory().free
    return 0 if free is None else min(free // HOST_CACHE_SHARE, MOST_HOST_CACHE_BYTES)
