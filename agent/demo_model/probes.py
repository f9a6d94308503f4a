"""Exactness on test questions, read off one forward pass (equal to greedy decoding)."""

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor

from agent.demo_model import conversations, corpus
from agent.demo_model.batches import BatchMaker, TurnEncoder
from agent.demo_model.example import JsonObject, Turn
from agent.demo_model.network import Network

_ROWS = 16


@dataclass(frozen=True, kw_only=True)
class Probe:
    """Token ids of a context, question and answer, and where the answer's tokens stand."""

    ids: tuple[int, ...]
    answer_at: tuple[int, ...]


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """Whether every token was the likeliest, and the smallest lead over the runner-up."""

    exact: bool
    margin: float


def probe(
    encoder: TurnEncoder,
    turn: Turn,
    *,
    tools: Sequence[JsonObject] = (),
    system: str = "",
    thinks: bool = False,
    before: Sequence[int] = (),
) -> Probe:
    """Make a probe of a turn after a system turn or after other token ids."""
    context = [*before, *encoder.plain(conversations.system_text(system, tools))]
    ids, weights = encoder.turn(turn, thinks=thinks)
    places = [len(context) + place for place, weight in enumerate(weights) if weight]
    return Probe(ids=(*context, *ids), answer_at=tuple(places))


def standard_probes(encoder: TurnEncoder, seed: int, count: int) -> dict[str, list[Probe]]:
    """The classes watched during training, `count` questions each."""
    rng = Random(seed)
    facts = [corpus.fact_turn(rng) for _ in range(count)]
    counting = [corpus.random_counting_turn(rng, held_out=True) for _ in range(count)]
    copying = [corpus.copying_turn(rng, held_out=True) for _ in range(count)]
    explicit = corpus.explicit_tool_calls(rng, count)
    groups = {
        "facts": [probe(encoder, turn) for turn in facts],
        "facts_system": [probe(encoder, t, system=corpus.system_prompt(rng)) for t in facts],
        "facts_thinking": [probe(encoder, turn, thinks=True) for turn in facts],
        "counting": [probe(encoder, turn) for turn in counting],
        "counting_long": [
            probe(encoder, corpus.counting_turn(1, rng.randint(100, 130)))
            for _ in range(count // 2)
        ],
        "copying": [probe(encoder, turn) for turn in copying],
        "alphabet": [
            probe(encoder, corpus.alphabet_turn(rng, held_out=True)) for _ in range(count)
        ],
        "unknown": [probe(encoder, corpus.unknown_turn(rng, held_out=True)) for _ in range(count)],
        "explicit_tool": [probe(encoder, task.turn, tools=task.tools) for task in explicit],
        "natural_tool": [
            probe(encoder, task.turn, tools=task.tools)
            for task in corpus.natural_tool_calls(rng, count)
        ],
    }
    groups["deep"] = _deep_probes(encoder, rng, facts[: count // 4] + copying[: count // 4])
    return groups


def _deep_probes(encoder: TurnEncoder, rng: Random, turns: Sequence[Turn]) -> list[Probe]:
    maker = BatchMaker(encoder, rng)
    return [probe(encoder, turn, before=_other_turns(encoder, maker)) for turn in turns]


def _other_turns(encoder: TurnEncoder, maker: BatchMaker, length: int = 1000) -> list[int]:
    ids: list[int] = []
    opening = conversations.Opening(system="", tools=(), thinking=0.0)
    for turn, _ in conversations.turns(maker.rng, opening, 40):
        ids += encoder.turn(turn, thinks=False)[0]
        if len(ids) >= length:
            return ids
    return ids


def judge(network: Network, probes: Sequence[Probe]) -> list[Verdict]:
    """Teacher-forced verdicts in float32, in the order of `probes`."""
    verdicts: dict[int, Verdict] = {}
    order = sorted(range(len(probes)), key=lambda index: len(probes[index].ids))
    with torch.no_grad():
        for start in range(0, len(order), _ROWS):
            chunk = order[start : start + _ROWS]
            length = max(len(probes[index].ids) for index in chunk)
            rows = [
                [*probes[index].ids, *([0] * (length - len(probes[index].ids)))] for index in chunk
            ]
            states = network.hidden_states(torch.tensor(rows))
            for row, index in enumerate(chunk):
                verdicts[index] = _verdict(network, states[row], probes[index])
    return [verdicts[index] for index in range(len(probes))]


def _verdict(network: Network, states: Tensor, item: Probe) -> Verdict:
    places = torch.tensor(item.answer_at)
    logits = states[places - 1] @ network.embedding.t()
    targets = torch.tensor([item.ids[place] for place in item.answer_at])
    top = logits.topk(2, dim=-1)
    exact = bool((top.indices[:, 0] == targets).all())
    return Verdict(exact=exact, margin=float((top.values[:, 0] - top.values[:, 1]).min()))
