"""What the loaded model is, for the agent and the balancer."""

from __future__ import annotations

from hashlib import blake2b

from agent.engine.frames import EngineFacts
from agent.engine.llama.context import Context
from agent.engine.llama.model import Model
from agent.engine.llama.vocabulary import Vocabulary


def facts_of(model: Model, context: Context) -> EngineFacts:
    """Everything the agent may ask about the model and its context."""
    vocabulary = model.vocabulary
    return EngineFacts(
        slots=context.slots,
        context_tokens=context.context_tokens,
        kv_cells=context.kv_cells,
        trained_context_tokens=model.trained_context_tokens,
        vocabulary=vocabulary.size,
        size_bytes=model.size_bytes,
        parameters=model.parameters,
        architecture=model.metadata("general.architecture"),
        name=model.metadata("general.name"),
        description=model.description,
        chat_template=model.chat_template,
        bos_token=vocabulary.text(vocabulary.bos),
        eos_token=vocabulary.text(vocabulary.eos),
        adds_bos=vocabulary.adds_bos,
        tokenizer_digest=tokenizer_digest(vocabulary),
        llama_cpp_version=model.version,
    )


def tokenizer_digest(vocabulary: Vocabulary) -> str:
    """Equal digests: the same ids mean the same text, and end in the same places."""
    digest = blake2b(digest_size=16)
    special = (vocabulary.bos, vocabulary.eos, vocabulary.eot, vocabulary.adds_bos)
    digest.update(repr((special, vocabulary.end_tokens)).encode())
    for token, (piece, shown) in enumerate(
        zip(vocabulary.pieces, vocabulary.shown_pieces, strict=True)
    ):
        head = (len(piece), len(shown), vocabulary.attributes(token))
        digest.update(b"%d,%d,%d;" % head + piece + shown)
    return digest.hexdigest()
