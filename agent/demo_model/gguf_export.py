"""Write the GGUF: metadata, tokenizer, chat template and F32 tensors (or the tokenizer alone)."""

from collections.abc import Iterator
from pathlib import Path

import gguf
import numpy as np
import torch

from agent.demo_model.network import Network, Shape
from agent.demo_model.tokenizer import CONTROL_TOKENS, END_TOKEN, PAD_TOKEN, USER_TOKENS, Vocabulary

TEMPLATE_PATH = Path(__file__).with_name("chat_template.jinja")
Array = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def _writer(path: Path, shape: Shape, vocabulary: Vocabulary) -> gguf.GGUFWriter:
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("paddler-demo")
    writer.add_description("Tiny model of paddler-py for its demo and its tests")
    writer.add_author("The developers of paddler-py")
    writer.add_license("apache-2.0")
    writer.add_file_type(gguf.LlamaFileType.ALL_F32)
    writer.add_languages(["en"])
    writer.add_context_length(shape.context)
    writer.add_embedding_length(shape.width)
    writer.add_block_count(shape.layers)
    writer.add_feed_forward_length(shape.hidden)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.heads)
    writer.add_layer_norm_rms_eps(shape.epsilon)
    writer.add_rope_dimension_count(shape.head_width)
    writer.add_rope_freq_base(shape.rope_base)
    writer.add_vocab_size(len(vocabulary.tokens))
    _add_tokenizer(writer, vocabulary)
    return writer


def _add_tokenizer(writer: gguf.GGUFWriter, vocabulary: Vocabulary) -> None:
    kinds = dict.fromkeys(CONTROL_TOKENS, gguf.TokenType.CONTROL)
    kinds |= dict.fromkeys(USER_TOKENS, gguf.TokenType.USER_DEFINED)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(list(vocabulary.tokens))
    writer.add_token_types([kinds.get(t, gguf.TokenType.NORMAL) for t in vocabulary.tokens])
    writer.add_token_merges(list(vocabulary.merges))
    writer.add_bos_token_id(vocabulary.id_of(PAD_TOKEN))
    writer.add_eos_token_id(vocabulary.id_of(END_TOKEN))
    writer.add_pad_token_id(vocabulary.id_of(PAD_TOKEN))
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE_PATH.read_text(encoding="utf-8"))


def _tensors(network: Network) -> Iterator[tuple[str, torch.Tensor]]:
    yield "token_embd.weight", network.embedding
    yield "output_norm.weight", network.output_norm
    for layer in range(network.shape.layers):
        yield f"blk.{layer}.attn_norm.weight", network.norms[layer, 0]
        for index, name in enumerate(("attn_q", "attn_k", "attn_v", "attn_output")):
            yield f"blk.{layer}.{name}.weight", network.attention[layer, index]
        yield f"blk.{layer}.ffn_norm.weight", network.norms[layer, 1]
        yield f"blk.{layer}.ffn_gate.weight", network.feed_forward[layer, 0]
        yield f"blk.{layer}.ffn_up.weight", network.feed_forward[layer, 1]
        yield f"blk.{layer}.ffn_down.weight", network.feed_forward[layer, 2].t()


def _as_array(tensor: torch.Tensor) -> Array:
    array: Array = tensor.detach().float().contiguous().numpy()
    return array


def _finish(writer: gguf.GGUFWriter) -> None:
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def export_tokenizer(path: Path, shape: Shape, vocabulary: Vocabulary) -> None:
    """A GGUF without tensors: enough for llama.cpp's tokenizer (`vocab_only`)."""
    _finish(_writer(path, shape, vocabulary))


def export_model(path: Path, network: Network, vocabulary: Vocabulary) -> None:
    """The whole model, written beside `path` first so that a reader never sees half a file."""
    part = path.with_suffix(".part")
    writer = _writer(part, network.shape, vocabulary)
    for name, tensor in _tensors(network):
        writer.add_tensor(name, _as_array(tensor))
    _finish(writer)
    part.replace(path)
