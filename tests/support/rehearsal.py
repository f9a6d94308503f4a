"""What llama.cpp itself would allocate for a model under given settings: its own simulation.

`python -m tests.support.rehearsal MODEL…`, settings as JSON on standard input; prints JSON. It is a
process of its own, because llama.cpp has one log for all, and the figures are only there.
"""

from __future__ import annotations

import ctypes
import json
import re
import subprocess
import sys
from pathlib import Path

from msgspec import Struct, convert, to_builtins

PROJECT = Path(__file__).resolve().parents[2]
CACHE_TYPES = {"f32": 0, "f16": 1, "q8_0": 8}


class Setting(Struct, frozen=True, kw_only=True):
    """The settings that memory depends on."""

    context_tokens: int
    slots: int
    micro_batch_tokens: int = 512
    cache_type: str = "f16"
    flash_attention: bool = True
    unified: bool = False
    whole_windows: bool = True


class Allocation(Struct, frozen=True, kw_only=True):
    """MiB, as llama.cpp's log has them, to two places."""

    weights: float
    cache: float
    computing: float


def rehearsed(models: list[Path], settings: list[Setting]) -> list[list[Allocation]]:
    """Allocations for each model under each setting."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.rehearsal", *map(str, models)],
        input=json.dumps(to_builtins(settings)),
        stdout=subprocess.PIPE,
        text=True,
        cwd=PROJECT,
        check=True,
    )
    return convert(json.loads(done.stdout), list[list[Allocation]])


def _rehearse(path: str, settings: list[Setting]) -> list[Allocation]:
    from llama_cpp import llama_cpp as api  # noqa: PLC0415 (only the child process needs it)

    lines: list[str] = []
    take = api.llama_log_callback(lambda _level, text, _data: lines.append(text.decode()))
    api.llama_log_set(take, ctypes.c_void_p(0))
    parameters = api.llama_model_default_params()
    parameters.no_alloc, parameters.load_mode = True, 0
    model = api.llama_model_load_from_file(path.encode(), parameters)
    assert model, lines[-3:]
    found = []
    for setting in settings:
        context = api.llama_context_default_params()
        context.n_ctx, context.n_seq_max = setting.context_tokens, setting.slots
        context.n_batch = context.n_ubatch = setting.micro_batch_tokens
        context.type_k = context.type_v = CACHE_TYPES[setting.cache_type]
        context.flash_attn_type = 1 if setting.flash_attention else 0
        context.kv_unified, context.swa_full = setting.unified, setting.whole_windows
        lines.clear()
        handle = api.llama_init_from_model(model, context)
        assert handle, lines[-3:]
        log = "".join(lines)
        found.append(
            Allocation(
                weights=api.llama_model_size(model) / 1024**2,
                cache=_sum(r"llama_kv_cache: size = +([\d.]+) MiB", log)
                + _sum(r"RS buffer size = +([\d.]+)", log),
                computing=_sum(r"compute buffer size = +([\d.]+)", log),
            )
        )
        api.llama_free(handle)
    api.llama_model_free(model)
    return found


def _sum(pattern: str, log: str) -> float:
    return sum(map(float, re.findall(pattern, log)))


if __name__ == "__main__":
    asked = convert(json.load(sys.stdin), list[Setting])
    found = [_rehearse(path, asked) for path in sys.argv[1:]]
    sys.stdout.write(json.dumps(to_builtins(found)))
