"""What crosses the socket pair for queries: calls with one answer, that take no slot.

Their call numbers share a space with those of `Submit`; `CancelCall` ends them too, silently.
"""

from __future__ import annotations

from msgspec import Struct

from protocol.embeddings import EmbeddingInput, InputError, Pooling


class EmbedCall(Struct, frozen=True, kw_only=True, tag="embed", array_like=True):
    """Embed each input by itself: see `protocol.embeddings.EmbeddingRequest`."""

    call: int
    inputs: tuple[EmbeddingInput, ...]
    pooling: Pooling | None = None
    normalize: bool = True
    dimensions: int | None = None
    truncate: bool = False


class RerankCall(Struct, frozen=True, kw_only=True, tag="rerank", array_like=True):
    """Score each document by how well it answers the query."""

    call: int
    query: str
    documents: tuple[str, ...]


class TokenizeCall(Struct, frozen=True, kw_only=True, tag="tokenize", array_like=True):
    """The ids of a text: see `protocol.embeddings.TokenizeRequest`."""

    call: int
    text: str
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False
    as_prompt: bool = False
    """As a generation's prompt: with the token that the model wants at the start, and no other."""


class DetokenizeCall(Struct, frozen=True, kw_only=True, tag="detokenize", array_like=True):
    """The text of ids: see `protocol.embeddings.DetokenizeRequest`."""

    call: int
    token_ids: tuple[int, ...]
    show_special: bool = False


class ExportSequence(Struct, frozen=True, kw_only=True, tag="export_sequence", array_like=True):
    """Write the KV state of the call `target` to a file, at most `most_bytes`; `release`: the call
    ends with it (`cancelled`), unless it is refused."""

    call: int
    target: int
    path: str
    most_bytes: int
    release: bool = False


class ImportSequence(Struct, frozen=True, kw_only=True, tag="import_sequence", array_like=True):
    """Take the KV state of these tokens from a file, `size_bytes` long, into a scope's cache."""

    call: int
    scope: str
    token_ids: tuple[int, ...]
    path: str
    size_bytes: int


MoveCall = ExportSequence | ImportSequence
QueryCall = EmbedCall | RerankCall | TokenizeCall | DetokenizeCall


class Embedded(Struct, frozen=True, kw_only=True, tag="embedded", array_like=True):
    """The answer to `EmbedCall`: see `protocol.embeddings.Embeddings`."""

    call: int
    pooling: Pooling
    dimensions: int
    rows: tuple[int, ...]
    tokens: tuple[int, ...]
    vectors: bytes
    errors: tuple[InputError, ...] = ()


class Reranked(Struct, frozen=True, kw_only=True, tag="reranked", array_like=True):
    """The answer to `RerankCall`, parallel to its documents."""

    call: int
    scores: tuple[float | None, ...]
    tokens: tuple[int, ...]
    errors: tuple[InputError, ...] = ()


class Tokenized(Struct, frozen=True, kw_only=True, tag="tokenized", array_like=True):
    """The answer to `TokenizeCall`."""

    call: int
    token_ids: tuple[int, ...]
    pieces: tuple[str, ...] = ()


class Detokenized(Struct, frozen=True, kw_only=True, tag="detokenized", array_like=True):
    """The answer to `DetokenizeCall`."""

    call: int
    text: str


class Exported(Struct, frozen=True, kw_only=True, tag="exported", array_like=True):
    """The answer to `ExportSequence`: the state of the call's first `tokens` tokens, and which
    they are. `sampler_state` is as in `CallTokens`, after the last token that was sampled."""

    call: int
    tokens: int
    size_bytes: int
    token_ids: tuple[int, ...] = ()
    sampler_state: tuple[float, ...] = ()


class Imported(Struct, frozen=True, kw_only=True, tag="imported", array_like=True):
    """The answer to `ImportSequence`."""

    call: int


class QueryRefused(Struct, frozen=True, kw_only=True, tag="query_refused", array_like=True):
    """A query that gets no answer: a code of `protocol.refusals`, why, facts as in `Refused`."""

    call: int
    code: int
    message: str
    facts: dict[str, int | str] = {}


QueryAnswer = Embedded | Reranked | Tokenized | Detokenized | Exported | Imported | QueryRefused
