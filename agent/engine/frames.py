"""What crosses the socket pair between the agent and its engine process.

Length-prefixed MessagePack, little-endian u32. Commands go to the engine, events come back; the
engine sends at most one `Step` a decode step, for all calls together.
"""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

from agent.engine.query_frames import MoveCall, QueryAnswer, QueryCall
from agent.grammar.reasoning_block import ReasoningBlock
from agent.grammar.tools import ToolGrammar
from protocol.chat import Modality
from protocol.generation import (
    DRY_SEQUENCE_BREAKERS,
    FinishReason,
    Timings,
    TokenLogprob,
    Usage,
)
from protocol.grammar import Grammar

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
    fit: Switch = "auto"
    """Off: load without a look at what memory there is."""
    prefix_cache: Switch = "auto"
    host_cache_bytes: int = 0
    """Bound of sequence states saved in host memory; -1: by the machine."""
    target_gap_ms: float = 0.0
    """Zero: a fixed prompt budget, larger where the machine is fast."""
    speculation: Switch = "auto"
    backend_sampling: Switch = "auto"
    """Let llama.cpp reduce rows where the output layer is; never where speculation is on."""
    draft_model_path: str = ""
    """A small model of the same vocabulary that drafts; none: drafts come from the text so far."""
    adapters: tuple[tuple[str, str], ...] = ()
    """LoRA adapters: names and files."""
    mmproj_path: str = ""
    """The projector that makes images or sounds embeddings of this model; empty: none."""


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
    dry_multiplier: float = 0.0
    dry_base: float = 1.75
    dry_allowed_length: int = 2
    dry_penalty_last_n: int = 64
    dry_sequence_breakers: tuple[str, ...] = DRY_SEQUENCE_BREAKERS
    xtc_probability: float = 0.0
    xtc_threshold: float = 0.1
    mirostat: int = 0
    mirostat_tau: float = 5.0
    mirostat_eta: float = 0.1
    logit_bias: tuple[tuple[int, float], ...] = ()
    ignore_eos: bool = False
    top_logprobs: int | None = None


class Medium(Struct, frozen=True, kw_only=True, array_like=True):
    """An image or a sound of a prompt, behind its first `at` characters.

    The data lie in a file that the engine opens once, before it accepts or refuses the call: RGB,
    three bytes a pixel, row by row; or float32 samples of one channel at the rate of `EngineFacts`.
    """

    kind: Literal["image", "audio"]
    at: int
    path: str
    digest: bytes
    """Of the data: equal digests are equal media."""
    width: int = 0
    height: int = 0
    samples: int = 0


class Submit(Struct, frozen=True, kw_only=True, tag="submit", array_like=True):
    """Generate. `prompt` is text (special tokens in it are parsed) or token ids.

    `resume_ids` were generated elsewhere: they are prefilled, replayed silently through the
    detokeniser and the stop matcher, and count as completion tokens; `resume_emitted_chars`, unless
    None, must equal what the replay would have emitted, else the call is refused with
    RESUME_MISMATCH (None: the agent compares after its parsers, whose output the client saw).
    `resume_sampler_state` came with the last of them (see `CallTokens`).
    `max_tokens` caps prompt-exclusive output including resumed tokens; None: what is left of the
    context. Neither an end token nor a stop string ends the text before `min_tokens`.

    Cached tokens are shared within a `scope` only. When KV cells are short the call of the lowest
    `priority` gives way first. `speculate` allows drafting, which changes no output. `adapters`
    are names and scales of loaded ones. `warm`: cache the prompt for all scopes, generate nothing.
    `context_shift`: when the context is full, go on without older tokens (context_shift.py).

    A `grammar` binds after the `reasoning` block, if the model has one, and so do `tools`; with
    both the text is a sentence of the grammar or calls of tools.
    """

    call: int
    prompt: str | tuple[int, ...]
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    resume_ids: tuple[int, ...] = ()
    resume_emitted_chars: int | None = None
    resume_sampler_state: tuple[float, ...] = ()
    scope: str = ""
    priority: int = 0
    speculate: bool = True
    adapters: tuple[tuple[str, float], ...] = ()
    context_shift: bool = False
    warm: bool = False
    grammar: Grammar | None = None
    reasoning: ReasoningBlock | None = None
    shown_specials: tuple[str, ...] = ()
    """Texts of control tokens that are text of the answer, too; others have none."""
    suffix: str | None = None
    """Not None: write what stands between the prompt, a text, and this."""
    media: tuple[Medium, ...] = ()
    """In the order in which they stand in the prompt, a text."""
    tools: ToolGrammar | None = None
    prompt_logprobs: bool = False
    """Unless the call resumes: score the prompt; see `GenerationRequest`."""


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


