"""OpenAI's own client for Python, sync and async, and the shipped model: its helpers, not only its
routes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal, cast

import openai
import pytest
from openai.types.chat import (
    ChatCompletionMessage,
    ChatCompletionMessageFunctionToolCall,
    ChatCompletionMessageParam,
)
from pydantic import BaseModel, ConfigDict, Field

from tests.support import weather_tool
from tests.support.cluster import Cluster

COUNT_TO_60 = "Count from 1 to 60."
COUNTED_TO_60 = " ".join(map(str, range(1, 61)))
TOOLS: Any = [
    {
        "type": "function",
        "function": {
            "name": weather_tool.NAME,
            "description": weather_tool.DESCRIPTION,
            "parameters": weather_tool.SCHEMA,
            "strict": True,
        },
    }
]


class Place(BaseModel):
    """Where something is, in parts."""

    model_config = ConfigDict(extra="forbid")
    row: Literal["a", "b"]
    shelf: int = Field(ge=0, le=9)


class Found(BaseModel):
    """What a question is answered with."""

    model_config = ConfigDict(extra="forbid")
    city: Literal["Oslo", "Rome"]
    places: list[Place] = Field(min_length=1, max_length=2)
    remark: Literal["none", "some"] | None


@pytest.fixture
def client(serving: Cluster) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"{serving.inference_url}/v1", api_key="none") as client:
        yield client


@pytest.fixture
async def async_client(serving: Cluster) -> AsyncIterator[openai.AsyncOpenAI]:
    url = f"{serving.inference_url}/v1"
    async with openai.AsyncOpenAI(base_url=url, api_key="none") as client:
        yield client


def _asked(question: str) -> list[ChatCompletionMessageParam]:
    return [{"role": "user", "content": question}]


def _only_call(message: ChatCompletionMessage) -> ChatCompletionMessageFunctionToolCall:
    assert message.tool_calls is not None
    (call,) = message.tool_calls
    assert call.type == "function"
    return call


def test_an_answer_is_parsed_into_a_pydantic_model(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model="demo",
        messages=_asked("Where is it?"),
        response_format=Found,
        temperature=0,
        max_completion_tokens=400,
    )
    (choice,) = answer.choices
    assert isinstance(choice.message.parsed, Found)
    assert Found.model_validate_json(choice.message.content or "") == choice.message.parsed


def test_the_streaming_helper_tells_events_and_puts_the_answer_together(
    client: openai.OpenAI,
) -> None:
    with client.chat.completions.stream(
        model="demo",
        messages=_asked(COUNT_TO_60),
        temperature=0,
        logprobs=True,
        stream_options={"include_usage": True},
    ) as stream:
        events = list(stream)
        final = stream.get_final_completion()
    deltas = [event.delta for event in events if event.type == "content.delta"]
    assert "".join(deltas) == COUNTED_TO_60
    (done,) = [event for event in events if event.type == "content.done"]
    assert done.content == COUNTED_TO_60
    assert final.choices[0].message.content == COUNTED_TO_60
    assert final.choices[0].finish_reason == "stop"
    assert final.usage is not None
    assert final.choices[0].logprobs is not None
    assert len(final.choices[0].logprobs.content or ()) == final.usage.completion_tokens - 1


def test_the_streaming_helper_parses_what_it_heard(client: openai.OpenAI) -> None:
    with client.chat.completions.stream(
        model="demo",
        messages=_asked("Where is it?"),
        response_format=Found,
        temperature=0,
        max_completion_tokens=400,
    ) as stream:
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Found)


def test_a_tool_is_called_and_its_result_told(client: openai.OpenAI) -> None:
    messages = _asked(weather_tool.QUESTION)
    first = client.chat.completions.create(
        model="demo", messages=messages, tools=TOOLS, temperature=0
    )
    (choice,) = first.choices
    assert choice.finish_reason == "tool_calls"
    call = _only_call(choice.message)
    assert call.function.name == weather_tool.NAME
    result = weather_tool.weather(**json.loads(call.function.arguments))
    messages += [
        # as their guide does: the message goes back as the object that it came as
        cast("ChatCompletionMessageParam", choice.message),
        {"role": "tool", "tool_call_id": call.id, "content": result},
    ]
    second = client.chat.completions.create(
        model="demo", messages=messages, tools=TOOLS, temperature=0
    )
    assert second.choices[0].message.content == weather_tool.ANSWER
    assert second.choices[0].finish_reason == "stop"


async def test_the_async_client_streams_and_parses_a_call(
    async_client: openai.AsyncOpenAI,
) -> None:
    class GetWeather(BaseModel):
        model_config = ConfigDict(extra="forbid", title=weather_tool.NAME)
        city: str

    tool = openai.pydantic_function_tool(GetWeather, name=weather_tool.NAME)
    async with async_client.chat.completions.stream(
        model="demo", messages=_asked(weather_tool.QUESTION), tools=[tool], temperature=0
    ) as stream:
        pieces = [
            event.arguments_delta
            async for event in stream
            if event.type == "tool_calls.function.arguments.delta"
        ]
        final = await stream.get_final_completion()
    call = final.choices[0].message.tool_calls[0]  # type: ignore[index]  # none would be an error
    assert "".join(pieces) == call.function.arguments
    assert len(pieces) > 1
    assert call.function.parsed_arguments == GetWeather(city="Oslo")


async def test_the_async_client_has_choices_and_pieces(async_client: openai.AsyncOpenAI) -> None:
    whole = await async_client.chat.completions.create(
        model="demo", messages=_asked("Roll a die 20 times."), n=3, seed=1, max_tokens=20
    )
    assert [choice.index for choice in whole.choices] == [0, 1, 2]
    assert len({choice.message.content for choice in whole.choices}) > 1
    stream = await async_client.chat.completions.create(
        model="demo", messages=_asked(COUNT_TO_60), temperature=0, stream=True
    )
    pieces = [chunk.choices[0].delta.content or "" async for chunk in stream]
    assert "".join(pieces) == COUNTED_TO_60


async def test_a_text_completion_is_the_same_whole_and_in_pieces(
    async_client: openai.AsyncOpenAI,
) -> None:
    prompt = "<|im_start|>user\nCount from 1 to 60.<|im_end|>\n<|im_start|>assistant\n1 2 3"
    create = async_client.completions.create
    whole = await create(model="demo", prompt=prompt, temperature=0, max_tokens=30)
    assert whole.choices[0].text.startswith(" 4 5 6 7")
    stream = await create(model="demo", prompt=prompt, temperature=0, max_tokens=30, stream=True)
    pieces = [chunk.choices[0].text async for chunk in stream]
    assert "".join(pieces) == whole.choices[0].text


def test_responses_are_parsed_and_go_on_after_a_tool(client: openai.OpenAI) -> None:
    found = client.responses.parse(
        model="demo", input="Where is it?", text_format=Found, temperature=0
    )
    assert isinstance(found.output_parsed, Found)
    tool: Any = {"type": "function", "strict": True, **TOOLS[0]["function"]}
    first = client.responses.create(
        model="demo", input=weather_tool.QUESTION, tools=[tool], temperature=0
    )
    (call,) = [item for item in first.output if item.type == "function_call"]
    result = weather_tool.weather(**json.loads(call.arguments))
    second = client.responses.create(
        model="demo",
        previous_response_id=first.id,
        input=[{"type": "function_call_output", "call_id": call.call_id, "output": result}],
        tools=[tool],
        temperature=0,
    )
    assert second.output_text == weather_tool.ANSWER


def test_embeddings_are_the_same_in_both_encodings(client: openai.OpenAI) -> None:
    inputs = ["the cat", "the dog"]
    # the client asks for base64 by itself and decodes it
    packed = client.embeddings.create(model="demo", input=inputs)
    plain = client.embeddings.create(model="demo", input=inputs, encoding_format="float")
    assert [row.index for row in packed.data] == [0, 1]
    for one, other in zip(packed.data, plain.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
        assert sum(number**2 for number in one.embedding) == pytest.approx(1, abs=1e-3)
    assert packed.usage.prompt_tokens == plain.usage.prompt_tokens > 0


def test_models_are_listed_and_retrieved(client: openai.OpenAI) -> None:
    (listed,) = client.models.list().data
    assert client.models.retrieve(listed.id) == listed
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("gpt-9")
