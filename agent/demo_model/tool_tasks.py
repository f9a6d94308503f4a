"""Questions that want a tool: offered tools, calls (explicit and natural wording), results."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

from agent.demo_model import words
from agent.demo_model.example import JsonObject, ToolCallTask, Turn
from protocol.invariants import present

FIRST_TOKEN_WEIGHT = 3.0
CLOSING_WEIGHT = 2.0
_ONE = (
    "Call {n} with {a}.", "Call {n} with {a}.", "Please call {n} with {a}.", "Use {n} with {a}.",
    "Run {n} with {a}.", "Call the tool {n} with {a}.", "Call the function {n} with {a}.",
    "Use the tool {n} with {a}.", "Call {n} with {a}", "Please use {n} with {a}.",
)  # fmt: skip
_NONE = ("Call {n}.", "Please call {n}.", "Use {n}.", "Run {n}.", "Call the tool {n}.")
_SET = ("{p} set to {v}", "{p} set to {v}", "{p} set to {v}", "{p} = {v}", "{p} {v}")
_DESCRIPTIONS = (
    "Do the work", "A tool for {w}", "Handle {w}", "Work with {w}", "Get {w}", "The {w} service",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Value:
    """One argument: as the request writes it, as JSON has it, and its schema type."""

    written: str
    json: Any
    type: str


def random_value(rng: Random, *, held_out: bool = False) -> Value:
    """A word, a quoted phrase, a number, an identifier or a boolean."""
    draw = rng.random()
    if draw < 0.45:
        text = words.any_word(rng, held_out=held_out)
        return Value(written=f'"{text}"' if rng.random() < 0.3 else text, json=text, type="string")
    if draw < 0.62:
        text = words.phrase(rng, held_out=held_out)
        return Value(written=f'"{text}"', json=text, type="string")
    if draw < 0.87:
        text = words.number(rng, held_out=held_out)
        parsed = json.loads(text)
        return Value(written=text, json=parsed, type="number" if "." in text else "integer")
    if draw < 0.95 or held_out:
        text = f"{words.word(rng, held_out=held_out)}-{rng.randint(0, 130)}"
        return Value(written=text, json=text, type="string")
    flag = rng.random() < 0.5
    return Value(written=json.dumps(flag), json=flag, type="boolean")


def tool_schema(
    rng: Random, name: str, parameters: Sequence[tuple[str, str]], description: str | None = None
) -> JsonObject:
    """One OpenAI tool; optional keys and their order vary as they do among clients."""
    text = description or rng.choice(_DESCRIPTIONS).format(w=words.any_word(rng))
    properties: JsonObject = {}
    for key, kind in parameters:
        properties[key] = {"type": kind}
        if rng.random() < 0.25:
            properties[key]["description"] = f"The {key.replace('_', ' ')}"
    schema: JsonObject = {"type": "object", "properties": properties}
    if rng.random() < 0.6:
        schema["required"] = [key for key, _ in parameters]
    if rng.random() < 0.1:
        schema["additionalProperties"] = False
    function: JsonObject = {"name": name}
    if rng.random() < 0.7:
        function["description"] = text
    function["parameters"] = schema
    return {"type": "function", "function": function}


def call_text(name: str, arguments: JsonObject) -> str:
    """The text of one call, exactly as the chat template renders it."""
    call = {"name": name, "arguments": arguments}
    return f"<tool_call>\n{json.dumps(call, ensure_ascii=False)}\n</tool_call>"


def _call_marks(text: str, name: str, arguments: JsonObject) -> tuple[tuple[int, float], ...]:
    position = text.index('"name": "') + 9
    marks = [(position, FIRST_TOKEN_WEIGHT), (position + len(name), CLOSING_WEIGHT)]
    position = text.index('"arguments": {') + 14
    for key, value in arguments.items():
        start = text.index(f'"{key}": ', position)
        marks += [(start + 1, FIRST_TOKEN_WEIGHT), (start + 1 + len(key), CLOSING_WEIGHT)]
        start += len(key) + 4
        encoded = json.dumps(value, ensure_ascii=False)
        marks.append((start, FIRST_TOKEN_WEIGHT))
        if isinstance(value, str):
            marks += [(start + 1, FIRST_TOKEN_WEIGHT), (start + len(encoded) - 1, CLOSING_WEIGHT)]
        else:
            marks.append((start + len(encoded), CLOSING_WEIGHT))
        position = start + len(encoded)
    return tuple(marks)


def call_turn(kind: str, prompt: str, name: str, arguments: JsonObject) -> Turn:
    """A request in words and the call that answers it."""
    text = call_text(name, arguments)
    keys = " and ".join(arguments)
    thought = f"I call {name} with {keys}." if keys else f"I call {name}."
    return Turn(
        kind=kind, prompt=prompt, answer=text, thought=thought,
        marks=_call_marks(text, name, arguments),
    )  # fmt: skip


def random_tool(
    rng: Random, *, held_out: bool = False, count: int | None = None
) -> tuple[str, list[str]]:
    """A name and distinct parameter names (`count` of them, default none to three)."""
    count = rng.choice((0, 1, 1, 1, 1, 1, 2, 2, 3)) if count is None else count
    keys: list[str] = []
    while len(keys) < count:
        key = words.parameter_name(rng, held_out=held_out)
        if key not in keys:
            keys.append(key)
    return words.tool_name(rng, held_out=held_out), keys


def explicit_turn(
    rng: Random, name: str, keys: Sequence[str], values: Sequence[Value], *, plain: bool = False
) -> Turn:
    """ "Call N with P set to V." and close wordings (`plain`: exactly that one)."""
    if not keys:
        return call_turn("explicit_tool", rng.choice(_NONE).format(n=name), name, {})
    joined = " and ".join(
        (_SET[0] if plain else rng.choice(_SET)).format(p=key, v=value.written)
        for key, value in zip(keys, values, strict=True)
    )
    prompt = (_ONE[0] if plain else rng.choice(_ONE)).format(n=name, a=joined)
    arguments = {key: value.json for key, value in zip(keys, values, strict=True)}
    return call_turn("explicit_tool", prompt, name, arguments)


def explicit_tool_calls(
    rng: Random, n: int, *, held_out: bool = True, tools: int = 1
) -> list[ToolCallTask]:
    """`n` requests that name tool, one parameter and value, with `tools` tools on offer."""
    tasks = []
    for _ in range(n):
        name, keys = random_tool(rng, held_out=held_out, count=1)
        values = [random_value(rng, held_out=held_out)]
        offered = [tool_schema(rng, name, [(keys[0], values[0].type)])]
        for _ in range(tools - 1):
            other, other_keys = random_tool(rng, held_out=held_out)
            offered.append(tool_schema(rng, other, [(key, "string") for key in other_keys]))
        rng.shuffle(offered)
        turn = explicit_turn(rng, name, keys, values, plain=rng.random() < 0.5)
        arguments = {keys[0]: values[0].json}
        tasks.append(ToolCallTask(tools=tuple(offered), turn=turn, name=name, arguments=arguments))
    return tasks


def natural_value(rng: Random, kind: str, *, held_out: bool = False) -> Value:
    """A value for a natural request: `name`, `word` or `number`; phrases are quoted."""
    if kind == "number":
        text = str(rng.randint(1, 130) if rng.random() < 0.5 else rng.randint(131, 99999))
        return Value(written=text, json=int(text), type="integer")
    if rng.random() < 0.15:
        text = words.phrase(rng, held_out=held_out)
        return Value(written=f'"{text}"', json=text, type="string")
    make = words.name if kind == "name" else words.any_word
    text = make(rng, held_out=held_out)
    return Value(written=text, json=text, type="string")


def natural_task(
    rng: Random, families: Sequence[JsonObject], *, held_out: bool = False, tools: int = 1
) -> ToolCallTask:
    """A request in everyday words; name and parameter stand only in the offered tool."""
    chosen = rng.sample(list(families), min(tools, len(families)))
    offered, target = [], None
    for family in chosen:
        name, key = rng.choice(family["names"]), rng.choice(family["parameters"])
        value = natural_value(rng, family["value"], held_out=held_out)
        offered.append(tool_schema(rng, name, [(key, value.type)], family["description"]))
        if target is None:
            prompt = rng.choice(family["ask"]).format(value=value.written)
            turn = call_turn("natural_tool", prompt, name, {key: value.json})
            target = (turn, name, {key: value.json})
    rng.shuffle(offered)
    turn, name, arguments = present(target)
    return ToolCallTask(tools=tuple(offered), turn=turn, name=name, arguments=arguments)


def result_turn(rng: Random, *, held_out: bool = False) -> Turn:
    """A tool's result and the answer that tells it."""
    draw = rng.random()
    if draw < 0.15:
        text = " ".join(words.word(rng, held_out=held_out) for _ in range(rng.choice((1, 2, 3))))
        result = json.dumps({"error": text})
        answer = f"The tool failed: {text}."
    elif draw < 0.35:
        result = _plain_value(rng, held_out=held_out)
        answer = f"The result is {result}."
    else:
        count = 1 if draw < 0.8 else 2
        keys = _result_keys(rng, count)
        values = [_result_value(rng, held_out=held_out) for _ in keys]
        result = json.dumps(dict(zip(keys, values, strict=True)))
        pairs = zip(keys, values, strict=True)
        facts = [f"the {key.replace('_', ' ')} is {value}" for key, value in pairs]
        answer = _sentence(facts)
    return Turn(
        kind="tool_result", role="tool", prompt=result, answer=answer,
        thought="The tool has answered.",
    )  # fmt: skip


def _sentence(facts: Sequence[str]) -> str:
    text = " and ".join(facts)
    return text[0].upper() + text[1:] + "."


def _result_keys(rng: Random, count: int) -> list[str]:
    keys: list[str] = []
    while len(keys) < count:
        key = rng.choice((*words.PARAMETERS, "temperature", "result", "weather", "answer", "time"))
        if key not in keys:
            keys.append(key)
    return keys


def _plain_value(rng: Random, *, held_out: bool) -> str:
    if rng.random() < 0.4:
        return words.number(rng, held_out=held_out)
    count = rng.choice((1, 1, 2, 3))
    return " ".join(words.any_word(rng, held_out=held_out) for _ in range(count))


def _result_value(rng: Random, *, held_out: bool) -> str | int:
    if rng.random() < 0.45:
        return rng.randint(0, 130) if rng.random() < 0.7 else rng.randint(131, 99999)
    return _plain_value(rng, held_out=held_out)
