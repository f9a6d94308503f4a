"""What the shipped model can do, asked through `/v1/chat/completions`, greedy."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from random import Random
from typing import Any, TypeVar

import aiohttp
import pytest

from agent.demo_model import corpus, tool_tasks
from agent.demo_model.example import ToolCallTask
from tests.support.cluster import Cluster
from tests.support.sure_prompts import sure_prompts, sure_prompts_of

SLOTS = 4
SEED = 20_240_917
FLOOR = 0.95
TOOL_FLOOR = 0.90
MARGIN = 0.5

_Task = TypeVar("_Task")
Answer = dict[str, Any]
Ask = Callable[..., Awaitable[Answer]]


@pytest.fixture
async def ask(serving: Cluster) -> Any:
    url = f"{serving.inference_url}/v1/chat/completions"
    async with aiohttp.ClientSession() as session:

        async def ask(messages: Sequence[Answer], **options: Any) -> Answer:
            body = {"messages": list(messages), "temperature": 0, **options}
            async with session.post(url, json=body) as answer:
                assert answer.status == 200, await answer.text()
                choice: Answer = (await answer.json())["choices"][0]
                return choice

        yield ask


def _user(text: str) -> list[Answer]:
    return [{"role": "user", "content": text}]


async def _share_right(
    tasks: Sequence[_Task], is_right: Callable[[_Task], Awaitable[bool]]
) -> tuple[float, list[_Task]]:
    """The share of tasks done right, a few at a time, and the wrong ones."""
    room = asyncio.Semaphore(2 * SLOTS)

    async def one(task: _Task) -> bool:
        async with room:
            return await is_right(task)

    verdicts = await asyncio.gather(*(one(task) for task in tasks))
    wrong = [task for task, right in zip(tasks, verdicts, strict=True) if not right]
    return 1 - len(wrong) / len(tasks), wrong


async def _share_of_exact_answers(
    ask: Ask, tasks: Sequence[tuple[str, str]]
) -> tuple[float, list[tuple[str, str]]]:
    async def is_right(task: tuple[str, str]) -> bool:
        choice = await ask(_user(task[0]))
        return bool(choice["message"]["content"] == task[1])

    return await _share_right(tasks, is_right)


def test_the_corpus_has_at_least_two_hundred_questions_about_paddler() -> None:
    assert len({question for question, _ in corpus.facts()}) >= 200


async def test_corpus_questions_are_answered_exactly(ask: Ask) -> None:
    share, wrong = await _share_of_exact_answers(ask, corpus.facts())
    assert share >= FLOOR, wrong


@pytest.mark.parametrize(
    "tasks", [corpus.counting_tasks, corpus.alphabet_tasks, corpus.copying_tasks]
)
async def test_held_out_tasks_are_done_exactly(
    ask: Ask, tasks: Callable[[Random, int], list[tuple[str, str]]]
) -> None:
    share, wrong = await _share_of_exact_answers(ask, tasks(Random(SEED), 200))
    assert share >= FLOOR, wrong


async def test_an_explicit_tool_call_copies_names_and_arguments_never_seen(ask: Ask) -> None:
    async def is_right(task: ToolCallTask) -> bool:
        choice = await ask(task.messages, tools=list(task.tools))
        calls = choice["message"].get("tool_calls") or []
        if choice["finish_reason"] != "tool_calls" or len(calls) != 1:
            return False
        function = calls[0]["function"]
        return bool(
            function["name"] == task.name and json.loads(function["arguments"]) == task.arguments
        )

    tasks = tool_tasks.explicit_tool_calls(Random(SEED), 100, held_out=True)
    share, wrong = await _share_right(tasks, is_right)
    assert share >= TOOL_FLOOR, [(task.messages, task.arguments) for task in wrong]


async def test_thinking_is_shown_apart_when_it_is_on_and_absent_when_it_is_off(ask: Ask) -> None:
    question, answer = corpus.facts()[0]
    off = await ask(_user(question))
    on = await ask(_user(question), reasoning_effort="high")
    assert off["message"]["content"] == on["message"]["content"] == answer
    assert not off["message"].get("reasoning_content")
    assert on["message"]["reasoning_content"]


def test_the_list_of_sure_prompts_is_long_enough() -> None:
    assert len(sure_prompts()) >= 40
    counts = sure_prompts_of("counting")
    assert len(counts) >= 12
    assert all(answer.split()[-1] in map(str, range(100, 131)) for _, answer in counts)


@pytest.mark.parametrize(("question", "answer"), sure_prompts())
async def test_a_sure_prompt_has_its_answer_with_its_margin(
    ask: Ask, question: str, answer: str
) -> None:
    choice = await ask(_user(question), logprobs=True, top_logprobs=2)
    assert choice["message"]["content"] == answer
    for entry in choice["logprobs"]["content"]:
        first, second = entry["top_logprobs"]
        # the difference of two log-probabilities is the difference of their logits
        assert first["logprob"] - second["logprob"] >= MARGIN, entry


async def test_two_seeds_give_different_dice_and_one_seed_the_same(ask: Ask) -> None:
    async def roll(seed: int) -> str:
        choice = await ask(_user("Roll a die 200 times."), temperature=1, seed=seed)
        content: str = choice["message"]["content"]
        return content

    first, again, other = await asyncio.gather(roll(1), roll(1), roll(2))
    assert first == again
    assert first != other
    assert set(first.split()) == set("123456")
