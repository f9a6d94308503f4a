"""Answers hold against the types that the official clients ship, stricter than the clients look:
no field that must be there is missing, every literal is one of theirs."""

from __future__ import annotations

import json
import urllib.request
from typing import Any

import pytest
from anthropic.types import Message, MessageTokensCount, RawMessageStreamEvent
from openai.types import Completion, CreateEmbeddingResponse, Model
from openai.types.chat import ChatCompletion, ChatCompletionChunk
from openai.types.responses import Response, ResponseItem, ResponseStreamEvent

from tests.support import weather_tool
from tests.support.cluster import Cluster
from tests.support.strict_types import conforms

UNFINISHED = ("Choice.finish_reason", "CompletionChoice.finish_reason")
"""Null until a stream's choice ends; the types say so of chats only, the documentation of both."""

COUNTING: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Count from 1 to 20."}],
    "temperature": 0,
    "max_tokens": 60,
}
CALLING: dict[str, Any] = {
    "messages": [{"role": "user", "content": weather_tool.QUESTION}],
    "temperature": 0,
    "max_tokens": 100,
}
FUNCTION = {"name": weather_tool.NAME, "parameters": weather_tool.SCHEMA}
TOOLS = [{"type": "function", "function": FUNCTION}]
ITS_TOOLS = [{"name": weather_tool.NAME, "input_schema": weather_tool.SCHEMA}]
CHATS: dict[str, dict[str, Any]] = {
    "plain": COUNTING,
    "cut": {**COUNTING, "max_tokens": 3},
    "stopped": {**COUNTING, "stop": [" 7"]},
    "logprobs": {**COUNTING, "logprobs": True, "top_logprobs": 3},
    "choices": {**COUNTING, "n": 2, "logprobs": True, "temperature": 1, "seed": 3},
    "tools": {**CALLING, "tools": TOOLS},
    "thinking": {**COUNTING, "reasoning_effort": "high"},
}
PROMPT = {"prompt": "Count from 1 to 20.", "temperature": 0, "max_tokens": 8}
COMPLETIONS: dict[str, dict[str, Any]] = {
    "plain": PROMPT,
    "logprobs": {**PROMPT, "logprobs": 2},
    "choices": {**PROMPT, "n": 2, "temperature": 1, "seed": 3},
}
RESPONSES: dict[str, dict[str, Any]] = {
    "plain": {"input": "Count from 1 to 20.", "temperature": 0},
    "cut": {"input": "Count from 1 to 20.", "temperature": 0, "max_output_tokens": 3},
    "tools": {
        "input": weather_tool.QUESTION,
        "temperature": 0,
        "max_output_tokens": 100,
        "tools": [{"type": "function", "strict": True, **FUNCTION}],
    },
    "thinking": {
        "input": "Count from 1 to 20.",
        "temperature": 0,
        "reasoning": {"effort": "high"},
    },
    "logprobs": {
        "input": "Count from 1 to 20.",
        "temperature": 0,
        "include": ["message.output_text.logprobs"],
        "top_logprobs": 2,
    },
}
MESSAGES: dict[str, dict[str, Any]] = {
    "plain": COUNTING,
    "cut": {**COUNTING, "max_tokens": 3},
    "stopped": {**COUNTING, "stop_sequences": [" 7"]},
    "tools": {**CALLING, "tools": ITS_TOOLS},
    "thinking": {
        **COUNTING,
        "max_tokens": 1200,
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    },
}


def _post(cluster: Cluster, path: str, body: dict[str, Any]) -> bytes:
    data = json.dumps({"model": "demo", **body}).encode()
    request = urllib.request.Request(f"{cluster.inference_url}{path}", data)
    with urllib.request.urlopen(request, timeout=60) as answer:
        said: bytes = answer.read()
        return said


def _events(said: bytes) -> list[bytes]:
    """The data of a stream's events."""
    lines = said.split(b"\n")
    return [line.removeprefix(b"data: ") for line in lines if line.startswith(b"data: ")]


def _chunks(cluster: Cluster, path: str, body: dict[str, Any]) -> list[bytes]:
    usage = {"stream": True, "stream_options": {"include_usage": True}}
    *chunks, done = _events(_post(cluster, path, {**body, **usage}))
    assert done == b"[DONE]"
    return chunks


@pytest.mark.parametrize("form", CHATS)
def test_chat_completions_have_every_field(serving: Cluster, form: str) -> None:
    answer = conforms(ChatCompletion, _post(serving, "/v1/chat/completions", CHATS[form]))
    assert len(answer["choices"]) == CHATS[form].get("n", 1)
    assert answer["usage"]["total_tokens"] > 0
    for choice in answer["choices"]:
        # documented as required, null where there is none; the types cannot say that
        assert choice["message"].keys() >= {"content", "refusal"}
        assert "logprobs" in choice
    (first, *_) = answer["choices"]
    assert (first["logprobs"] is not None) == ("logprobs" in CHATS[form])
    assert ("tool_calls" in first["message"]) == (form == "tools")


