"""What an agent says of the model it serves."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

MODEL_NAME_PATTERN = r"^[A-Za-z0-9._:/@-]{1,200}$"
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


def names_of(model: ServedModel) -> frozenset[str]:
    """All names that a request may call a model by: each of its own, and each with its version
    behind an `@`."""
    names = (model.name, *model.aliases)
    return frozenset((*names, *(f"{name}@{model.version}" for name in names)))
