"""Random schemas, each answered by a model through a balancer; all answers are held to theirs."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import aiohttp

from tests.schemas.constructs import constructs_of
from tests.schemas.random_schemas import random_schema
from tests.schemas.yardstick import misfit

Body = dict[str, Any]
Door = Literal["chat", "responses", "required", "named"]
End = Literal["fits", "length", "refused", "wrong"]

DOORS: tuple[Door, ...] = ("chat", "chat", "chat", "responses")
TOOL_DOORS: tuple[Door, ...] = ("required", "named")
AT_ONCE = 4
PATIENCE_S = 120.0
NOTHING_FITS = "nothing fits"
_TEMPERATURES = (0.0, 0.5, 0.8, 1.0, 1.3)
_NAMED = re.compile(r"`([^`]+)`")
_BESIDES = re.compile(r"; | beside ")
"""Behind this a refusal says what else could be done, or what else is there."""


@dataclass(frozen=True)
class Outcome:
    """What became of one request: `why` it was refused (the constructs named), or is wrong."""

    number: int
    door: Door
    schema: Body
    end: End
    why: tuple[str, ...] = ()
    answer: str = ""

    @property
    def constructs(self) -> frozenset[str]:
        return constructs_of(self.schema)


async def campaign(
    url: str, numbers: Iterable[int], *, seed: int, doors: tuple[Door, ...], max_tokens: int = 300
) -> list[Outcome]:
    """Ask for an instance of each of these schemas, four at once; its number decides the door."""
    places = asyncio.Semaphore(AT_ONCE)
    timeout = aiohttp.ClientTimeout(total=PATIENCE_S)
    async with aiohttp.ClientSession(url, timeout=timeout) as client:

        async def one(number: int, door: Door) -> Outcome:
            async with places:
                return await _ask(client, number, door, seed, max_tokens)

        asked = (one(number, doors[number % len(doors)]) for number in numbers)
        return await asyncio.gather(*asked)


async def _ask(
    client: aiohttp.ClientSession, number: int, door: Door, seed: int, max_tokens: int
) -> Outcome:
    _, schema = random_schema(seed, number)
    if door in TOOL_DOORS:
        schema = _as_parameters(schema)
    path = "/v1/responses" if door == "responses" else "/v1/chat/completions"
    body = _body(door, schema, max_tokens) | {
        "model": "demo",
        "temperature": _TEMPERATURES[number % len(_TEMPERATURES)],
    }
    if door != "responses":
        body["seed"] = number
    async with client.post(path, json=body) as response:
        answer = await response.json()
        end, why, text = _judged(response.status, answer, door, schema)
    return Outcome(number=number, door=door, schema=schema, end=end, why=why, answer=text)


def _as_parameters(schema: Body) -> Body:
    """An object's schema with this one in it, as tools have them."""
    inner = {keyword: value for keyword, value in schema.items() if keyword != "$defs"}
    return {
        "type": "object",
        "properties": {"it": inner},
        "required": ["it"],
        "additionalProperties": False,
        "$defs": schema.get("$defs", {}),
    }


def _body(door: Door, schema: Body, max_tokens: int) -> Body:
    question = "Fill in the form, as briefly as you can."
    messages = [{"role": "user", "content": question}]
    named = {"name": "form", "schema": schema, "strict": True}
    match door:
        case "chat":
            form = {"type": "json_schema", "json_schema": named}
            return {"messages": messages, "response_format": form, "max_tokens": max_tokens}
        case "responses":
            text = {"format": {"type": "json_schema", **named}}
            return {"input": question, "text": text, "max_output_tokens": max_tokens}
        case _:
            tool = {"type": "function", "function": {"name": "form", "parameters": schema}}
            choice = {"type": "function", "function": {"name": "form"}}
            return {
                "messages": messages,
                "tools": [tool],
                "tool_choice": "required" if door == "required" else choice,
                "parallel_tool_calls": False,
                "max_tokens": max_tokens,
            }


def _judged(
    status: int, answer: Body, door: Door, schema: Body
) -> tuple[End, tuple[str, ...], str]:
    if status == 400:
        return _refused(answer["error"]["message"], schema)
    if status != 200:
        return "wrong", (f"status {status}",), str(answer)
    is_whole, text = _said_by_responses(answer) if door == "responses" else _said(answer)
    if is_whole is None:
        return "wrong", ("no known end",), str(answer)
    if not is_whole:
        return "length", (), text
    why = misfit(text, schema)
    return ("wrong", (why,), text) if why else ("fits", (), text)


def _refused(message: str, schema: Body) -> tuple[End, tuple[str, ...], str]:
    """A refusal has to name a construct that the schema has, or say that no value fits it."""
    if NOTHING_FITS in message:
        return "refused", (NOTHING_FITS,), message
    blamed = _BESIDES.split(message)[0]
    named = constructs_of(schema) & set(_NAMED.findall(blamed))
    return ("refused", tuple(sorted(named)), message) if named else ("wrong", (message,), message)


def _said(answer: Body) -> tuple[bool | None, str]:
    """Whether it is a whole answer (None: neither whole nor cut), and its text or arguments."""
    choice = answer["choices"][0]
    calls = choice["message"].get("tool_calls") or []
    text = calls[0]["function"]["arguments"] if calls else choice["message"]["content"]
    wholes = {"stop": True, "tool_calls": True, "length": False}
    return wholes.get(choice["finish_reason"]), text or ""


def _said_by_responses(answer: Body) -> tuple[bool | None, str]:
    text = "".join(
        part["text"]
        for item in answer["output"]
        if item["type"] == "message"
        for part in item["content"]
    )
    if answer["status"] == "incomplete":
        is_cut = answer["incomplete_details"]["reason"] == "max_output_tokens"
        return False if is_cut else None, text
    return True if answer["status"] == "completed" else None, text
