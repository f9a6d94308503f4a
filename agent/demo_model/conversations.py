"""Random conversations for training, and their text exactly as the chat template renders it."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from random import Random

from agent.demo_model import corpus, tool_tasks, words
from agent.demo_model.example import JsonObject, Turn
from protocol.invariants import present

_PLAIN_MIX = {
    "fact": 27,
    "counting": 22,
    "copying": 30,
    "alphabet": 5,
    "small_talk": 5,
    "unknown": 8,
    "dice": 3,
}
_FIRST_MIX = {  # a conversation's first answer has nothing but its question to go by
    "fact": 22,
    "counting": 42,
    "copying": 30,
    "alphabet": 3,
    "small_talk": 2,
    "unknown": 3,
    "dice": 1,
}
_LONGEST_FIRST = 115
TOOLS_SHARE = 0.42
SYSTEM_SHARE = 0.45
THINKING_SHARE = 0.4


@dataclass(frozen=True, kw_only=True)
class OfferedTool:
    """A tool of a conversation: its schema and what a request for it needs."""

    schema: JsonObject
    name: str
    keys: tuple[str, ...]
    types: tuple[str, ...]
    family: JsonObject | None = None


def system_text(system: str, tools: Sequence[JsonObject]) -> str:
    """The system turn as the chat template renders it (empty without system prompt and tools)."""
    if not system and not tools:
        return ""
    text = "<|im_start|>system\n" + system
    if tools:
        lines = "".join(json.dumps(tool, ensure_ascii=False) + "\n" for tool in tools)
        text += "\n\n" if system else ""
        text += "You may call these functions:\n<tools>\n" + lines + "</tools>"
    return text + "<|im_end|>\n"


def question_text(turn: Turn, *, thinks: bool = False) -> str:
    """A user or tool message and the opening of the answer."""
    body = turn.prompt
    if turn.role == "tool":
        body = f"\n<tool_response>\n{turn.prompt}\n</tool_response>"
        head = "<|im_start|>user"
    else:
        head = "<|im_start|>user\n"
    opening = "<think>\n" if thinks else ""
    return f"{head}{body}<|im_end|>\n<|im_start|>assistant\n{opening}"


def answer_text(turn: Turn, *, thinks: bool = False) -> str:
    """What the model is to write, without the end token."""
    return f"{turn.thought}\n</think>\n\n{turn.answer}" if thinks else turn.answer


def plain_turn(rng: Random, longest: int, *, first: bool = False) -> Turn:
    """A turn that needs no tool; counting spans at most `longest` numbers."""
    mix = _FIRST_MIX if first else _PLAIN_MIX
    match rng.choices(list(mix), list(mix.values()))[0]:
        case "fact":
            return corpus.fact_turn(rng)
        case "counting":
            return corpus.random_counting_turn(rng, longest=longest)
        case "copying":
            return corpus.copying_turn(rng)
        case "alphabet":
            return corpus.alphabet_turn(rng)
        case "small_talk":
            return corpus.small_talk_turn(rng)
        case "unknown":
            return corpus.unknown_turn(rng)
        case _:
            return corpus.dice_turn(rng)


def _random_offer(rng: Random) -> OfferedTool:
    name, keys = tool_tasks.random_tool(rng)
    types = tuple(
        rng.choice(("string", "string", "string", "integer", "number", "boolean")) for _ in keys
    )
    schema = tool_tasks.tool_schema(rng, name, list(zip(keys, types, strict=True)))
    return OfferedTool(schema=schema, name=name, keys=tuple(keys), types=types)


def _natural_offer(rng: Random, family: JsonObject) -> OfferedTool:
    rename = rng.random() < 0.3
    name = words.tool_name(rng) if rename else rng.choice(family["names"])
    key = words.parameter_name(rng) if rename else rng.choice(family["parameters"])
    kind = "integer" if family["value"] == "number" else "string"
    schema = tool_tasks.tool_schema(rng, name, [(key, kind)], family["description"])
    return OfferedTool(schema=schema, name=name, keys=(key,), types=(kind,), family=family)


def _value_of_type(rng: Random, kind: str) -> tool_tasks.Value:
    if rng.random() < 0.1:  # clients do send values that do not fit the schema
        return tool_tasks.random_value(rng)
    if kind == "boolean":
        flag = rng.random() < 0.5
        return tool_tasks.Value(written=json.dumps(flag), json=flag, type=kind)
    while True:
        value = tool_tasks.random_value(rng)
        if value.type == kind or (kind == "number" and value.type == "integer"):
            return value


def _natural_turn(rng: Random, tool: OfferedTool) -> Turn:
    family = present(tool.family)
    value = tool_tasks.natural_value(rng, family["value"])
    prompt = rng.choice(family["ask"]).format(value=value.written)
    return tool_tasks.call_turn("natural_tool", prompt, tool.name, {tool.keys[0]: value.json})


def _call_turn(rng: Random, tool: OfferedTool) -> Turn:
    if tool.family is not None and rng.random() < 0.6:
        return _natural_turn(rng, tool)
    values = [_value_of_type(rng, kind) for kind in tool.types]
    return tool_tasks.explicit_turn(rng, tool.name, tool.keys, values)


@dataclass(frozen=True, kw_only=True)
class Opening:
    """How a conversation starts: its system prompt, tools, and whether some turns think."""

    system: str
    tools: tuple[OfferedTool, ...]
    thinking: float

    def text(self) -> str:
        """The rendered system turn."""
        return system_text(self.system, [tool.schema for tool in self.tools])


def random_opening(rng: Random) -> Opening:
    """Draw a system prompt, tools on offer and how often turns think."""
    tools: list[OfferedTool] = []
    if rng.random() < TOOLS_SHARE:
        families = corpus.load()["natural"]
        count = rng.choice((1, 1, 1, 1, 1, 2, 2, 3, 4))
        chosen = rng.sample(families, count)
        for family in chosen:
            natural = rng.random() < 0.3
            tools.append(_natural_offer(rng, family) if natural else _random_offer(rng))
    system = corpus.system_prompt(rng) if rng.random() < SYSTEM_SHARE else ""
    thinking = 0.6 if rng.random() < THINKING_SHARE else 0.0
    return Opening(system=system, tools=tuple(tools), thinking=thinking)


def turns(rng: Random, opening: Opening, longest: int) -> Iterator[tuple[Turn, bool]]:
    """Turns without end, each with whether it thinks."""
    if not opening.tools:
        first = plain_turn(rng, max(longest, _LONGEST_FIRST), first=True)
        yield first, rng.random() < opening.thinking
    while True:
        if opening.tools and rng.random() < 0.75:
            yield _call_turn(rng, rng.choice(opening.tools)), rng.random() < opening.thinking
            if rng.random() < 0.35:
                yield tool_tasks.result_turn(rng), rng.random() < opening.thinking
        else:
            yield plain_turn(rng, longest), rng.random() < opening.thinking