Command = Start | Submit | CancelCall | PauseCall | ContinueCall | Shutdown | QueryCall | MoveCall


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
    embedding_calls: int = 0
    """Calls for embeddings or scores that are taken at once, beside the slots."""
    embedding_dimensions: int = 0
    can_rerank: bool = False
    can_infill: bool = False
    adapters: tuple[tuple[str, str], ...] = ()
    """Names of the LoRA adapters that are loaded, and digests of their files."""
    modalities: tuple[Modality, ...] = ()
    """What a prompt may hold beside text."""
    audio_sample_rate: int = 0
    projector_digest: str = ""
    """Of the file that makes images and sounds embeddings."""
    file_digest: str = ""
    kv_layout: str = ""
    """See kv_identity.py; empty: nothing is generated."""
    host_cache_bytes: int = 0
    """Bound of the states in host memory, those of other agents among them."""


class LoadProgress(Struct, frozen=True, kw_only=True, tag="load_progress", array_like=True):
    """The weights are being read; a few a second at most."""

    fraction: float


class Loaded(Struct, frozen=True, kw_only=True, tag="loaded", array_like=True):
    """The model is in memory and its first decode follows; a death after this is the build's."""


class Ready(Struct, frozen=True, kw_only=True, tag="ready", array_like=True):
    """The model is loaded and has decoded; calls may be submitted."""

    facts: EngineFacts


class LoadFailed(Struct, frozen=True, kw_only=True, tag="load_failed", array_like=True):
    """The model cannot be served; the message says why and what to do. The process exits 3.

    `final`: a further try would fail likewise, a person must act.
    """

    message: str
    final: bool = False


class Accepted(Struct, frozen=True, array_like=True):
    """The call has a slot; its prompt's exact token count and its cap on output, and how much of
    the prompt was cached already.

    `resumed_texts` is parallel to `resume_ids`: what each of them made certain to emit, silently
    replayed here, so that the agent can replay its parsers over the very same pieces.
    """

    call: int
    prompt_tokens: int
    max_tokens: int
    resumed_texts: tuple[str, ...] = ()
    cached_tokens: int = 0


class Refused(Struct, frozen=True, array_like=True):
    """The call was not taken: a code of `protocol.refusals`, and why. `facts` are numbers, and
    under `param` the name of the parameter at fault."""

    call: int
    code: int
    message: str
    facts: dict[str, int | str] = {}


class CallTokens(Struct, frozen=True, array_like=True):
    """One call's share of a step. `text` is what became certain to emit, maybe "".

    `sampler_state` is what cannot be rebuilt from tokens, after the last of them: mirostat's mu,
    else nothing.
    """

    call: int
    token_ids: tuple[int, ...]
    text: str
    logprobs: tuple[TokenLogprob, ...] = ()
    sampler_state: tuple[float, ...] = ()


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


class CacheNews(Struct, frozen=True, array_like=True):
    """A holder of cached tokens (a sequence, or an entry in host memory) now has the first `tokens`
    of what `call` was given and generated; 0: it lost them, whoever's they were."""

    holder: int
    call: int
    tokens: int


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
    cache: tuple[CacheNews, ...] = ()
    waiting: tuple[int, ...] = ()
    """Accepted calls that stand still for others now: they gave way, or wait for a prefix."""
    preparing: bool = False
    """A call is made ready beside the loop. Another step is due, as with `has_work`."""


Event = LoadProgress | Loaded | Ready | LoadFailed | Step | QueryAnswer

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
