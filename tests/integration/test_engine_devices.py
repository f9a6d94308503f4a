"""What llama.cpp's devices mean for fitting; GPUs are played by functions of the same shape."""

from __future__ import annotations

import platform
from types import SimpleNamespace
from typing import Any

import pytest
from llama_cpp import _ggml
from llama_cpp import llama_cpp as api

from agent.engine.llama import devices
from agent.engine.loading.fitting import Memory
from agent.settings import MAX_SLOTS

CPU, GPU, INTEGRATED = 0, 1, 2
GIB = 1024**3


def have(monkeypatch: pytest.MonkeyPatch, *machines: tuple[int, int, int]) -> None:
    """A build that sees these devices: kind, free and total GiB."""

    def memory(device: int, free: Any, total: Any) -> None:
        # what ctypes.byref leads to
        free._obj.value, total._obj.value = (GIB * size for size in machines[device][1:])

    library = SimpleNamespace(
        ggml_backend_dev_count=lambda: len(machines),
        ggml_backend_dev_get=lambda index: index,
        ggml_backend_dev_type=lambda device: machines[device][0],
        ggml_backend_dev_description=lambda device: b"Device %d" % device,
        ggml_backend_dev_memory=memory,
    )
    monkeypatch.setattr(_ggml, "libggml", library)
    monkeypatch.setattr(api, "llama_supports_gpu_offload", lambda: True)
    monkeypatch.setattr(platform, "system", lambda: "Linux")


def test_this_build_answers() -> None:
    places, shared, names = devices.gpus()
    assert bool(places) == bool(api.llama_supports_gpu_offload())
    assert bool(names) == bool(places)
    assert places or not shared
    ggml = devices._functions()
    assert ggml.ggml_backend_dev_count() >= 1
    assert devices._memory(ggml, ggml.ggml_backend_dev_get(0)).total


def test_gpus_with_memory_of_their_own_are_used_and_integrated_ones_are_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    have(monkeypatch, (GPU, 20, 24), (CPU, 1, 64), (INTEGRATED, 1, 64), (GPU, 10, 24))
    places, shared, names = devices.gpus()
    assert [(place.free, place.total) for place in places] == [
        (20 * GIB, 24 * GIB),
        (10 * GIB, 24 * GIB),
    ]
    assert not shared
    assert names == "Device 0, Device 3"


def test_an_integrated_gpu_has_the_host_s_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, (CPU, 1, 64), (INTEGRATED, 12, 16))
    places, shared, _ = devices.gpus()
    assert places == (Memory(free=12 * GIB, total=16 * GIB),)
    assert shared


def test_a_gpu_that_does_not_tell_has_unknown_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    have(monkeypatch, (GPU, 0, 0))
    assert devices.gpus()[0] == (Memory(free=None),)


def test_a_gpu_build_whose_functions_are_missing_has_unknown_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    have(monkeypatch, (GPU, 1, 1))
    monkeypatch.setattr(_ggml, "libggml", SimpleNamespace())
    assert devices.gpus()[0] == (Memory(free=None),)


def test_the_flag_takes_as_many_slots_as_llama_cpp_serves() -> None:
    assert devices.most_sequences() == MAX_SLOTS
