"""The routes of Ollama's API."""

from __future__ import annotations

from typing import Any

from balancer.http.document.operation import (
    NDJSON,
    READING,
    Answer,
    Example,
    Operation,
    asking,
)
from balancer.http.document.shapes import ollama
from balancer.http.document.shapes.errors import ErrorBody, TextErrorBody
from balancer.http.document.shapes.openai import EmbeddingList
from balancer.http.ollama.schema import (
    ChatRequest,
    EmbedRequest,
    GenerateRequest,
    PromptEmbeddingRequest,
    ShowRequest,
)
from balancer.http.openai.schema import EmbeddingsRequest

_ERRORS = (TextErrorBody, ErrorBody)
_CHAT: dict[str, Any] = {
    "model": "paddler-demo",
    "messages": [{"role": "user", "content": "What is a slot?"}],
    "options": {"num_predict": 32},
}
_PROMPT: dict[str, Any] = {
    "model": "paddler-demo",
    "prompt": "What is a slot?",
    "options": {"num_predict": 32},
}

OPERATIONS = (
    asking(
        path="/api/chat",
        tag="Ollama",
        summary="Answer a chat",
        bodies=(ChatRequest,),
        answers=(
            Answer(
                description="An object a line, the last with `done`; without `stream`, one object.",
                shapes=(ollama.OllamaChat,),
                stream_type=NDJSON,
                events=(ollama.OllamaChat, TextErrorBody),
            ),
        ),
        error_shapes=_ERRORS,
        examples=(
            Example(name="streamed", body=_CHAT, is_stream=True),
            Example(name="whole", body={**_CHAT, "stream": False}),
            Example(name="load", body={"model": "paddler-demo"}),
        ),
    ),
    asking(
        path="/api/generate",
        tag="Ollama",
        summary="Answer a prompt",
        bodies=(GenerateRequest,),
        answers=(
            Answer(
                description="An object a line, the last with `done`; without `stream`, one object.",
                shapes=(ollama.OllamaGeneration,),
                stream_type=NDJSON,
                events=(ollama.OllamaGeneration, TextErrorBody),
            ),
        ),
        error_shapes=_ERRORS,
        examples=(
            Example(name="streamed", body=_PROMPT, is_stream=True),
            Example(name="whole", body={**_PROMPT, "stream": False}),
        ),
    ),
    asking(
        path="/api/embed",
        tag="Ollama",
        summary="Make vectors of texts",
        description="Needs a model that makes embeddings.",
        bodies=(EmbedRequest,),
        answers=(
            Answer(description="A vector for each input.", shapes=(ollama.OllamaEmbeddings,)),
        ),
        error_shapes=_ERRORS,
        examples=(
            Example(name="two", body={"model": "paddler-demo", "input": ["a cat", "a dog"]}),
            Example(name="none", body={"model": "paddler-demo", "input": []}),
        ),
    ),
    asking(
        path="/api/embeddings",
        tag="Ollama",
        summary="Make a vector of a text",
        description="With `input` instead of `prompt`, the body and the answer are OpenAI's.",
        bodies=(PromptEmbeddingRequest, EmbeddingsRequest),
        answers=(
            Answer(
                description="The vector, or OpenAI's list.",
                shapes=(ollama.OllamaEmbedding, EmbeddingList),
            ),
        ),
        error_shapes=_ERRORS,
        examples=(
            Example(name="Ollama's", body={"model": "paddler-demo", "prompt": "a cat"}),
            Example(name="OpenAI's", body={"input": "a cat"}),
        ),
    ),
    Operation(
        ports=("inference",),
        method="GET",
        path="/api/tags",
        tag="Ollama",
        summary="The models that there are",
        answers=(Answer(description="By each of their names.", shapes=(ollama.OllamaTags,)),),
        error_shapes=_ERRORS,
        examples=(Example(name="list"),),
    ),
    Operation(
        ports=("inference",),
        method="GET",
        path="/api/ps",
        tag="Ollama",
        summary="The models in memory",
        answers=(Answer(description="The same ones.", shapes=(ollama.OllamaRunning,)),),
        error_shapes=_ERRORS,
        examples=(Example(name="list"),),
    ),
    Operation(
        ports=("inference",),
        method="POST",
        path="/api/show",
        tag="Ollama",
        summary="What is known of one model",
        bodies=(ShowRequest,),
        answers=(Answer(description="The model.", shapes=(ollama.OllamaModel,)),),
        errors=(*READING, 404, 415, 503),
        error_shapes=_ERRORS,
        examples=(Example(name="by name", body={"model": "paddler-demo"}),),
    ),
    Operation(
        ports=("inference",),
        method="GET",
        path="/api/version",
        tag="Ollama",
        summary="The release of Ollama whose API this is",
        answers=(Answer(description="The release.", shapes=(ollama.OllamaVersion,)),),
        error_shapes=_ERRORS,
        examples=(Example(name="version"),),
    ),
    Operation(
        ports=("inference",),
        method="GET",
        path="/",
        tag="Ollama",
        summary="What Ollama's command line looks for",
        answers=(Answer(description="`Ollama is running`", content_type="text/plain"),),
        error_shapes=_ERRORS,
        examples=(Example(name="greeting"),),
    ),
)
