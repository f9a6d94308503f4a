"""The yardstick for answers measures: what an official client lets pass, it does not."""

from __future__ import annotations

import json
from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from tests.support.strict_types import conforms

ANSWER: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1,
    "model": "demo",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2},
    "more": "than the type has",
}


def _with(**fields: Any) -> dict[str, Any]:
    choice = {**ANSWER["choices"][0], **fields.pop("choice", {})}
    return {**ANSWER, "choices": [choice], **fields}


def test_an_answer_with_all_of_its_fields_conforms() -> None:
    assert conforms(ChatCompletion, json.dumps(ANSWER)) == ANSWER


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        ({k: v for k, v in ANSWER.items() if k != "created"}, "$.created: missing"),
        (_with(object="chat"), "$.object: 'chat' is none of"),
        (_with(created=1.5), "$.created: 1.5 is no int"),
        (_with(created=True), "$.created: True is no int"),
        (_with(model=None), "$.model: None is no str"),
        (_with(choices={}), "$.choices: {} is no list"),
        (_with(choices=[None]), "$.choices[0]: None is no Choice"),
        (_with(choice={"finish_reason": None}), "$.choices[0].finish_reason: None is none of"),
        (_with(choice={"message": {}}), "$.choices[0].message.role: missing"),
        (_with(choice={"logprobs": {"content": [{}]}}), "logprobs.content[0].token: missing"),
        (_with(usage={}), "$.usage.prompt_tokens: missing"),
        (_with(metadata={"a": 1}), "$.metadata['a']: 1 is no str"),
    ],
)
def test_what_is_missing_or_of_another_type_is_told(answer: dict[str, Any], says: str) -> None:
    with pytest.raises(AssertionError) as told:
        conforms(ChatCompletion, json.dumps(answer))
    assert says in str(told.value)


def test_a_field_that_may_be_null_besides_is_named() -> None:
    answer = _with(choice={"finish_reason": None})
    conforms(ChatCompletion, json.dumps(answer), nullable=["Choice.finish_reason"])
