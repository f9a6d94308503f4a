"""What Cohere's and Jina's clients send, as they send it: types and ranges only, no meaning.

https://jina.ai/reranker, https://docs.cohere.com/reference/rerank. Every field but the two that
matter may be null. Unknown fields are ignored.
"""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta, Struct

from protocol.embeddings import MAX_INPUTS
from protocol.models import MODEL_NAME_PATTERN


class DocumentIn(Struct):
    """A document as an object."""

    text: str


class RerankBody(Struct, kw_only=True):
    """The body of POST /v1/rerank."""

    model: Annotated[str, Meta(pattern=MODEL_NAME_PATTERN)] | None = None
    query: Annotated[str, Meta(min_length=1)]
    documents: Annotated[list[str | DocumentIn], Meta(min_length=1, max_length=MAX_INPUTS)]
    top_n: Annotated[int, Meta(ge=1)] | None = None
    return_documents: bool | None = None

    # Known, and refused: see translate.
    rank_fields: Any = None
    max_chunks_per_doc: Any = None
    max_tokens_per_doc: Any = None


EXPECTED = {
    "model": "1 to 200 characters of A-Z a-z 0-9 . _ : / @ -",
    "query": "a string that is not empty",
    "documents": f"a list of 1 to {MAX_INPUTS} strings, or objects with a `text`",
    "top_n": "an integer, at least 1",
    "return_documents": "true or false",
}
"""What an error says was expected, by parameter."""
