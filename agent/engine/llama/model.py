"""The weights of a GGUF file and what its metadata say."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

from llama_cpp import llama_cpp as api

from agent.engine.frames import EngineOptions
from agent.engine.llama.log import LlamaLog
from agent.engine.llama.vocabulary import Vocabulary
from agent.engine.loading.load import LoadWatch
from agent.errors import ModelRejected, ModelUnusable

EMBEDDING_ONLY = frozenset(
    {
        "bert",
        "eurobert",
        "gemma-embedding",
        "jina-bert-v2",
        "jina-bert-v3",
        "modern-bert",
        "neo-bert",
        "nomic-bert",
        "nomic-bert-moe",
    }
)
"""Architectures that llama.cpp gives no KV cache (`llama_model::create_memory`): they read a text
as a whole and do not write one."""


UNKNOWN_SIZE = "?B"
"""What llama.cpp calls the size of a model that is none of the well-known ones."""


class Model:
    """Weights and vocabulary. Raises `ModelUnusable` with the reason and the remedy."""

    def __init__(
        self, options: EngineOptions, log: LlamaLog, watch: LoadWatch | None = None
    ) -> None:
        path = checked_path(options.model_path)
        params = api.llama_model_default_params()
        params.n_gpu_layers = options.gpu_layers
        if watch is not None:
            # the struct keeps the function alive while llama.cpp calls it
            params.progress_callback = api.llama_progress_callback(
                lambda fraction, _user_data: watch(fraction)
            )
        self.handle = api.llama_model_load_from_file(os.fsencode(path), params)
        if watch is not None:
            watch.raise_if_ended()
        if not self.handle:
            raise _not_loaded(path, log.last_error)
        if not api.llama_model_has_decoder(self.handle) or api.llama_model_has_encoder(self.handle):
            raise ModelRejected(f"{path} is not a decoder-only model; it cannot be served.")
        self.vocabulary = Vocabulary(self.handle)
        self.trained_context_tokens: int = api.llama_model_n_ctx_train(self.handle)
        self.size_bytes: int = api.llama_model_size(self.handle)
        self.parameters: int = api.llama_model_n_params(self.handle)
        self.version: str = api.llama_version().decode()

    @property
    def only_embeds(self) -> bool:
        """Whether this model makes vectors but no text."""
        return self.metadata("general.architecture") in EMBEDDING_ONLY

    def metadata(self, key: str) -> str:
        """A text value of the GGUF's metadata, "" if absent."""
        size = api.llama_model_meta_val_str(self.handle, key.encode(), None, 0)
        if size <= 0:
            return ""
        buffer = ctypes.create_string_buffer(size + 1)
        api.llama_model_meta_val_str(self.handle, key.encode(), buffer, size + 1)
        return buffer.value.decode("utf-8", "replace")

    @property
    def description(self) -> str:
        """Architecture, size and weight type in words, as far as they are known."""
        buffer = ctypes.create_string_buffer(256)
        api.llama_model_desc(self.handle, buffer, 256)
        words = buffer.value.decode("utf-8", "replace").split()
        return " ".join(word for word in words if word != UNKNOWN_SIZE)

    @property
    def chat_template(self) -> str:
        """The default chat template of the GGUF, "" if it has none."""
        template: bytes | None = api.llama_model_chat_template(self.handle, None)
        return (template or b"").decode("utf-8", "replace")

    def close(self) -> None:
        """Free the weights."""
        api.llama_model_free(self.handle)


def _not_loaded(path: Path, reason: str) -> ModelUnusable:
    """Memory may be free the next time, the file will be the same."""
    kind = ModelUnusable if "alloc" in reason or not reason else ModelRejected
    return kind(
        f"llama.cpp cannot load {path}: {reason or 'no reason given'}. "
        "Is the file complete, and its architecture known to this llama.cpp?"
    )


def checked_path(path: str) -> Path:
    """The file if it can be a GGUF; raises `ModelUnusable` saying what is wrong with it."""
    file = Path(path)
    try:
        with file.open("rb") as stream:
            magic = stream.read(4)
    except OSError as error:
        raise ModelUnusable(f"Cannot read the model file {path}: {error.strerror}.") from error
    if magic != b"GGUF":
        raise ModelRejected(f"{path} is not a GGUF file (it begins with {magic!r}).")
    return file