@pytest.mark.parametrize("form", CHATS)
def test_chunks_of_chats_have_every_field(serving: Cluster, form: str) -> None:
    said = _chunks(serving, "/v1/chat/completions", CHATS[form])
    chunks = [conforms(ChatCompletionChunk, chunk) for chunk in said]
    assert chunks[-1]["choices"] == []
    assert chunks[-1]["usage"]["total_tokens"] > 0
    assert {chunk["usage"] for chunk in chunks[:-1]} == {None}
    assert len({(chunk["id"], chunk["created"], chunk["model"]) for chunk in chunks}) == 1
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    assert all("finish_reason" in choice for choice in choices)
    ends = [choice["index"] for choice in choices if choice["finish_reason"]]
    assert sorted(ends) == list(range(CHATS[form].get("n", 1)))


@pytest.mark.parametrize("form", COMPLETIONS)
def test_text_completions_have_every_field(serving: Cluster, form: str) -> None:
    answer = conforms(Completion, _post(serving, "/v1/completions", COMPLETIONS[form]))
    assert answer["usage"]["total_tokens"] > 0
    has_logprobs = [choice["logprobs"] is not None for choice in answer["choices"]]
    assert has_logprobs == ["logprobs" in COMPLETIONS[form]] * COMPLETIONS[form].get("n", 1)
    said = _chunks(serving, "/v1/completions", COMPLETIONS[form])
    chunks = [conforms(Completion, chunk, nullable=UNFINISHED) for chunk in said]
    ends = [
        choice["index"]
        for chunk in chunks
        for choice in chunk["choices"]
        if choice["finish_reason"] is not None
    ]
    assert sorted(ends) == list(range(COMPLETIONS[form].get("n", 1)))


@pytest.mark.parametrize("form", RESPONSES)
def test_responses_have_every_field(serving: Cluster, form: str) -> None:
    answer = conforms(Response, _post(serving, "/v1/responses", RESPONSES[form]))
    assert answer["status"] == ("incomplete" if form == "cut" else "completed")
    # documented as required, null where there is none
    assert answer.keys() >= {"error", "incomplete_details", "instructions", "usage"}
    kept = serving.get(f"{serving.inference_url}/v1/responses/{answer['id']}")
    assert conforms(Response, kept)["output"] == answer["output"]
    url = f"{serving.inference_url}/v1/responses/{answer['id']}/input_items"
    for item in serving.get_json(url)["data"]:
        conforms(ResponseItem, json.dumps(item))


@pytest.mark.parametrize("form", RESPONSES)
def test_events_of_responses_have_every_field(serving: Cluster, form: str) -> None:
    said = _post(serving, "/v1/responses", {**RESPONSES[form], "stream": True})
    events = [conforms(ResponseStreamEvent, event) for event in _events(said)]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert events[0]["type"] == "response.created"
    last = "response.incomplete" if form == "cut" else "response.completed"
    assert events[-1]["type"] == last


def test_embeddings_have_every_field(serving: Cluster) -> None:
    body = {"input": ["the cat", "the dog"], "encoding_format": "float"}
    answer = conforms(CreateEmbeddingResponse, _post(serving, "/v1/embeddings", body))
    packed = json.loads(_post(serving, "/v1/embeddings", {**body, "encoding_format": "base64"}))
    # the types have no base64: their client replaces it before they see it
    for row, plain in zip(packed["data"], answer["data"], strict=True):
        assert isinstance(row["embedding"], str)
        row["embedding"] = plain["embedding"]
    assert packed == answer


def test_models_have_every_field(serving: Cluster) -> None:
    listed = serving.get_json(f"{serving.inference_url}/v1/models")
    assert listed["object"] == "list"
    for row in listed["data"]:
        conforms(Model, json.dumps(row))
        conforms(Model, serving.get(f"{serving.inference_url}/v1/models/{row['id']}"))


@pytest.mark.parametrize("form", MESSAGES)
def test_messages_have_every_field(serving: Cluster, form: str) -> None:
    answer = conforms(Message, _post(serving, "/v1/messages", MESSAGES[form]))
    # documented as required, null where there is none
    assert answer.keys() >= {"stop_reason", "stop_sequence"}
    assert answer["content"]


@pytest.mark.parametrize("form", MESSAGES)
def test_events_of_messages_have_every_field(serving: Cluster, form: str) -> None:
    said = _post(serving, "/v1/messages", {**MESSAGES[form], "stream": True})
    events = [conforms(RawMessageStreamEvent, event) for event in _events(said)]
    names = [
        line.removeprefix("event: ") for line in said.decode().split("\n") if "event: " in line
    ]
    assert names == [event["type"] for event in events]
    assert (names[0], *names[-2:]) == ("message_start", "message_delta", "message_stop")
    opened = [event["index"] for event in events if event["type"] == "content_block_start"]
    closed = [event["index"] for event in events if event["type"] == "content_block_stop"]
    assert opened == closed == list(range(len(opened)))


def test_counts_of_tokens_have_every_field(serving: Cluster) -> None:
    body = {"messages": CALLING["messages"], "tools": ITS_TOOLS}
    conforms(MessageTokensCount, _post(serving, "/v1/messages/count_tokens", body))
