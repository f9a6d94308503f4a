"""What Ollama's clients are answered."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType, field

from balancer.http.document.shapes.openai import TokenLogprobs


class OllamaFunction(Struct, kw_only=True):
    """A function that is called."""

    name: str
    arguments: dict[str, Any]


class OllamaCall(Struct, kw_only=True):
    """A call of a tool, whole."""

    function: OllamaFunction


class OllamaMessage(Struct, kw_only=True):
    """The answer, or what is new of it."""

    role: Literal["assistant"]
    content: str
    thinking: str | UnsetType = UNSET
    tool_calls: list[OllamaCall] | UnsetType = UNSET


class OllamaLine(Struct, kw_only=True):
    """What every object has; the last has how it ended. Durations are nanoseconds."""

    model: str
    created_at: str
    done: bool
    done_reason: Literal["stop", "length", "load"] | UnsetType = UNSET
    logprobs: list[TokenLogprobs] | UnsetType = UNSET
    total_duration: int | UnsetType = UNSET
    load_duration: int | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET
    prompt_eval_duration: int | UnsetType = UNSET
    eval_count: int | UnsetType = UNSET
    eval_duration: int | UnsetType = UNSET


class OllamaChat(OllamaLine, kw_only=True):
    """A chat's answer, or a line of its stream."""

    message: OllamaMessage


class OllamaGeneration(OllamaLine, kw_only=True):
    """A prompt's answer, or a line of its stream."""

    response: str
    thinking: str | UnsetType = UNSET
    tool_calls: list[OllamaCall] | UnsetType = UNSET


class OllamaEmbeddings(Struct, kw_only=True):
    """A vector for each input."""

    model: str
    embeddings: list[list[float]]
    total_duration: int | UnsetType = UNSET
    load_duration: int | UnsetType = UNSET
    prompt_eval_count: int | UnsetType = UNSET


class OllamaEmbedding(Struct, kw_only=True):
    """The vector of one prompt."""

    embedding: list[float]


class OllamaDetails(Struct, kw_only=True):
    """What a model is."""

    parent_model: str
    format: str
    family: str
    families: list[str]
    parameter_size: str
    quantization_level: str


class OllamaRow(Struct, kw_only=True):
    """A model by one of its names, with its tag."""

    name: str
    model: str
    size: int
    digest: str
    details: OllamaDetails
    context_length: int


class ServedRow(OllamaRow, kw_only=True):
    """A model that there is."""

    modified_at: str


class RunningRow(OllamaRow, kw_only=True):
    """A model in memory."""

    expires_at: str


class OllamaTags(Struct, kw_only=True):
    """The models that there are."""

    models: list[ServedRow]


class OllamaRunning(Struct, kw_only=True):
    """The models in memory."""

    models: list[RunningRow]


class OllamaModel(Struct, kw_only=True):
    """What is known of one model."""

    modelfile: str
    template: str
    parameters: str
    modified_at: str
    details: OllamaDetails
    model_info: dict[str, Any]
    capabilities: list[str]


class OllamaVersion(Struct, kw_only=True):
    """The release whose API this is."""

    number: str = field(name="version")
