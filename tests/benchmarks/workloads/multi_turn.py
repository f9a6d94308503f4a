"""Conversations that go on: every turn sends the whole history again, answers included."""

from __future__ import annotations

import asyncio
import random
import statistics
from collections.abc import Awaitable, Callable

from tests.benchmarks.peers.exchange import Answer
from tests.benchmarks.peers.sides import Shape
from tests.benchmarks.peers.target import Message, Target, cached_share, tokens_per_s
from tests.benchmarks.peers.workload import Cell, Metric, Played, Scale, Workload
from tests.support.random_gguf import prompt_tokens, text_of

CONVERSATIONS, TURNS, SYSTEM, QUESTION, ANSWER, SLOTS = 8, 4, 200, 100, 64, 4


async def _conversation(target: Target, system: Message, questions: list[str]) -> list[Answer]:
    messages, answers = [system], []
    for question in questions:
        messages.append({"role": "user", "content": question})
        answers.append(await target.chat(messages, ANSWER).send())
        messages.append({"role": "assistant", "content": answers[-1].text})
    return answers


def _play(turns: int) -> Callable[[Target, random.Random], Awaitable[Played]]:
    async def play(target: Target, dice: random.Random) -> Played:
        system = {"role": "system", "content": text_of(prompt_tokens(dice, SYSTEM))}
        questions = [
            [text_of(prompt_tokens(dice, QUESTION)) for _ in range(turns)]
            for _ in range(CONVERSATIONS)
        ]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(_conversation(target, system, q)) for q in questions]
        answers = [task.result() for task in tasks]
        later = [answer for conversation in answers for answer in conversation[1:]]
        every = [answer for conversation in answers for answer in conversation]
        return Played(
            metrics={
                "throughput": tokens_per_s(every),
                "later_ttft_p50": 1000 * statistics.median(a.first_text_s for a in later),
                **cached_share(every),
            }
        )

    return play


def _cells(scale: Scale) -> list[Cell]:
    model = scale.model_path()
    turns = 2 if scale.quick else TURNS
    return [
        Cell(
            label=f"{CONVERSATIONS} over {slots} slots",
            shape=Shape(model=model, slots=slots, context=2048, threads=scale.threads),
            play=_play(turns),
        )
        for slots in scale.slots or (SLOTS,)
    ]


WORKLOAD = Workload(
    name="multi_turn",
    about=(
        f"{CONVERSATIONS} conversations of {TURNS} turns, system prompt of {SYSTEM}, questions of "
        f"{QUESTION}, answers of {ANSWER} tokens"
    ),
    metrics=(
        Metric(name="throughput", unit="tok/s", better="higher"),
        Metric(name="later_ttft_p50", unit="ms", better="lower"),
        Metric(name="cached_share", unit="1", better="higher"),
    ),
    cells=_cells,
)
