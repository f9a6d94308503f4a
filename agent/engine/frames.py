"""What crosses the socket pair between the agent and its engine process.

Length-prefixed MessagePack, little-endian u32. Commands go to the engine, events come back; the
engine sends at most one `Step` a decode step, for all calls together.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from protocol.generation import FinishReason, Timings, TokenLogprob, Usage

MAX_FRAME_BYTES = 64 * 1024 * 1024
HEADER_BYTES = 4

CacheType = Literal["f16", "f32", "q8_0"]
Switch = Literal["auto", "on", "off"]


class EngineOptions(Struct, frozen=True, kw_only=True):
    """How to load the model. Zero means: the engine chooses (see docs/reference/settings.md)."""

    model_path: str
    slots: int = 4
    context_tokens: int = 0
    threads: int = 0
    gpu_layers: int = -1
    batch_tokens: int = 0
    micro_batch_tokens: int = 0
    cache_type: CacheType = "f16"
    flash_attention: Switch = "auto"
    unified_kv: Switch = "auto"


class Start(Struct, frozen=True, kw_only=True, tag="start", array_like=True):
    """The first command: load this model, decode a few tokens to prove the build, be ready."""

    options: EngineOptions


class Sampling(Struct, frozen=True, kw_only=True):
    """The sampler chain's parameters, as in `protocol.generation.GenerationRequest`."""

    seed: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repeat_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    penalty_last_n: int = 64
    logit_bias: tuple[tuple[int, float], ...] = ()
    ignore_eos: bool = False
    top_logprobs: int | None = None


class Submit(Struct, frozen=True, kw_only=True, tag="submit", array_like=True):
    """Generate. `prompt` is text (special tokens in it are parsed) or token ids.

    `resume_ids` were generated elsewhere: they are prefilled, replayed silently through the
    detokeniser and the stop matcher, and count as completion tokens; `resume_emitted_chars`, unless
    None, must equal what the replay would have emitted, else the call is refused with
    RESUME_MISMATCH (None: the agent compares after its parsers, whose output the client saw).
    `max_tokens` caps prompt-exclusive output including resumed tokens; None: what is left of the
    context. Neither an end token nor a stop string ends the text before `min_tokens`.
    """

    call: int
    prompt: str | tuple[int, ...]
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    resume_ids: tuple[int, ...] = ()
    resume_emitted_chars: int | None = None


class CancelCall(Struct, frozen=True, kw_only=True, tag="cancel", array_like=True):
    """End the call at the next micro-batch border; it ends with `cancelled`. Unknown: no effect."""

    call: int


class PauseCall(Struct, frozen=True, kw_only=True, tag="pause", array_like=True):
    """Keep the call's slot and cache, decode nothing for it."""

    call: int


class ContinueCall(Struct, frozen=True, kw_only=True, tag="continue", array_like=True):
    """Take a paused call up again."""

    call: int


class Shutdown(Struct, frozen=True, kw_only=True, tag="shutdown", array_like=True):
    """Free everything and exit 0."""


Command = Start | Submit | CancelCall | PauseCall | ContinueCall | Shutdown


class EngineFacts(Struct, frozen=True, kw_only=True):
    """The loaded model and its context. Token texts are as templates expect them, "" if absent."""

    slots: int
    context_tokens: int
    """What one request may use."""
    kv_cells: int
    trained_context_tokens: int
    vocabulary: int
    size_bytes: int
    parameters: int
    architecture: str
    name: str
    description: str
    chat_template: str
    bos_token: str
    eos_token: str
    adds_bos: bool
    tokenizer_digest: str
    """Equal digests: equal vocabulary and special tokens."""
    llama_cpp_version: str


class Loaded(Struct, frozen=True, kw_only=True, tag="loaded", array_like=True):
    """The model is in memory and its first decode follows; a death after this is the build's."""


class Ready(Struct, frozen=True, kw_only=True, tag="ready", array_like=True):
    """The model is loaded and has decoded; calls may be submitted."""

    facts: EngineFacts


class LoadFailed(Struct, frozen=True, kw_only=True, tag="load_failed", array_like=True):
    """The model cannot be served; the message says why and what to do. The process exits 3."""

    message: str


class Accepted(Struct, frozen=True, array_like=True):
    """The call has a slot; its prompt's exact token count and its cap on output.

    `resumed_texts` is parallel to `resume_ids`: what each of them made certain to emit, silently
    replayed here, so that the agent can replay its parsers over the very same pieces.
    """

    call: int
    prompt_tokens: int
    max_tokens: int
    resumed_texts: tuple[str, ...] = ()


class Refused(Struct, frozen=True, array_like=True):
    """The call was not taken: a code of `protocol.refusals`, and why. `facts` are numbers, and
    under `param` the name of the parameter at fault."""

    call: int
    code: int
    message: str
    facts: dict[str, int | str] = {}


class CallTokens(Struct, frozen=True, array_like=True):
    """One call's share of a step. `text` is what became certain to emit, maybe ""."""

    call: int
    token_ids: tuple[int, ...]
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()


class CallProgress(Struct, frozen=True, array_like=True):
    """A call still in prefill: prompt tokens done of all."""

    call: int
    done: int
    total: int


class Ended(Struct, frozen=True, array_like=True):
    """The call is over and its slot free."""

    call: int
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
    stop_sequence: str | None = None


class CallFailed(Struct, frozen=True, array_like=True):
    """An accepted call that cannot go on, its slot is free: a code of `protocol.refusals`, why."""

    call: int
    code: int
    message: str


class Step(Struct, frozen=True, kw_only=True, tag="step", array_like=True):
    """Everything that one turn of the loop has to say; within a call, order is
    accepted, tokens, then ended or failed. `number` counts decode steps."""

    number: int
    accepted: tuple[Accepted, ...] = ()
    refused: tuple[Refused, ...] = ()
    tokens: tuple[CallTokens, ...] = ()
    prefill: tuple[CallProgress, ...] = ()
    ended: tuple[Ended, ...] = ()
    has_work: bool = False
    kv_cells_used: int = 0
    failed: tuple[CallFailed, ...] = ()


Event = Loaded | Ready | LoadFailed | Step

_encoder = msgspec.msgpack.Encoder()
command_decoder = msgspec.msgpack.Decoder(Command)
event_decoder = msgspec.msgpack.Decoder(Event)


def encode(frame: Command | Event) -> bytes:
    """The frame with its length in front."""
    body = _encoder.encode(frame)
    return len(body).to_bytes(HEADER_BYTES, "little") + body


class FrameBuffer:
    """Collects bytes and yields whole frame bodies; raises `ValueError` past the size limit."""

    def __init__(self) -> None:
        self._data = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """The bodies that `data` completes, in order."""
        self._data += data
        bodies: list[bytes] = []
        start = 0
        while len(self._data) - start >= HEADER_BYTES:
            size = int.from_bytes(self._data[start : start + HEADER_BYTES], "little")
            if size > MAX_FRAME_BYTES:
                raise ValueError(f"frame of {size} bytes, at most {MAX_FRAME_BYTES} are allowed")
            end = start + HEADER_BYTES + size
            if len(self._data) < end:
                break
            bodies.append(bytes(self._data[start + HEADER_BYTES : end]))
            start = end
        del self._data[:start]
        return bodies
