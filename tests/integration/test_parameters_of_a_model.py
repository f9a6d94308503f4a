"""Parameters over HTTP and what a real model makes of them: each one changes something."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from balancer.policy.choices import seed_of_choice
from tests.support.running_balancer import RunningBalancer
from tests.support.tiny_gguf import END, tokens, write_tiny_gguf
from tests.support.tiny_site import tiny_site

SLOTS = 4
SHARE = 256
"""Tokens of context that a call has."""
END_ID = str(tokens().index(END))
BODY: dict[str, Any] = {
    "prompt": "the cat and the dog and the cat and the bird ",
    "seed": 11,
    "max_tokens": 40,
    "ignore_eos": True,
}
ENDS_AT_ONCE = {"ignore_eos": False, "logit_bias": {END_ID: 100}}
ABC = {"type": "object", "properties": {"abc": {"const": 1}}, "required": ["abc"]}
DRY = {"dry_multiplier": 50, "dry_base": 2, "dry_allowed_length": 1}
SOME_DRY = {"dry_multiplier": 0.1, "dry_base": 1, "dry_allowed_length": 0}
XTC = {"xtc_probability": 1, "xtc_threshold": 0.01}
MIROSTAT = {"mirostat": 2}
REPEAT = {"repeat_penalty": 5}

CHANGES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "temperature": ({}, {"temperature": 0.1}),
    "top_p": ({}, {"top_p": 0.1}),
    "top_k": ({}, {"top_k": 2}),
    "min_p": ({}, {"min_p": 0.9}),
    "typical_p": ({}, {"typical_p": 0.1}),
    "presence_penalty": ({}, {"presence_penalty": 2}),
    "frequency_penalty": ({}, {"frequency_penalty": 2}),
    "repeat_penalty": ({}, REPEAT),
    "repeat_last_n": (REPEAT, {**REPEAT, "repeat_last_n": 1}),
    "dry_multiplier": ({}, DRY),
    "dry_base": (SOME_DRY, {**SOME_DRY, "dry_base": 50}),
    "dry_allowed_length": (DRY, {**DRY, "dry_allowed_length": 9}),
    "dry_penalty_last_n": (DRY, {**DRY, "dry_penalty_last_n": 1}),
    "dry_sequence_breakers": (DRY, {**DRY, "dry_sequence_breakers": list("abcdefghijk mnopqrst")}),
    "xtc_probability": ({}, XTC),
    "xtc_threshold": (XTC, {**XTC, "xtc_threshold": 0.4}),
    "mirostat": ({}, MIROSTAT),
    "mirostat_tau": (MIROSTAT, {**MIROSTAT, "mirostat_tau": 1}),
    "mirostat_eta": (MIROSTAT, {**MIROSTAT, "mirostat_eta": 1}),
    "seed": ({}, {"seed": 12}),
    "logit_bias": ({}, {"logit_bias": {"65": 100}}),
    "stop": ({"logit_bias": {"65": 100}}, {"logit_bias": {"65": 100}, "stop": ["AAA"]}),
    "max_tokens": ({}, {"max_tokens": 5}),
    "n_predict": ({}, {"max_tokens": None, "n_predict": 5}),
    "min_tokens": (ENDS_AT_ONCE, {**ENDS_AT_ONCE, "min_tokens": 5}),
    "ignore_eos": (ENDS_AT_ONCE, {**ENDS_AT_ONCE, "ignore_eos": True}),
    "grammar": ({}, {"grammar": "root ::= [0-9]+"}),
    "json_schema": ({}, {"json_schema": ABC, "max_tokens": 200}),
    "response_format": ({}, {"response_format": {"type": "json_object"}}),
    "suffix": ({}, {"suffix": " and the cow"}),
    "echo": ({}, {"echo": True}),
    "context_shift": ({"max_tokens": SHARE}, {"max_tokens": SHARE, "context_shift": True}),
}
"""By parameter: a request without it, and the same with it."""


@pytest.fixture
async def balancer(tmp_path: Path) -> AsyncIterator[RunningBalancer]:
    """One whose agent serves a model that says what its seed and its parameters say."""
    path = write_tiny_gguf(tmp_path / "tiny.gguf", infill={"pre": 1, "suf": 2, "mid": 3})
    options = {"slots": SLOTS, "context_tokens": SLOTS * SHARE, "unified_kv": "off"}
    async with tiny_site(path, **options) as balancer:
        yield balancer


async def completion(balancer: RunningBalancer, **given: Any) -> Any:
    """A text completion's body."""
    answer = await balancer.post("/v1/completions", {**BODY, **given})
    assert answer.status == 200, (given, answer.body)
    return answer.json()


