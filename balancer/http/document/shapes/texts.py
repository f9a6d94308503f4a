"""What is answered about texts: ids, prompts, scores, and one text for another."""

from __future__ import annotations

from typing import Literal

from msgspec import UNSET, Struct, UnsetType


class Piece(Struct, kw_only=True):
    """A token; its bytes where they are no text by themselves."""

    id: int
    piece: str | list[int]


class Tokens(Struct, kw_only=True):
    """A text's ids."""

    tokens: list[int | Piece]


class Content(Struct, kw_only=True):
    """The text of ids."""

    content: str


class Prompt(Struct, kw_only=True):
    """What a chat looks like to the model."""

    prompt: str


class Document(Struct, kw_only=True):
    """One that was sent."""

    text: str


class Ranked(Struct, kw_only=True):
    """A document's place and score."""

    index: int
    relevance_score: float
    document: Document | UnsetType = UNSET


class RankingUsage(Struct, kw_only=True):
    """Tokens of all pairs."""

    total_tokens: int
    prompt_tokens: int


class Ranking(Struct, kw_only=True):
    """The best document first."""

    object: Literal["list"]
    model: str
    results: list[Ranked]
    usage: RankingUsage


class InferenceOutputs(Struct, kw_only=True):
    """The text, how many tokens it has, and the time without waiting."""

    generated_text: str
    token_count: int
    processing_time_ms: float


class InferenceAnswer(Struct, kw_only=True):
    """One text by model and version."""

    model_id: str
    model_version: str
    outputs: InferenceOutputs
