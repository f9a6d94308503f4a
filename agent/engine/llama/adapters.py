"""LoRA adapters, loaded once; which of them are on is a state of the whole context."""

from __future__ import annotations

import ctypes
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from llama_cpp import llama_cpp as api

from agent.engine.llama.log import LlamaLog
from agent.engine.llama.model import Model, checked_path
from agent.errors import ModelRejected

AdapterSet = tuple[tuple[str, float], ...]
"""Names and scales, ordered by name; empty: the bare model."""


class Adapters:
    """The adapters of a model by name, from (name, path) pairs; raises `ModelUnusable`."""

    def __init__(self, model: Model, files: Sequence[tuple[str, str]], log: LlamaLog) -> None:
        self._loaded: dict[str, Any] = {}
        self._digests: dict[str, str] = {}
        self._on: AdapterSet = ()
        for name, path in files:
            file = checked_path(path)
            handle = api.llama_adapter_lora_init(model.handle, os.fsencode(file))
            if not handle:
                raise ModelRejected(
                    f"llama.cpp cannot load the adapter {name!r} from {path}: "
                    f"{log.last_error or 'no reason given'}. Was it made for this model?"
                )
            if api.llama_adapter_get_alora_n_invocation_tokens(handle):
                raise ModelRejected(
                    f"The adapter {name!r} from {path} is an activated LoRA, which acts from "
                    "certain tokens on. Adapters act on whole prompts here: convert it to a plain "
                    "LoRA, or leave it out."
                )
            self._loaded[name] = handle
            self._digests[name] = _digest_of(file)

    @property
    def names(self) -> tuple[str, ...]:
        """What a request may ask for."""
        return tuple(self._loaded)

    @property
    def digests(self) -> tuple[tuple[str, str], ...]:
        """The names with digests of their files: equal ones do the same to a model."""
        return tuple(self._digests.items())

    def put_on(self, context: Any, adapters: AdapterSet) -> None:
        """Decode with exactly these from now on. Names must be loaded."""
        if adapters == self._on:
            return
        array = api.llama_adapter_lora_p_ctypes * len(adapters)
        handles = array(*(self._loaded[name] for name, _ in adapters))
        scales = (ctypes.c_float * len(adapters))(*(scale for _, scale in adapters))
        if api.llama_set_adapters_lora(context, handles, len(adapters), scales) != 0:
            raise RuntimeError(f"llama.cpp could not put on {adapters}")
        self._on = adapters


def _digest_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
