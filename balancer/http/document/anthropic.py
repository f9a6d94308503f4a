"""The routes of Anthropic's API."""

from __future__ import annotations

from typing import Any

from balancer.http.anthropic.schema import CountTokensRequest, MessagesRequest
from balancer.http.document.operation import (
    QUEUE_UPDATES,
    RESUMABLE,
    SSE,
    Answer,
    Example,
    asking,
)
from balancer.http.document.shapes import anthropic
from balancer.http.document.shapes.errors import AnthropicErrorBody, ErrorBody

_MESSAGES: dict[str, Any] = {"messages": [{"role": "user", "content": "What is a slot?"}]}

OPERATIONS = (
    asking(
        path="/v1/messages",
        tag="Anthropic",
        summary="Answer with a message",
        bodies=(MessagesRequest,),
        parameters=(RESUMABLE, QUEUE_UPDATES),
        answers=(
            Answer(
                description="The message; with `stream`, its events.",
                shapes=(anthropic.AnthropicMessage,),
                stream_type=SSE,
                events=(*anthropic.EVENTS, AnthropicErrorBody),
            ),
        ),
        error_shapes=(AnthropicErrorBody, ErrorBody),
        examples=(
            Example(name="whole", body={**_MESSAGES, "max_tokens": 32}),
            Example(
                name="streamed",
                body={**_MESSAGES, "max_tokens": 32, "stream": True},
                is_stream=True,
            ),
        ),
    ),
    asking(
        path="/v1/messages/count_tokens",
        tag="Anthropic",
        summary="How many tokens a message would have",
        bodies=(CountTokensRequest,),
        answers=(Answer(description="The count.", shapes=(anthropic.CountedTokens,)),),
        error_shapes=(AnthropicErrorBody, ErrorBody),
        examples=(Example(name="a question", body=_MESSAGES),),
    ),
)
