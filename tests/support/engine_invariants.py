"""What must hold between any two turns of the engine, held against llama.cpp's own view."""

from __future__ import annotations

from agent.engine.serving import Serving
from tests.support.engine_bench import EngineBench


def checked(bench: EngineBench) -> EngineBench:
    """Have a bench look after each of its turns."""
    bench.after_turn = lambda: check(bench)
    return bench


def check(bench: EngineBench) -> None:
    """Sequences, tree, cells and host memory agree with each other and with llama.cpp."""
    serving = bench.serving
    memory, cache, cells = bench.context.memory, serving.store.cache, serving.store.cells
    running = _running(serving)
    shifted = {
        seat.slot
        for seat in serving.seating.scheduler
        if serving.seating.calls[seat.call].is_shifted
    }
    assert not any(cache.tree.length(sequence) for sequence in shifted), "a shifted one is offered"
    for sequence in range(memory.sequences):
        length = running.get(sequence, cache.length(sequence))
        assert cache.length(sequence) == length, f"sequence {sequence}: the tree is behind"
        assert memory.holds(sequence, length), f"sequence {sequence} should hold {length} tokens"
        if cells is not None:
            assert cells.length(sequence) == length, f"sequence {sequence}: cells miscounted"
    assert cache.idle == frozenset(range(memory.sequences)) - running.keys()
    assert cache.tree.nodes <= 3 * len(list(cache.tree))
    if cells is not None:
        assert cells.used <= cells.capacity


def check_idle(bench: EngineBench) -> None:
    """With no call left, nothing of any call is left but what the cache keeps."""
    check(bench)
    assert not bench.serving.seating.calls
    assert not bench.serving.has_work
    assert not bench.serving.is_preparing
    assert not list(bench.serving.seating.scheduler)


def _running(serving: Serving) -> dict[int, int]:
    return {seat.slot: seat.cached for seat in serving.seating.scheduler}
