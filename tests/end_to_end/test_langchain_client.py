"""LangChain's client for OpenAI and the shipped model."""

from __future__ import annotations

from typing import Any, Literal

import pytest
from langchain_core.messages import AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel, Field, SecretStr

from tests.support import weather_tool
from tests.support.cluster import Cluster

COUNT_TO_60 = "Count from 1 to 60."
COUNTED_TO_60 = " ".join(map(str, range(1, 61)))


class City(BaseModel):
    """A city and how often it was named."""

    city: Literal["Oslo", "Rome"]
    count: int = Field(ge=0, le=9)


@tool
def get_weather(city: str) -> str:
    """Get the weather of a city"""
    return weather_tool.weather(city)


@pytest.fixture
def model(serving: Cluster) -> ChatOpenAI:
    url = f"{serving.inference_url}/v1"
    return ChatOpenAI(model="demo", base_url=url, api_key=SecretStr("none"), temperature=0)


def test_a_model_is_invoked_and_says_what_it_used(model: ChatOpenAI) -> None:
    answer = model.invoke(COUNT_TO_60)
    assert answer.content == COUNTED_TO_60
    assert answer.response_metadata["finish_reason"] == "stop"
    assert answer.usage_metadata is not None
    assert answer.usage_metadata["output_tokens"] > 60


def test_a_model_streams(model: ChatOpenAI) -> None:
    pieces = list(model.stream(COUNT_TO_60))
    assert "".join(str(piece.content) for piece in pieces) == COUNTED_TO_60
    assert len(pieces) > 20


async def test_a_model_streams_to_coroutines(model: ChatOpenAI) -> None:
    pieces = [piece async for piece in model.astream(COUNT_TO_60)]
    assert "".join(str(piece.content) for piece in pieces) == COUNTED_TO_60


def test_a_bound_tool_is_called_and_its_result_told(model: ChatOpenAI) -> None:
    bound = model.bind_tools([get_weather])
    messages: list[BaseMessage] = [HumanMessage(weather_tool.QUESTION)]
    first = bound.invoke(messages)
    (call,) = first.tool_calls
    assert (call["name"], call["args"]) == (weather_tool.NAME, {"city": "Oslo"})
    messages += [first, get_weather.invoke(call)]
    assert bound.invoke(messages).content == weather_tool.ANSWER


def test_a_streamed_call_is_put_together(model: ChatOpenAI) -> None:
    whole: Any = AIMessageChunk(content="")
    for piece in model.bind_tools([get_weather]).stream(weather_tool.QUESTION):
        whole += piece
    assert [call["args"] for call in whole.tool_calls] == [{"city": "Oslo"}]


def test_an_answer_has_the_structure_that_was_asked_for(model: ChatOpenAI) -> None:
    found = model.with_structured_output(City).invoke("Where?")
    assert isinstance(found, City)
