"""What the loaded model is, for the agent and the balancer."""

from __future__ import annotations

from hashlib import blake2b

from agent.engine.embedding.embedder import MAX_CALLS
from agent.engine.frames import EngineFacts
from agent.engine.infill import missing_tokens
from agent.engine.llama.adapters import Adapters
from agent.engine.llama.context import Context
from agent.engine.llama.embedding_context import longest_input, own_pooling, vector_size
from agent.engine.llama.model import Model
from agent.engine.llama.projector import Projector
from agent.engine.llama.vocabulary import Vocabulary
from protocol.chat import Modality


def facts_of(
    model: Model,
    context: Context | None,
    projector: Projector | None = None,
    adapters: Adapters | None = None,
) -> EngineFacts:
    """Everything the agent may ask about the model, its context (None: it only embeds), its
    projector and its adapters."""
    vocabulary = model.vocabulary
    return EngineFacts(
        slots=context.slots if context else 0,
        context_tokens=context.context_tokens if context else longest_input(model),
        kv_cells=context.kv_cells if context else 0,
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
        embedding_calls=MAX_CALLS,
        embedding_dimensions=vector_size(model),
        can_rerank=own_pooling(model) == "rank",
        can_infill=not missing_tokens(vocabulary),
        adapters=adapters.digests if adapters else (),
        modalities=modalities_of(projector) if projector else (),
        audio_sample_rate=projector.sample_rate if projector else 0,
        projector_digest=projector.digest if projector else "",
    )


def modalities_of(projector: Projector) -> tuple[Modality, ...]:
    """What prompts may hold beside text."""
    vision: tuple[Modality, ...] = ("vision",) if projector.sees else ()
    return (*vision, "audio") if projector.hears else vision


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
