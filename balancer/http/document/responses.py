"""The routes of OpenAI's Responses."""

from __future__ import annotations

from balancer.http.document.operation import (
    FINDING,
    QUEUE_UPDATES,
    RESUMABLE,
    SSE,
    Answer,
    Example,
    Operation,
    Parameter,
    asking,
    place,
)
from balancer.http.document.shapes import responses
from balancer.http.document.shapes.errors import ErrorEvent
from balancer.http.responses.schema import InputTokensRequest, ResponseRequest
from balancer.http.responses.stored import MOST_ITEMS

_ID = place("id", "The response's id.", "resp_0")
_PATH = "/v1/responses/{id}"

OPERATIONS = (
    asking(
        path="/v1/responses",
        tag="OpenAI Responses",
        summary="Answer with a response",
        bodies=(ResponseRequest,),
        parameters=(RESUMABLE, QUEUE_UPDATES),
        answers=(
            Answer(
                description="The response; with `stream`, its events.",
                shapes=(responses.ResponseObject,),
                stream_type=SSE,
                events=(responses.ResponseEvent, ErrorEvent),
            ),
        ),
        examples=(
            Example(name="whole", body={"input": "What is a slot?", "max_output_tokens": 32}),
            Example(
                name="streamed",
                body={"input": "What is a slot?", "max_output_tokens": 32, "stream": True},
                is_stream=True,
            ),
        ),
    ),
    asking(
        path="/v1/responses/input_tokens",
        tag="OpenAI Responses",
        summary="How many tokens a response would have before its answer",
        bodies=(InputTokensRequest,),
        answers=(Answer(description="The count.", shapes=(responses.InputTokens,)),),
        examples=(Example(name="a question", body={"input": "What is a slot?"}),),
    ),
    Operation(
        ports=("inference",),
        method="GET",
        path=_PATH,
        tag="OpenAI Responses",
        summary="A stored response",
        parameters=(
            _ID,
            Parameter(
                name="stream",
                where="query",
                description="Not true: a stored response comes as one body.",
            ),
        ),
        answers=(Answer(description="As it was given.", shapes=(responses.ResponseObject,)),),
        errors=FINDING,
        examples=(Example(name="of nobody", status=404),),
    ),
    Operation(
        ports=("inference",),
        method="DELETE",
        path=_PATH,
        tag="OpenAI Responses",
        summary="Forget a response",
        description="What continues it can no longer be continued.",
        parameters=(_ID,),
        answers=(Answer(description="It is gone.", shapes=(responses.DeletedResponse,)),),
        errors=FINDING,
        examples=(Example(name="of nobody", status=404),),
    ),
    Operation(
        ports=("inference",),
        method="GET",
        path="/v1/responses/{id}/input_items",
        tag="OpenAI Responses",
        summary="The conversation up to a response",
        parameters=(
            _ID,
            Parameter(
                name="limit",
                where="query",
                description="How many at most.",
                schema={"type": "integer", "minimum": 1, "maximum": MOST_ITEMS},
            ),
            Parameter(
                name="order",
                where="query",
                description="The newest first (`desc`), unless it is `asc`.",
                schema={"enum": ["asc", "desc"]},
            ),
            Parameter(
                name="after", where="query", description="The id of an item: those behind it."
            ),
        ),
        answers=(Answer(description="A page of it.", shapes=(responses.InputItemList,)),),
        errors=FINDING,
        examples=(Example(name="of nobody", query={"limit": "5"}, status=404),),
    ),
    Operation(
        ports=("inference",),
        method="POST",
        path="/v1/responses/{id}/cancel",
        tag="OpenAI Responses",
        summary="Refused: nothing runs in the background",
        parameters=(_ID,),
        answers=(),
        errors=FINDING,
        examples=(Example(name="of nobody", status=404),),
    ),
)
