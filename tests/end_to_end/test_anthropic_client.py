"""Anthropic's own client and the shipped model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import anthropic
import pytest
from anthropic.types import MessageParam, ToolParam
from pydantic import BaseModel

from tests.support import weather_tool
from tests.support.cluster import Cluster

COUNT_TO_60 = "Count from 1 to 60."
COUNTED_TO_60 = " ".join(map(str, range(1, 61)))
GREEDY = {"temperature": 0}
"""The newest clients have no argument for it; the API has."""
TOOLS: list[ToolParam] = [
    {
        "name": weather_tool.NAME,
        "description": weather_tool.DESCRIPTION,
        "input_schema": weather_tool.SCHEMA,
    }
]


class City(BaseModel):
    """A city and how it is looked at."""

    city: Literal["Oslo", "Rome"]
    is_large: bool


@pytest.fixture
def client(serving: Cluster) -> Iterator[anthropic.Anthropic]:
    with anthropic.Anthropic(base_url=serving.inference_url, api_key="none") as client:
        yield client


def _asked(question: str) -> list[MessageParam]:
    return [{"role": "user", "content": question}]


def test_a_message_is_the_same_whole_and_streamed(client: anthropic.Anthropic) -> None:
    whole = client.messages.create(
        model="demo", max_tokens=300, messages=_asked(COUNT_TO_60), extra_body=GREEDY
    )
    (block,) = whole.content
    assert block.type == "text"
    assert (block.text, whole.stop_reason) == (COUNTED_TO_60, "end_turn")
    with client.messages.stream(
        model="demo", max_tokens=300, messages=_asked(COUNT_TO_60), extra_body=GREEDY
    ) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert "".join(pieces) == COUNTED_TO_60
    assert len(pieces) > 20
    assert final.stop_reason == whole.stop_reason
    assert final.usage.output_tokens == whole.usage.output_tokens


def test_an_answer_ends_at_its_limits(client: anthropic.Anthropic) -> None:
    cut = client.messages.create(
        model="demo", max_tokens=5, messages=_asked(COUNT_TO_60), extra_body=GREEDY
    )
    assert (cut.stop_reason, cut.usage.output_tokens) == ("max_tokens", 5)
    stopped = client.messages.create(
        model="demo",
        max_tokens=300,
        messages=_asked(COUNT_TO_60),
        extra_body=GREEDY,
        stop_sequences=[" 7"],
    )
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", " 7")


def test_a_tool_is_used_and_its_result_told(client: anthropic.Anthropic) -> None:
    messages = _asked(weather_tool.QUESTION)
    with client.messages.stream(
        model="demo", max_tokens=300, messages=messages, tools=TOOLS, extra_body=GREEDY
    ) as stream:
        first = stream.get_final_message()
    assert first.stop_reason == "tool_use"
    (use,) = [block for block in first.content if block.type == "tool_use"]
    assert (use.name, use.input) == (weather_tool.NAME, {"city": "Oslo"})
    result = weather_tool.weather("Oslo")
    messages += [
        {"role": "assistant", "content": first.content},
        {
            "role": "user",
            "content": [{"type": "tool_result", "tool_use_id": use.id, "content": result}],
        },
    ]
    second = client.messages.create(
        model="demo", max_tokens=300, messages=messages, tools=TOOLS, extra_body=GREEDY
    )
    (block,) = second.content
    assert block.type == "text"
    assert block.text == weather_tool.ANSWER


def test_an_answer_is_parsed_into_a_pydantic_model(client: anthropic.Anthropic) -> None:
    found = client.messages.parse(
        model="demo",
        max_tokens=300,
        messages=_asked("Where?"),
        output_format=City,
        extra_body=GREEDY,
    )
    assert isinstance(found.parsed_output, City)


def test_tokens_are_counted_as_a_message_counts_them(client: anthropic.Anthropic) -> None:
    question = _asked(weather_tool.QUESTION)
    counted = client.messages.count_tokens(model="demo", messages=question, tools=TOOLS)
    answered = client.messages.create(
        model="demo", max_tokens=1, messages=question, tools=TOOLS, extra_body=GREEDY
    )
    read = answered.usage.cache_read_input_tokens or 0
    assert counted.input_tokens == answered.usage.input_tokens + read


def test_a_refusal_is_theirs(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(model="claude-9", max_tokens=5, messages=_asked("Hello"))
    with pytest.raises(anthropic.BadRequestError, match="temperature"):
        client.messages.create(
            model="demo", max_tokens=5, messages=_asked("Hello"), extra_body={"temperature": -1}
        )
