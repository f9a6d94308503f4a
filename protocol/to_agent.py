"""Messages that an agent receives, with the results of the calls among them."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta, Struct, structs

from protocol.descriptions import DescriptionRequest
from protocol.embeddings import (
    DetokenizeRequest,
    EmbeddingRequest,
    RerankRequest,
    TokenizeRequest,
)
from protocol.generation import Count, GenerationRequest, Resume, SamplerState
from protocol.jsonrpc import CallId
from protocol.prefix_chain import PackedBlocks
from protocol.rendering import RenderRequest
from protocol.transfer_messages import MAX_STATE_BYTES, AbortTransfer, Credit

MAX_SEQUENCE_TOKENS = 2**24


class GenerateTokens(GenerationRequest, frozen=True, kw_only=True, omit_defaults=True):
    """Generate for this request. The result, `Committed`, means: rendered, counted, slot taken.

    `created` is the one date on the link (unix seconds), the one that chat templates see;
    `deadline_ms` is what is left, never a clock time.
    """

    created: int = 0
    deadline_ms: Annotated[int, Meta(ge=0)] | None = None
    cache_scope: Annotated[str, Meta(max_length=128)] = ""
    prefix_chain: PackedBlocks = b""
    """The request's blocks in `cache_scope` (`protocol.prefix_chain`); an agent computes what of
    them is missing."""
    trace_id: Annotated[str, Meta(max_length=128)] = ""
    resume: Resume | None = None


class Committed(Struct, frozen=True, kw_only=True):
    """The result of `generate_tokens`: exact prompt count and the cap on output in force.

    `cached_tokens` of the prompt were in the KV cache already; what another call is computing may
    be added by the end, when `Usage` tells all of them.
    """

    prompt_tokens: Count
    max_tokens: int
    cached_tokens: Count = 0


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
    """Ask for a full status now; the result is an `AgentStatus`. Before it come all cached blocks,
    as `cache_changed` messages the first of which starts over."""


class Embed(EmbeddingRequest, frozen=True, kw_only=True, omit_defaults=True):
    """Embed the inputs. The result, `Embeddings`, comes when all are done; an error is a refusal.
    It takes no slot. `cancel` ends it: the answer is then the error `cancelled`."""


class Rerank(RerankRequest, frozen=True, kw_only=True, omit_defaults=True):
    """Score the documents; the result is `Scores`. Otherwise as `embed`."""


class Tokenize(TokenizeRequest, frozen=True, kw_only=True, omit_defaults=True):
    """The ids of a text; the result is `TokenIds`."""


class Detokenize(DetokenizeRequest, frozen=True, kw_only=True, omit_defaults=True):
    """The text of ids; the result is `Text`."""


class Render(RenderRequest, frozen=True, kw_only=True, omit_defaults=True):
    """The prompt of a chat; the result is `Rendered`. Refused as `generate_tokens` would be where
    there is no template, or where it fails."""


class DescribeModel(DescriptionRequest, frozen=True, kw_only=True, omit_defaults=True):
    """Its chat template and formats; the result is `ModelDescription`."""


class ExportSequence(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Send what the KV cache has of a running call. The result is `ExportedSequence`; its bytes
    follow in a binary transfer that bears this request's id, a number.

    `release`: the call ends at once, its `finished` (`cancelled`) comes before the result, and no
    text held back is flushed, so that it goes on elsewhere as if nothing had happened. A refused
    export leaves the call as it was.
    """

    call: CallId
    release: bool = False


class ExportedSequence(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result of `export_sequence`: the state of the call's first `tokens` tokens (the last one
    sampled is not among them), `size_bytes` long, for agents of the same `kv_key`. The sampler's
    state is for `Resume`; whatever else a call has follows from its tokens."""

    tokens: Annotated[int, Meta(ge=1, le=MAX_SEQUENCE_TOKENS)]
    size_bytes: Annotated[int, Meta(ge=1, le=MAX_STATE_BYTES)]
    kv_key: Annotated[str, Meta(max_length=128)]
    sampler_state: SamplerState = ()


class ImportSequence(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Keep an exported state as a cached prefix of `cache_scope`, for the call that resumes it.

    Its bytes follow in a binary transfer that bears this request's id, a number. The result,
    `ImportedSequence`, comes when the engine has them; an error may come at any time before and
    means that nothing is kept. Importing the same tokens again changes nothing.
    """

    tokens: Annotated[int, Meta(ge=1, le=MAX_SEQUENCE_TOKENS)]
    size_bytes: Annotated[int, Meta(ge=1, le=MAX_STATE_BYTES)]
    kv_key: Annotated[str, Meta(max_length=128)]
    cache_scope: Annotated[str, Meta(max_length=128)] = ""


class ImportedSequence(Struct, frozen=True, kw_only=True):
    """The result of `import_sequence`: so many tokens are cached."""

    tokens: Count


METHODS: dict[str, type[Struct]] = {
    "generate_tokens": GenerateTokens,
    "cancel": Cancel,
    "pause": Pause,
    "continue": Continue,
    "snapshot": Snapshot,
    "embed": Embed,
    "rerank": Rerank,
    "tokenize": Tokenize,
    "detokenize": Detokenize,
    "render": Render,
    "describe_model": DescribeModel,
    "export_sequence": ExportSequence,
    "import_sequence": ImportSequence,
    "credit": Credit,
    "abort_transfer": AbortTransfer,
}

QUERIES = frozenset({"embed", "rerank", "tokenize", "detokenize", "render", "describe_model"})
"""Calls that take no slot and are over with their answer."""
MOVES = frozenset({"export_sequence", "import_sequence"})
"""Requests that a transfer of a sequence's state goes with."""
REQUESTS = frozenset({"generate_tokens", "snapshot"}) | QUERIES | MOVES


def generate_tokens_call(
    request: GenerationRequest,
    *,
    created: int,
    deadline_ms: int | None,
    trace_id: str,
    cache_scope: str = "",
    prefix_chain: bytes = b"",
    resume: Resume | None = None,
) -> GenerateTokens:
    """The call for a canonical request, here and now."""
    return GenerateTokens(
        **structs.asdict(request),
        created=created,
        deadline_ms=deadline_ms,
        trace_id=trace_id,
        cache_scope=cache_scope,
        prefix_chain=prefix_chain,
        resume=resume,
    )
