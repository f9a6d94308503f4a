"""What an agent without a model says to questions: bytes are tokens, and words in common score."""

from __future__ import annotations

import struct
from typing import assert_never

from balancer.fleet.queries import TextAnswer, TextQuestion
from protocol.chat import Message, TextPart
from protocol.descriptions import ModelDescription
from protocol.embeddings import EmbeddingRequest, Embeddings, Scores, Text, TokenIds
from protocol.rendering import Rendered
from protocol.to_agent import DescribeModel, Detokenize, Render, Rerank, Tokenize


def toy_answer(question: TextQuestion) -> TextAnswer:
    """The answer to any question."""
    match question:
        case Tokenize(text=text, with_pieces=with_pieces):
            data = text.encode()
            pieces = tuple(map(chr, data)) if with_pieces else ()
            return TokenIds(token_ids=tuple(data), pieces=pieces)
        case Detokenize(token_ids=ids):
            return Text(text=bytes(one % 256 for one in ids).decode("utf-8", "replace"))
        case Render():
            return _rendered(question)
        case DescribeModel():
            template = "{{ messages }}"
            return ModelDescription(
                chat_template=template, template_chars=len(template), tool_format="hermes"
            )
        case Rerank(query=query, documents=documents):
            words = set(query.split())
            return Scores(
                scores=tuple(float(len(words & set(one.split()))) for one in documents),
                tokens=tuple(len(query) + len(one) for one in documents),
            )
        case _:
            assert_never(question)


def toy_vectors(question: EmbeddingRequest) -> Embeddings:
    """A vector for each input: its length, and as many zeros as are wanted."""
    size = question.dimensions or 3
    rows = [struct.pack("<f", float(len(one))) + bytes(4 * (size - 1)) for one in question.inputs]
    return Embeddings(
        pooling="mean",
        dimensions=size,
        rows=(1,) * len(rows),
        tokens=tuple(map(len, question.inputs)),
        vectors=b"".join(rows),
    )


def _rendered(question: Render) -> Rendered:
    prompt = "".join(f"[{one.role}]{text_of(one)}" for one in question.messages)
    if question.template_arguments.get("add_generation_prompt", True):
        prompt += "[assistant]"
    return Rendered(
        prompt=prompt if question.with_prompt else "",
        prompt_tokens=len(prompt.encode()) if question.with_count else None,
    )


def text_of(message: Message) -> str:
    """All text of a message."""
    if isinstance(message.content, tuple):
        return "".join(part.text for part in message.content if isinstance(part, TextPart))
    return message.content or ""
