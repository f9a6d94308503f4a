"""What a JSON schema costs: the same load with free text and then with a schema, slots all busy."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from typing import Any

from tests.benchmarks.peers.exchange import Unusable
from tests.benchmarks.peers.sides import Shape
from tests.benchmarks.peers.target import Target, in_order, tokens_per_s
from tests.benchmarks.peers.workload import Cell, Metric, Played, Scale, Workload
from tests.support.random_gguf import prompt_tokens

PROMPT, ANSWER, SLOTS, REQUESTS_PER_SLOT = 128, 128, 8, 2
FIELDS = 64
"""So many that no answer comes to its end: every one has all of its tokens."""


def schema() -> dict[str, Any]:
    """Integers, numbers, booleans, short strings and choices, in turn, all of them required."""
    kinds: tuple[dict[str, Any], ...] = (
        {"type": "integer"},
        {"type": "boolean"},
        {"type": "string", "maxLength": 24},
        {"enum": ["low", "middle", "high"]},
        {"type": "array", "items": {"type": "integer"}, "minItems": 2, "maxItems": 4},
    )
    fields = {f"field_{n:02d}": kinds[n % len(kinds)] for n in range(FIELDS)}
    return {
        "type": "object",
        "properties": fields,
        "required": list(fields),
        "additionalProperties": False,
    }


def _play(slots: int, per_slot: int) -> Callable[[Target, random.Random], Awaitable[Played]]:
    def prompts(dice: random.Random) -> list[list[int]]:
        return [prompt_tokens(dice, PROMPT) for _ in range(slots * per_slot)]

    async def play(target: Target, dice: random.Random) -> Played:
        asked = [target.complete(prompt, ANSWER) for prompt in prompts(dice)]
        free = tokens_per_s(await in_order(asked, slots))
        asked = [target.under_schema(prompt, ANSWER, schema()) for prompt in prompts(dice)]
        answers = await in_order(asked, slots)
        bound = tokens_per_s(answers)
        if not all(answer.text.lstrip().startswith("{") for answer in answers):
            raise Unusable(f"no JSON but {answers[0].text[:60]!r}")
        return Played(metrics={"free": free, "json": bound, "json_over_free": bound / free})

    return play


def _cells(scale: Scale) -> list[Cell]:
    model = scale.model_path()
    per_slot = 1 if scale.quick else REQUESTS_PER_SLOT
    return [
        Cell(
            label=f"{slots} slots",
            shape=Shape(model=model, slots=slots, context=512, threads=scale.threads),
            play=_play(slots, per_slot),
        )
        for slots in scale.slots or (SLOTS,)
    ]


WORKLOAD = Workload(
    name="structured",
    about=f"{PROMPT} tokens in, {ANSWER} out, free and under a JSON schema of {FIELDS} fields",
    metrics=(
        Metric(name="free", unit="tok/s", better="higher"),
        Metric(name="json", unit="tok/s", better="higher"),
        Metric(name="json_over_free", unit="1", better="higher"),
    ),
    cells=_cells,
)
