"""Ollama's own client and the shipped model: what an Ollama would do, this does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import ollama
import pytest

from tests.support.cluster import Cluster
from tests.support.sure_prompts import sure_prompts

COUNT_TO_120 = "Count from 1 to 120."
COUNTED_TO_120 = " ".join(map(str, range(1, 121)))
GREEDY = {"temperature": 0, "repeat_penalty": 1}
CITY = {
    "type": "object",
    "properties": {"city": {"enum": ["Oslo", "Rome"]}, "count": {"type": "integer", "maximum": 9}},
    "required": ["city", "count"],
    "additionalProperties": False,
}


@pytest.fixture
def client(serving: Cluster) -> Iterator[ollama.Client]:
    with ollama.Client(host=serving.inference_url, timeout=60) as client:
        yield client


def test_chats_and_prompts_are_answered_alike_whole_and_streamed(client: ollama.Client) -> None:
    turn = [{"role": "user", "content": COUNT_TO_120}]
    whole = client.chat("demo", turn, options=GREEDY)
    assert whole.message.content == COUNTED_TO_120
    parts = list(client.chat("demo:latest", turn, options=GREEDY, stream=True))
    assert "".join(part.message.content or "" for part in parts) == COUNTED_TO_120
    assert len(parts) > 50
    assert (parts[-1].done_reason, parts[-1].eval_count) == ("stop", whole.eval_count)
    assert (parts[-1].eval_duration or 0) > 0
    question, answer = sure_prompts()[0]
    assert client.generate("demo", question, options=GREEDY).response == answer
    pieces = client.generate("demo", question, options=GREEDY, stream=True)
    assert "".join(piece.response or "" for piece in pieces) == answer


def test_options_have_their_effect(client: ollama.Client) -> None:
    def answer(prompt: str = COUNT_TO_120, **options: Any) -> ollama.GenerateResponse:
        return client.generate("demo", prompt, options={**GREEDY, **options})

    cut = answer(num_predict=5)
    assert (cut.eval_count, cut.done_reason) == (5, "length")
    stopped = answer(stop=[" 7"])
    assert (stopped.response, stopped.done_reason) == ("1 2 3 4 5 6", "stop")
    assert answer(repeat_penalty=1.5, repeat_last_n=-1).response != COUNTED_TO_120
    wild = {"temperature": 2, "top_k": 0, "top_p": 1, "num_predict": 20}
    first, again, *others = (
        answer("Write a poem.", **wild, seed=seed).response for seed in (1, 1, 2, 3, 4)
    )
    assert first == again
    assert set(others) != {first}


def test_an_answer_keeps_to_its_format(client: ollama.Client) -> None:
    options = {**GREEDY, "num_predict": 200}
    told = [
        client.generate("demo", prompt, format=CITY, options=options)
        for prompt in ("Where?", "Answer in JSON: city and count.", "What is a slot?")
    ]
    found = [json.loads(one.response or "") for one in told if one.done_reason == "stop"]
    assert found
    for one in found:
        assert one["city"] in ("Oslo", "Rome")
        assert one["count"] <= 9


def test_a_raw_prompt_goes_on_without_a_template(client: ollama.Client) -> None:
    raw = client.generate("demo", COUNT_TO_120, raw=True, options={**GREEDY, "num_predict": 5})
    shown = client.generate("demo", COUNT_TO_120, options={**GREEDY, "num_predict": 5})
    assert (raw.prompt_eval_count or 0) < (shown.prompt_eval_count or 0)


def test_inputs_are_embedded(client: ollama.Client) -> None:
    several = client.embed("demo", ["the cat", "the dog"])
    assert len(several.embeddings) == 2
    assert sum(number**2 for number in several.embeddings[0]) == pytest.approx(1, abs=1e-3)


def test_the_model_is_listed_shown_and_loaded(client: ollama.Client) -> None:
    (listed,) = client.list().models
    assert listed.model == "demo:latest"
    assert listed.details is not None
    shown = client.show(listed.model)
    assert shown.modelinfo is not None
    family = shown.modelinfo["general.architecture"]
    assert listed.details.family == family
    assert shown.modelinfo[f"{family}.context_length"] > 0
    assert client.generate(listed.model).done_reason == "load"
