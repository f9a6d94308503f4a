"""The shipped model with fewer layers: a faster one of the same vocabulary that is often right."""

from __future__ import annotations

from pathlib import Path

import gguf

from agent.demo_model import DEMO_MODEL_PATH

_LAYERS = "llama.block_count"


def write_shallow_gguf(path: Path, *, layers: int) -> Path:
    """Write it with the first `layers` layers; everything else is the shipped model's."""
    reader = gguf.GGUFReader(DEMO_MODEL_PATH)
    writer = gguf.GGUFWriter(str(path), "llama")
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == "general.architecture":
            continue
        kind = field.types[0]
        inner = field.types[-1] if kind is gguf.GGUFValueType.ARRAY else None
        value = layers if field.name == _LAYERS else field.contents()
        writer.add_key_value(field.name, value, kind, inner)
    for tensor in reader.tensors:
        parts = tensor.name.split(".")
        if parts[0] != "blk" or int(parts[1]) < layers:
            writer.add_tensor(tensor.name, tensor.data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
