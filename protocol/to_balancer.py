"""Messages that the balancer receives from an agent, with the result of `register`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct

from protocol.agent_status import AgentStatus, Hardware, Issue
from protocol.generation import (
    FinishReason,
    SamplerState,
    StepDelta,
    Timings,
    TokenLogprob,
    Usage,
)
from protocol.jsonrpc import CallId, ErrorObject
from protocol.models import ServedModel
from protocol.prefix_chain import HASH_BYTES, PackedBlocks
from protocol.transfer_messages import AbortTransfer, Credit

PROTOCOL_VERSION = 1
OLDEST_PROTOCOL_VERSION = 1

AGENT_NAME_PATTERN = r"^[A-Za-z0-9._:-]{1,128}$"
RESERVED_AGENT_NAMES = frozenset({"connect", ".", ".."})
"""The path `/agents/NAME` means something else for these, so no agent may have them."""
AgentName = Annotated[str, Meta(pattern=AGENT_NAME_PATTERN)]
Label = Annotated[str, Meta(max_length=128)]


class Register(Struct, frozen=True, kw_only=True):
    """The first message of a link. `epoch` is drawn when the agent's process starts. A reserved
    `name` is refused.

    Agents with equal `resume_key` can take over each other's generations, those with equal `kv_key`
    (if they have one) each other's KV cache, too; the balancer only compares. `status.slots_total`
    is 0 while no model is loaded.
    """

    name: AgentName
    epoch: Annotated[str, Meta(min_length=1, max_length=64)]
    protocol_min: Annotated[int, Meta(ge=1)]
    protocol_max: Annotated[int, Meta(ge=1)]
    version: Annotated[str, Meta(max_length=64)] = ""
    llama_cpp_version: Annotated[str, Meta(max_length=64)] = ""
    labels: Annotated[dict[Label, Label], Meta(max_length=64)] = {}
    hardware: Hardware = Hardware()
    model: ServedModel | None = None
    resume_key: Annotated[str, Meta(max_length=128)] = ""
    kv_key: Annotated[str, Meta(max_length=128)] = ""
    status: AgentStatus


class Welcome(Struct, frozen=True, kw_only=True):
    """The result of `register`: the protocol version chosen and the heartbeat's rhythm."""

    protocol_version: int
    heartbeat_interval_ms: int
    heartbeat_misses: int


class Heartbeat(Struct, frozen=True, kw_only=True):
    """A full status; sent at the agreed interval and at once when slots or the model change."""

    status: AgentStatus
    model: ServedModel | None = None
    resume_key: Annotated[str, Meta(max_length=128)] = ""
    kv_key: Annotated[str, Meta(max_length=128)] = ""


class PrefillProgress(Struct, frozen=True, array_like=True):
    """How far a call's prompt is: tokens done of all."""

    call: CallId
    done: int
    total: int


class Tokens(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One engine step: parallel arrays over the calls that got tokens in it.

    `logprobs` is empty unless a call of the step asked for them; then it is parallel too. So is
    `sampler_states`, which is for `Resume.sampler_state`: only mirostat has one.
    """

    calls: tuple[CallId, ...]
    token_ids: tuple[tuple[int, ...], ...]
    deltas: tuple[StepDelta, ...]
    logprobs: tuple[tuple[TokenLogprob, ...], ...] = ()
    prefill: tuple[PrefillProgress, ...] = ()
    sampler_states: tuple[SamplerState, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.calls) == len(self.token_ids) == len(self.deltas):
            raise ValueError("`calls`, `token_ids` and `deltas` must have equal length")
        if self.logprobs and len(self.logprobs) != len(self.calls):
            raise ValueError("`logprobs` must be empty or as long as `calls`")
        if self.sampler_states and len(self.sampler_states) != len(self.calls):
            raise ValueError("`sampler_states` must be empty or as long as `calls`")


class Finished(Struct, frozen=True, kw_only=True):
    """A call's end; its slot is free."""

    call: CallId
    finish_reason: FinishReason
    usage: Usage
    timings: Timings = Timings()
    stop_sequence: str | None = None


class Failed(Struct, frozen=True, kw_only=True):
    """A committed call's bad end; its slot is free."""

    call: CallId
    error: ErrorObject


class CacheChanged(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Prefix blocks that the agent's cache gained and lost since the message before.

    `cache_seq` grows by one a message, over all links of the agent's process. `starts_over`: what
    was told before does not count any more. Within `gained` a block comes after those before it.
    """

    cache_seq: Annotated[int, Meta(ge=1)]
    gained: PackedBlocks = b""
    lost: PackedBlocks = b""
    starts_over: bool = False

    def __post_init__(self) -> None:
        if len(self.gained) % HASH_BYTES or len(self.lost) % HASH_BYTES:
            raise ValueError(f"blocks have {HASH_BYTES} bytes each")


class IssueRaised(Struct, frozen=True, kw_only=True):
    """Something is wrong with the agent; the same code replaces the earlier text."""

    issue: Issue


class IssueCleared(Struct, frozen=True, kw_only=True):
    """What was wrong is well again."""

    code: Annotated[str, Meta(max_length=64)]


class Goodbye(Struct, frozen=True, kw_only=True):
    """The agent leaves on purpose: nothing new please, the socket closes when calls ended."""

    reason: Annotated[str, Meta(max_length=256)] = ""


METHODS: dict[str, type[Struct]] = {
    "register": Register,
    "heartbeat": Heartbeat,
    "tokens": Tokens,
    "finished": Finished,
    "failed": Failed,
    "cache_changed": CacheChanged,
    "issue_raised": IssueRaised,
    "issue_cleared": IssueCleared,
    "goodbye": Goodbye,
    "credit": Credit,
    "abort_transfer": AbortTransfer,
}

REQUESTS = frozenset({"register"})
