"""Messages that an agent receives, with the results of the calls among them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, structs

from protocol.generation import GenerationRequest, Resume
from protocol.jsonrpc import CallId
from protocol.transfer_messages import AbortTransfer, Credit


class GenerateTokens(GenerationRequest, frozen=True, kw_only=True, omit_defaults=True):
    """Generate for this request. The result, `Committed`, means: rendered, counted, slot taken.

    `created` is the one date on the link (unix seconds), the one that chat templates see;
    `deadline_ms` is what is left, never a clock time.
    """

    created: int = 0
    deadline_ms: Annotated[int, Meta(ge=0)] | None = None
    cache_scope: Annotated[str, Meta(max_length=128)] = ""
    trace_id: Annotated[str, Meta(max_length=128)] = ""
    resume: Resume | None = None


class Committed(Struct, frozen=True, kw_only=True):
    """The result of `generate_tokens`: exact prompt count and the cap on output in force."""

    prompt_tokens: int
    max_tokens: int


class Cancel(Struct, frozen=True, kw_only=True):
    """Stop a call; answered by its `finished` with `cancelled`, also when it is unknown."""

    call: CallId


class Pause(Struct, frozen=True, kw_only=True):
    """Stop producing for a call, keep its place: its client does not read."""

    call: CallId


class Continue(Struct, frozen=True, kw_only=True):
    """Go on with a paused call."""

    call: CallId


class Snapshot(Struct, frozen=True, kw_only=True):
    """Ask for a full status now; the result is an `AgentStatus`."""


METHODS: dict[str, type[Struct]] = {
    "generate_tokens": GenerateTokens,
    "cancel": Cancel,
    "pause": Pause,
    "continue": Continue,
    "snapshot": Snapshot,
    "credit": Credit,
    "abort_transfer": AbortTransfer,
}

REQUESTS = frozenset({"generate_tokens", "snapshot"})


def generate_tokens_call(
    request: GenerationRequest,
    *,
    created: int,
    deadline_ms: int | None,
    trace_id: str,
    cache_scope: str = "",
    resume: Resume | None = None,
) -> GenerateTokens:
    """The call for a canonical request, here and now."""
    return GenerateTokens(
        **structs.asdict(request),
        created=created,
        deadline_ms=deadline_ms,
        trace_id=trace_id,
        cache_scope=cache_scope,
        resume=resume,
    )
