"""The routes of OpenAI's API, and those beside them that answer generations."""

from __future__ import annotations

from balancer.http.document.operation import (
    FINDING,
    QUEUE_UPDATES,
    READING,
    RESUMABLE,
    SSE,
    Answer,
    Example,
    Operation,
    Parameter,
    asking,
    place,
)
from balancer.http.document.shapes import openai
from balancer.http.document.shapes.errors import ErrorBody, ErrorEvent, TextErrorBody
from balancer.http.document.shapes.texts import InferenceAnswer
from balancer.http.inference.schema import InferenceBody
from balancer.http.openai.schema import ChatCompletionRequest, CompletionRequest, EmbeddingsRequest

_MESSAGES = [{"role": "user", "content": "What is a slot?"}]
_PARAMETERS = (RESUMABLE, QUEUE_UPDATES)

OPERATIONS = (
    asking(
        path="/v1/chat/completions",
        ports=("inference", "management"),
        tag="OpenAI",
        summary="Answer a chat",
        bodies=(ChatCompletionRequest,),
        parameters=_PARAMETERS,
        answers=(
            Answer(
                description="The answer; with `stream`, events and then `[DONE]`.",
                shapes=(openai.ChatCompletion,),
                stream_type=SSE,
                events=(openai.ChatCompletionChunk, ErrorEvent),
            ),
        ),
        examples=(
            Example(name="whole", body={"messages": _MESSAGES, "max_tokens": 32}),
            Example(
                name="streamed",
                body={
                    "messages": _MESSAGES,
                    "max_tokens": 32,
                    "stream": True,
                    "stream_options": {"include_usage": True},
                },
                is_stream=True,
            ),
        ),
    ),
    asking(
        path="/v1/completions",
        tag="OpenAI",
        summary="Go on with a text",
        bodies=(CompletionRequest,),
        parameters=_PARAMETERS,
        answers=(
            Answer(
                description="The text; with `stream`, events and then `[DONE]`.",
                shapes=(openai.Completion,),
                stream_type=SSE,
                events=(openai.CompletionChunk, ErrorEvent),
            ),
        ),
        examples=(
            Example(name="whole", body={"prompt": "A slot is", "max_tokens": 16}),
            Example(
                name="streamed",
                body={"prompt": "A slot is", "max_tokens": 16, "stream": True},
                is_stream=True,
            ),
            Example(
                name="scored",
                body={"prompt": "A slot is", "max_tokens": 0, "echo": True, "logprobs": 1},
            ),
        ),
    ),
    asking(
        path="/v1/embeddings",
        tag="OpenAI",
        summary="Make vectors of texts",
        description="Needs a model that makes embeddings.",
        bodies=(EmbeddingsRequest,),
        answers=(
            Answer(
                description="A vector for each input, in their order.",
                shapes=(openai.EmbeddingList,),
            ),
        ),
        examples=(
            Example(name="numbers", body={"input": ["a cat", "a dog"]}),
            Example(name="base64", body={"input": "a cat", "encoding_format": "base64"}),
        ),
    ),
    Operation(
        ports=("inference", "management"),
        method="GET",
        path="/v1/models",
        tag="OpenAI",
        summary="The models that are served now",
        answers=(Answer(description="By each of their names.", shapes=(openai.ModelList,)),),
        examples=(Example(name="list"),),
    ),
    Operation(
        ports=("inference", "management"),
        method="GET",
        path="/v1/models/{id...}",
        tag="OpenAI",
        summary="One model",
        parameters=(place("id", "Any of its names; a `/` may be encoded.", "paddler-demo"),),
        answers=(Answer(description="The model.", shapes=(openai.ModelRow,)),),
        errors=FINDING,
        examples=(Example(name="by name"),),
    ),
    Operation(
        ports=("inference",),
        method="GET",
        path="/v1/streams/{id}",
        tag="Paddler",
        summary="Take up a stream again",
        description="One that was asked for with `X-Paddler-Resumable: 1`, after its connection "
        "was lost. It is kept for a minute after its end.",
        parameters=(
            place("id", "The `X-Paddler-Request-Id` of the stream's answer.", "req_0"),
            Parameter(
                name="Last-Event-ID",
                where="header",
                description="The id of the last event that came; without it all events come.",
            ),
        ),
        answers=(
            Answer(
                description="All later events, in the form that the stream had.",
                content_type=SSE,
                stream_type=SSE,
            ),
        ),
        errors=(*READING, 404, 409, 502, 503, 504),
        examples=(Example(name="of nobody", status=404),),
    ),
    asking(
        path="/inference",
        tag="Paddler",
        summary="One text by model and version",
        bodies=(InferenceBody,),
        answers=(Answer(description="The text.", shapes=(InferenceAnswer,)),),
        error_shapes=(TextErrorBody, ErrorBody),
        examples=(
            Example(
                name="a text",
                body={
                    "model_id": "paddler-demo",
                    "inputs": {"text": "A slot is"},
                    "parameters": {"max_tokens": 16},
                },
            ),
        ),
    ),
)
