"""The model as this agent serves it: its facts, names, template, parsers and resume key."""

from __future__ import annotations

import hashlib
import re

from msgspec import Struct

from agent.chat import system_turns
from agent.chat.output import OutputFormat
from agent.engine.frames import EngineFacts
from agent.settings import Settings
from protocol.models import ServedModel, names_of
from protocol.refusals import RefusalCode

MODEL_VERSION = "1"
_SIZE = re.compile(r"[\dx.]+[KMBT](\.A?[\d.]+[KMBT])?")
"""`7B`, `8x7B`, `30B.A3B`."""


class Served(Struct, frozen=True, kw_only=True):
    """A loaded model under its names."""

    model: ServedModel
    template: str
    """The chat template in force; empty: the model has none."""
    output_format: OutputFormat
    bos_token: str
    eos_token: str
    slots: int
    kv_cells: int
    queries: int
    """Calls for embeddings or scores that are taken at once."""
    resume_key: str
    kv_key: str
    """Empty: there are no sequences."""

    def answers_to(self, name: str) -> bool:
        """Whether a request for `name` is for this model; no name means: the one there is."""
        return not name or name in names_of(self.model)

    def refusal_to_render(self) -> tuple[int, str] | None:
        """Why it can make no prompt of messages; None: it can."""
        if self.template:
            return None
        return (
            RefusalCode.UNSUPPORTED,
            f"the model {self.model.name!r} has no chat template: use /v1/completions, or start "
            "its agent with --chat-template FILE",
        )


def served(facts: EngineFacts, settings: Settings) -> Served:
    """What the engine loaded, as the settings want it served."""
    name, *aliases = settings.model_names
    template = settings.chat_template or facts.chat_template
    output_format = OutputFormat.of_template(
        template, reasoning=settings.reasoning_format, tool_calls=settings.tool_format
    )
    return Served(
        model=ServedModel(
            name=name,
            aliases=tuple(aliases),
            version=MODEL_VERSION,
            context_tokens=facts.context_tokens,
            trained_context_tokens=facts.trained_context_tokens,
            size_bytes=facts.size_bytes,
            parameters=facts.parameters,
            architecture=facts.architecture[:64],
            description=facts.description[:256],
            quantization=quantization_of(facts.description, facts.architecture)[:64],
            has_chat_template=bool(template),
            modalities=facts.modalities,
            generates=facts.slots > 0,
            embedding_dimensions=facts.embedding_dimensions,
            reranks=facts.can_rerank,
            infills=facts.can_infill,
            adapters=tuple(name for name, _ in facts.adapters),
        ),
        template=template,
        output_format=output_format,
        bos_token=facts.bos_token,
        eos_token=facts.eos_token,
        slots=facts.slots,
        kv_cells=facts.kv_cells,
        queries=facts.embedding_calls,
        resume_key=(key := resume_key(facts, template, output_format, name)),
        kv_key=kv_key(facts, key),
    )


def quantization_of(description: str, architecture: str) -> str:
    """What llama.cpp's words for a model, `<architecture> <size> <weights>`, say of its weights;
    "" where they are other words."""
    family, _, rest = description.partition(" ")
    if not rest or family != architecture:
        return ""
    size, _, weights = rest.partition(" ")
    return weights if _SIZE.fullmatch(size) else rest


def resume_key(
    facts: EngineFacts, template: str, output_format: OutputFormat, model_name: str
) -> str:
    """Equal on agents that can go on with each other's generations."""
    parts = (
        facts.tokenizer_digest,
        template,
        system_turns.REVISION,
        output_format.revision,
        model_name,
        MODEL_VERSION,
        str(facts.size_bytes),
        str(facts.parameters),
        *(part for adapter in sorted(facts.adapters) for part in adapter),
        *((facts.projector_digest,) if facts.projector_digest else ()),
    )
    return _digest_of(parts)


def kv_key(facts: EngineFacts, resume: str) -> str:
    """Equal on agents that can use each other's KV cache, too."""
    if not facts.kv_layout:
        return ""
    return _digest_of((resume, facts.file_digest, facts.llama_cpp_version, facts.kv_layout))


def _digest_of(parts: tuple[str, ...]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        data = part.encode("utf-8", "surrogatepass")
        digest.update(len(data).to_bytes(8, "little") + data)
    return digest.hexdigest()
