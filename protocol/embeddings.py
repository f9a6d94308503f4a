"""The canonical embedding, reranking and tokenising requests, and what comes back.

Every API family translates to these; nothing in them belongs to one family.
"""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta, Struct

from protocol.generation import Count, TokenId

Pooling = Literal["none", "mean", "cls", "last", "rank"]
"""How an input's token vectors become its own: not at all, their mean, the first, the last, or the
scores of the model's classification head."""

MAX_INPUTS = 2048
MAX_DIMENSIONS = 2**20
FLOAT_BYTES = 4
MAX_VECTOR_BYTES = 32 * 1024 * 1024
"""Of all vectors of a request; more is refused."""

EmbeddingInput = str | tuple[TokenId, ...]


class EmbeddingRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Embed each input by itself. `pooling` of None: the one that the model was trained for, or
    the mean. `dimensions` keeps the first of each vector; then, unless `normalize` is off, it is
    scaled to length 1 (scores of pooling `rank` never are). `truncate` takes of an
    input that is too long what fits; otherwise that is an error.
    """

    model: str = ""
    inputs: Annotated[tuple[EmbeddingInput, ...], Meta(min_length=1, max_length=MAX_INPUTS)]
    pooling: Pooling | None = None
    normalize: bool = True
    dimensions: Annotated[int, Meta(ge=1, le=MAX_DIMENSIONS)] | None = None
    truncate: bool = False


class InputError(Struct, frozen=True, array_like=True):
    """Why one input of a request has no vector, or one document no score: its index in the
    request, a code of `protocol.refusals`, and words for the client."""

    index: int
    code: int
    message: str


class Embeddings(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result of `embed`. All vectors in the order of the inputs, raw little-endian float32.

    Input i has `rows[i]` vectors of `dimensions` numbers: one, with pooling `none` one a token, and
    none where `errors` names it. `tokens[i]` is its exact token count. Either `vectors` holds the
    bytes, or as many as `vectors_follow` says come in a binary transfer that bears the call's id.
    """

    pooling: Pooling
    dimensions: Annotated[int, Meta(ge=0, le=MAX_DIMENSIONS)]
    rows: tuple[Count, ...]
    tokens: tuple[Count, ...]
    errors: tuple[InputError, ...] = ()
    vectors: bytes = b""
    vectors_follow: Annotated[int, Meta(ge=0, le=MAX_VECTOR_BYTES)] = 0


class RerankRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How well does each document answer the query?"""

    model: str = ""
    query: str
    documents: Annotated[tuple[str, ...], Meta(min_length=1, max_length=MAX_INPUTS)]


class Scores(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result of `rerank`, parallel to the documents: higher is better, None where `errors` says
    why; `tokens` counts query and document together."""

    scores: tuple[float | None, ...]
    tokens: tuple[Count, ...]
    errors: tuple[InputError, ...] = ()


class TokenizeRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`add_special` adds the tokens that the model wants around a text; `parse_special` reads
    special tokens written in it as such; `with_pieces` asks for each token's bytes."""

    model: str = ""
    text: str
    add_special: bool = False
    parse_special: bool = True
    with_pieces: bool = False


class TokenIds(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The result of `tokenize`; `pieces`, if asked for, as latin-1 text: a char a byte."""

    token_ids: tuple[int, ...]
    pieces: tuple[str, ...] = ()


class DetokenizeRequest(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """`show_special` writes special tokens as their text; otherwise they are left out."""

    model: str = ""
    token_ids: tuple[TokenId, ...]
    show_special: bool = False


class Text(Struct, frozen=True, kw_only=True):
    """The result of `detokenize`; bytes that are no UTF-8 become U+FFFD."""

    text: str
