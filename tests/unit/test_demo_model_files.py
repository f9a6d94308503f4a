"""The shipped model's files: small enough, of one template, with the promised sure prompts."""

import tomllib
from typing import Any

from agent.demo_model import DEMO_MODEL_PATH, corpus

SURE_PATH = DEMO_MODEL_PATH.with_name("sure_prompts.toml")
TEMPLATE_PATH = DEMO_MODEL_PATH.with_name("chat_template.jinja")


def sure_prompts() -> list[dict[str, Any]]:
    prompts: list[dict[str, Any]] = tomllib.loads(SURE_PATH.read_text(encoding="utf-8"))["prompts"]
    return prompts


def test_the_model_is_at_most_12_million_bytes() -> None:
    assert DEMO_MODEL_PATH.stat().st_size <= 12_000_000


def test_the_model_carries_the_chat_template_that_training_text_has() -> None:
    content = DEMO_MODEL_PATH.read_bytes()
    assert content.startswith(b"GGUF")
    assert TEMPLATE_PATH.read_bytes() in content


def test_at_least_40_prompts_are_sure_and_12_of_them_long_counts() -> None:
    prompts = sure_prompts()
    assert len(prompts) >= 40
    assert len({prompt["prompt"] for prompt in prompts}) == len(prompts)
    long_counts = [prompt for prompt in prompts if prompt["kind"] == "counting"]
    assert len(long_counts) >= 12
    assert all(100 <= int(prompt["answer"].split()[-1]) <= 130 for prompt in long_counts)


def test_every_sure_prompt_has_a_margin_of_half_a_logit() -> None:
    assert all(prompt["margin"] >= 0.5 for prompt in sure_prompts())


def test_sure_facts_and_counts_are_the_corpus_own() -> None:
    known = dict(corpus.facts() + corpus.long_counting_tasks())
    for prompt in sure_prompts():
        if prompt["kind"] in {"fact", "counting"}:
            assert known[prompt["prompt"]] == prompt["answer"]
