"""What Ollama's clients send, as they send it: types and ranges only, no meaning.

https://github.com/ollama/ollama/blob/main/docs/api.md. Unknown fields and options are ignored.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from protocol.embeddings import MAX_DIMENSIONS
from protocol.generation import (
    MAX_MESSAGES,
    MAX_PENALTY_WINDOW,
    MAX_STOP_CHARS,
    MAX_STOPS,
    MAX_TEMPERATURE,
    MAX_TOP_LOGPROBS,
)
from protocol.models import MODEL_NAME_PATTERN

StopText = Annotated[str, Meta(max_length=MAX_STOP_CHARS)]
"""Empty ones are left out."""
Fraction = Annotated[float, Meta(ge=0, le=1)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
ModelIn = Annotated[str, Meta(pattern=f"{MODEL_NAME_PATTERN}|^\\Z")]
"""Empty means absent: Ollama's client in Go sends what was not set, too."""


_TOP_K = Meta(ge=-1, le=2**31 - 1)
_NUM_PREDICT = Meta(ge=-2, le=2**31 - 1)
_LAST_N = Meta(ge=-1, le=MAX_PENALTY_WINDOW)
_MIROSTAT = Meta(ge=0, le=2)


class OptionsIn(Struct, kw_only=True):
    """How to sample, and when to stop. Integers may be written as floats, as some languages have no
    others: see translate."""

    temperature: Annotated[float, Meta(ge=0, le=MAX_TEMPERATURE)] | None = None
    top_k: Annotated[int, _TOP_K] | Annotated[float, _TOP_K] | None = None
    top_p: Fraction | None = None
    min_p: Fraction | None = None
    typical_p: Fraction | None = None
    seed: int | float | None = None
    num_predict: Annotated[int, _NUM_PREDICT] | Annotated[float, _NUM_PREDICT] | None = None
    stop: StopText | Annotated[list[StopText], Meta(max_length=MAX_STOPS)] | None = None
    repeat_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    repeat_last_n: Annotated[int, _LAST_N] | Annotated[float, _LAST_N] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    mirostat: Annotated[int, _MIROSTAT] | Annotated[float, _MIROSTAT] | None = None
    mirostat_tau: Annotated[float, Meta(ge=0, le=100)] | None = None
    mirostat_eta: Fraction | None = None

    # Known, and without effect: how a model is loaded, which agents do beforehand. What a context
    # shift keeps is the whole prompt, whatever `num_keep` says.
    num_ctx: Any = None
    num_keep: Any = None
    num_batch: Any = None
    num_gpu: Any = None
    main_gpu: Any = None
    num_thread: Any = None
    numa: Any = None
    low_vram: Any = None
    f16_kv: Any = None
    logits_all: Any = None
    vocab_only: Any = None
    embedding_only: Any = None
    use_mmap: Any = None
    use_mlock: Any = None

    # Known, and refused unless their value asks for nothing: see translate.
    tfs_z: Any = None
    penalize_newline: Any = None


class GenerationFields(Struct, kw_only=True):
    """What both generation routes take."""

    model: ModelIn | None = None
    stream: bool | None = None
    options: OptionsIn | None = None
    format: Any = None
    think: bool | str | None = None
    shift: bool | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    keep_alive: Any = None

    # Known, and refused unless its value asks for nothing: see translate.
    truncate: Any = None


class FunctionCallIn(Struct):
    """The function of a tool call in the history."""

    name: str
    arguments: dict[str, Any] | None = None


class ToolCallIn(Struct):
    """A tool call in the history."""

    function: FunctionCallIn
    id: str | None = None


class MessageIn(Struct):
    """A turn; images are files in base64."""

    role: str
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[ToolCallIn] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None


class FunctionIn(Struct):
    """A function that the model may call."""

    name: Annotated[str, Meta(min_length=1, max_length=256)]
    description: str | None = None
    parameters: dict[str, Any] | None = None


class ToolIn(Struct):
    """A tool that is offered."""

    function: FunctionIn
    type: str | None = None


class ChatRequest(GenerationFields, kw_only=True):
    """The body of POST /api/chat."""

    messages: Annotated[list[MessageIn], Meta(max_length=MAX_MESSAGES)] | None = None
    tools: Annotated[list[ToolIn], Meta(max_length=1024)] | None = None


class GenerateRequest(GenerationFields, kw_only=True):
    """The body of POST /api/generate."""

    prompt: str | None = None
    suffix: str | None = None
    system: str | None = None
    images: list[str] | None = None
    raw: bool | None = None

    # Known, and refused unless their value asks for nothing: see translate.
    template: Any = None
    context: Any = None
    width: Any = None
    height: Any = None
    steps: Any = None


class EmbedRequest(Struct, kw_only=True):
    """The body of POST /api/embed."""

    model: ModelIn | None = None
    input: str | list[Any] | None = None
    truncate: bool | None = None
    dimensions: Annotated[int, Meta(ge=1, le=MAX_DIMENSIONS)] | None = None
    options: dict[str, Any] | None = None
    keep_alive: Any = None


class PromptEmbeddingRequest(Struct, kw_only=True):
    """The older body of POST /api/embeddings; one with `input` is OpenAI's."""

    model: ModelIn | None = None
    prompt: str | None = None
    input: Any = None
    options: dict[str, Any] | None = None
    keep_alive: Any = None


class ShowRequest(Struct, kw_only=True):
    """The body of POST /api/show; `name` is what `model` was called before."""

    model: ModelIn | None = None
    name: ModelIn | None = None
    verbose: Any = None
    """Known, and without effect: nothing more is known here."""


EXPECTED = {
    "model": "1 to 200 characters of A-Z a-z 0-9 . _ : / @ -",
    "messages": f"a list of at most {MAX_MESSAGES} messages",
    "think": "true, false, low, medium or high",
    "top_logprobs": f"0..{MAX_TOP_LOGPROBS}",
    "dimensions": f"1..{MAX_DIMENSIONS}, at most what the model's vectors have",
    "options.temperature": f"0..{MAX_TEMPERATURE}",
    "options.top_k": "an integer, 0 or -1 for off",
    "options.top_p": "0..1",
    "options.min_p": "0..1",
    "options.typical_p": "0..1",
    "options.seed": "an integer",
    "options.num_predict": "an integer; 0, -1 and -2 set no limit",
    "options.stop": f"a string or up to {MAX_STOPS}, of at most {MAX_STOP_CHARS} characters",
    "options.repeat_penalty": "above 0, at most 10",
    "options.repeat_last_n": f"an integer, -1 (the whole answer) to {MAX_PENALTY_WINDOW}",
    "options.presence_penalty": "-2..2",
    "options.frequency_penalty": "-2..2",
    "options.mirostat": "0, 1 or 2",
    "options.mirostat_tau": "0..100",
    "options.mirostat_eta": "0..1",
}
"""What an error says was expected, by parameter."""
