"""Encodes a step's `tokens`, in several messages in the rare case that one would be too large."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec import structs

from protocol.codec import MAX_TEXT_FRAME_BYTES, encode_notification
from protocol.generation import (
    ContentDelta,
    ReasoningDelta,
    StepDelta,
    ToolCallDelta,
    TypedDelta,
)
from protocol.to_balancer import Tokens

TEXT_CHUNK_CHARS = 16 * 1024
"""Small enough for any text: JSON writes a character in at most 6 bytes."""


def encode_tokens(tokens: Tokens) -> Iterator[bytes]:
    """The step as one message, or halves of it where one does not fit a frame."""
    message = encode_notification(tokens)
    if len(message) <= MAX_TEXT_FRAME_BYTES:
        yield message
        return
    if len(tokens.calls) > 1:
        for half in _halves(tokens):
            yield from encode_tokens(half)
    else:
        yield from map(encode_notification, _slices(tokens))


def _halves(tokens: Tokens) -> Iterator[Tokens]:
    middle = len(tokens.calls) // 2
    for half, prefill in ((slice(middle), tokens.prefill), (slice(middle, None), ())):
        yield Tokens(
            calls=tokens.calls[half],
            token_ids=tokens.token_ids[half],
            deltas=tokens.deltas[half],
            logprobs=tokens.logprobs[half],
            prefill=prefill,
            sampler_states=tokens.sampler_states[half],
        )


def _slices(tokens: Tokens) -> Iterator[Tokens]:
    """One call's step: tokens with their logprobs first, then the text in pieces."""
    yield from _logprob_slices(structs.replace(tokens, deltas=("",)))
    for piece in _pieces(tokens.deltas[0]):
        yield Tokens(calls=tokens.calls, token_ids=((),), deltas=(piece,))


def _logprob_slices(tokens: Tokens) -> Iterator[Tokens]:
    """Those of a scored prompt may be many; the tokens come with the last of them, so that a call
    that is lost between two messages begins anew."""
    entries = tokens.logprobs[0] if tokens.logprobs else ()
    if len(entries) < 2 or len(encode_notification(tokens)) <= MAX_TEXT_FRAME_BYTES:
        yield tokens
        return
    middle = len(entries) // 2
    first = Tokens(
        calls=tokens.calls,
        token_ids=((),),
        deltas=("",),
        logprobs=(entries[:middle],),
        prefill=tokens.prefill,
    )
    yield from _logprob_slices(first)
    rest = structs.replace(tokens, logprobs=(entries[middle:],), prefill=())
    yield from _logprob_slices(rest)


def _pieces(delta: StepDelta) -> Iterator[StepDelta]:
    if isinstance(delta, str):
        yield from _cut(delta)
        return
    for part in delta:
        yield from ((piece,) for piece in _cut_typed(part))


def _cut_typed(part: TypedDelta) -> Iterator[TypedDelta]:
    match part:
        case ContentDelta(text=text):
            yield from map(ContentDelta, _cut(text))
        case ReasoningDelta(text=text):
            yield from map(ReasoningDelta, _cut(text))
        case ToolCallDelta(index=index, arguments=arguments):
            yield structs.replace(part, arguments="")
            yield from (ToolCallDelta(index=index, arguments=piece) for piece in _cut(arguments))


def _cut(text: str) -> Iterator[str]:
    for start in range(0, len(text), TEXT_CHUNK_CHARS):
        yield text[start : start + TEXT_CHUNK_CHARS]
