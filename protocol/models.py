"""What an agent says of the model it serves."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

MAX_NAME_CHARS = 200
MODEL_NAME_PATTERN = rf"^[A-Za-z0-9._:/@-]{{1,{MAX_NAME_CHARS}}}$"
ModalityName = Annotated[str, Meta(max_length=32)]
ModelName = Annotated[str, Meta(pattern=MODEL_NAME_PATTERN)]


class ServedModel(Struct, frozen=True, kw_only=True):
    """A model as one agent serves it; `context_tokens` is what one request may use."""

    name: ModelName
    aliases: Annotated[tuple[ModelName, ...], Meta(max_length=32)] = ()
    version: Annotated[str, Meta(max_length=64)] = "1"
    context_tokens: Annotated[int, Meta(ge=1)]
    trained_context_tokens: int = 0
    size_bytes: int = 0
    parameters: int = 0
    architecture: Annotated[str, Meta(max_length=64)] = ""
    description: Annotated[str, Meta(max_length=256)] = ""
    quantization: Annotated[str, Meta(max_length=64)] = ""
    """How its weights are written, as llama.cpp calls it: `Q4_K - Medium`."""
    has_chat_template: bool = True
    modalities: Annotated[tuple[ModalityName, ...], Meta(max_length=16)] = ()
    """What its prompts may hold beside text: each a `protocol.chat.Modality`, or one of a later
    version's."""
    generates: bool = True
    """False: it makes embeddings only, and has no slot."""
    embedding_dimensions: int = 0
    reranks: bool = False
    infills: bool = False
    """Whether it can write what stands between a prompt and a suffix."""
    adapters: Annotated[tuple[ModelName, ...], Meta(max_length=64)] = ()
    """LoRA adapters that a request may ask for."""

    @property
    def names(self) -> tuple[str, ...]:
        """What it goes by, as it is: its name, then its aliases."""
        return (self.name, *self.aliases)

    def adapter_names(self) -> dict[str, str]:
        """What it goes by under an adapter, `<name>:<adapter>`, also with its version behind an
        `@`; each with the adapter. What is a name of its own, or longer than names may be, is left
        out."""
        names = {f"{name}:{adapter}": adapter for name in self.names for adapter in self.adapters}
        names |= {f"{name}@{self.version}": adapter for name, adapter in names.items()}
        own = names_of(self)
        return {
            name: adapter
            for name, adapter in names.items()
            if len(name) <= MAX_NAME_CHARS and name not in own
        }


def names_of(model: ServedModel) -> frozenset[str]:
    """All names that a request may call a model by: each of its own, and each with its version
    behind an `@`."""
    return frozenset((*model.names, *(f"{name}@{model.version}" for name in model.names)))