async def said(balancer: RunningBalancer, **given: Any) -> str:
    text: str = (await completion(balancer, **given))["choices"][0]["text"]
    return text


async def test_every_parameter_changes_what_a_model_says(balancer: RunningBalancer) -> None:
    without = await asyncio.gather(*(said(balancer, **one) for one, _ in CHANGES.values()))
    given = await asyncio.gather(*(said(balancer, **one) for _, one in CHANGES.values()))
    again = await asyncio.gather(*(said(balancer, **one) for _, one in CHANGES.values()))
    assert given == again  # it was no accident
    alike = [name for name, a, b in zip(CHANGES, without, given, strict=True) if a == b]
    assert alike == []
    texts = dict(zip(CHANGES, given, strict=True))
    assert texts["logit_bias"] == "A" * BODY["max_tokens"]
    assert texts["stop"] == ""
    assert texts["grammar"].isdigit()
    assert json.loads(texts["json_schema"]) == {"abc": 1}
    assert texts["echo"] == BODY["prompt"] + without[0]


async def test_log_probabilities_are_ranked_and_sum_to_no_more_than_one(
    balancer: RunningBalancer,
) -> None:
    given: dict[str, Any] = {
        "logprobs": True,
        "top_logprobs": 20,
        "max_completion_tokens": 8,
        "max_tokens": 99,
    }
    sampled = await balancer.chat(seed=3, ignore_eos=True, **given)
    greedy = await balancer.chat(temperature=0, ignore_eos=True, **given)
    for answer in (sampled, greedy):
        entries = answer.json()["choices"][0]["logprobs"]["content"]
        assert len(entries) == 8  # max_completion_tokens, not max_tokens
        for entry in entries:
            tops = [top["logprob"] for top in entry["top_logprobs"]]
            assert len(tops) == 20
            assert tops == sorted(tops, reverse=True)
            assert 0.1 < sum(map(math.exp, tops)) <= 1 + 1e-4
            same = [top for top in entry["top_logprobs"] if top["bytes"] == entry["bytes"]]
            assert all(math.isclose(top["logprob"], entry["logprob"]) for top in same)
            assert same or entry["logprob"] <= tops[-1]
            if answer is greedy:
                assert entry["logprob"] == tops[0]


async def test_a_prompt_s_tokens_are_as_likely_as_when_the_model_said_them(
    balancer: RunningBalancer,
) -> None:
    """What lm-evaluation-harness counts on: greedy answers are those of the highest likelihood."""
    said = await completion(balancer, logprobs=1, temperature=0)
    (spoken,) = said["choices"]
    text = BODY["prompt"] + spoken["text"]
    scored = {"echo": True, "logprobs": 1, "temperature": 0}
    whole, alone = await asyncio.gather(
        completion(balancer, **{**scored, "prompt": text, "max_tokens": 1}),
        completion(balancer, **{**scored, "prompt": text, "max_tokens": 0}),
    )
    prompt_tokens = whole["usage"]["prompt_tokens"]
    shown = whole["choices"][0]["logprobs"]
    assert len(shown["tokens"]) == prompt_tokens + 1
    assert alone["choices"][0]["logprobs"]["tokens"] == shown["tokens"][:-1]
    assert (alone["choices"][0]["text"], alone["usage"]["completion_tokens"]) == (text, 0)
    first = shown["text_offset"].index(len(BODY["prompt"]))
    again = shown["token_logprobs"][first:-1]
    assert again == pytest.approx(spoken["logprobs"]["token_logprobs"], abs=1e-3)
    for logprob, top in zip(again, shown["top_logprobs"][first:-1], strict=True):
        assert logprob == max(top.values())
    assert shown["token_logprobs"][0] is None
    assert whole["choices"][0]["text"].startswith(text)


async def test_the_best_of_many_is_the_likeliest_of_what_their_seeds_say(
    balancer: RunningBalancer,
) -> None:
    seeds = [seed_of_choice(BODY["seed"], choice) for choice in range(6)]
    single = await asyncio.gather(*(completion(balancer, seed=seed, logprobs=0) for seed in seeds))
    means: dict[float, str] = {}
    for body in single:
        (choice,) = body["choices"]
        logprobs = choice["logprobs"]["token_logprobs"]
        means[sum(logprobs) / len(logprobs)] = choice["text"]
    likeliest = sorted(means, reverse=True)[:2]
    best = await completion(balancer, n=2, best_of=6)
    texts = [choice["text"] for choice in best["choices"]]
    assert texts == [means[mean] for mean in likeliest]
    assert best["usage"]["completion_tokens"] == 6 * BODY["max_tokens"]
