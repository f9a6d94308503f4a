"""What two engines must have in common to use each other's KV cache: the file, and its layout."""

from __future__ import annotations

from hashlib import blake2b
from pathlib import Path

from agent.engine.frames import EngineOptions

HEAD_BYTES = 1024 * 1024
SAMPLES = 64
SAMPLE_BYTES = 64 * 1024


def file_digest(path: str) -> str:
    """Of a file's size, its beginning and 64 pieces spread evenly: 5 MiB of it at most.

    Reading all of a model would take as long as loading it. Files of the same size that differ in
    weights (a fine-tune, another conversion) differ nearly everywhere. Raises `OSError`.
    """
    file_path = Path(path)
    size = file_path.stat().st_size
    digest = blake2b(size.to_bytes(8, "little"), digest_size=16)
    with file_path.open("rb") as file:
        digest.update(file.read(HEAD_BYTES))
        for sample in range(SAMPLES):
            file.seek(max(size - SAMPLE_BYTES, 0) * sample // (SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def kv_layout(options: EngineOptions, *, slots: int) -> str:
    """How llama.cpp lays a sequence's state out: it takes only states of the same.

    Its number of streams is written in each. What `auto` for flash attention comes to is not to
    be learned from llama.cpp; should it be something else elsewhere, a state is refused there
    when it is restored, and its tokens are prefilled.
    """
    streams = 1 if options.unified_kv == "on" else slots
    flash = "on" if options.cache_type == "q8_0" else options.flash_attention
    return f"{options.cache_type} streams={streams} flash={flash}"
