"""Tool choices asked of the shipped model over HTTP: the calls that come are of the tools that may
come, and their arguments fit, whatever the model would rather have written."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import jsonschema
import pytest
import pytest_asyncio

from agent.chat.answer import answer_of
from agent.engine.engine import Engine
from agent.engine.frames import EngineOptions
from agent.settings import BalancerAddress
from protocol.chat import FunctionDefinition, Message, Tool
from protocol.generation import GenerationRequest, Resume
from protocol.to_agent import generate_tokens_call
from tests.support.cluster import DEMO_MODEL, eventually
from tests.support.running_agent import running_agent
from tests.support.running_balancer import RunningBalancer, running_balancer
from tests.support.two_agents import HeardCall, two_agents

PATH = "/v1/chat/completions"
SCHEMAS: dict[str, dict[str, Any]] = {
    "forecast": {
        "type": "object",
        "properties": {
            "city": {"type": "string", "maxLength": 12},
            "days": {"type": "integer", "minimum": 1, "maximum": 14},
            "unit": {"enum": ["celsius", "kelvin"]},
        },
        "required": ["city", "days", "unit"],
        "additionalProperties": False,
    },
    "reboot": {
        "type": "object",
        "properties": {"host": {"$ref": "#/$defs/host"}},
        "required": ["host"],
        "additionalProperties": False,
        "$defs": {"host": {"type": "string", "pattern": "^[a-f]{2}[0-9]{2}$"}},
    },
}
TOOLS = [
    {"type": "function", "function": {"name": name, "description": "Do it", "parameters": schema}}
    for name, schema in SCHEMAS.items()
]


def engine(**options: Any) -> Engine:
    return Engine(EngineOptions(model_path=str(DEMO_MODEL), slots=2, threads=1, **options))


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def balancer() -> AsyncIterator[RunningBalancer]:
    async with running_balancer() as balancer:
        address = BalancerAddress("127.0.0.1", balancer.management_port)
        async with running_agent(address, engine(), model_path=DEMO_MODEL):
            roster = balancer.app.wiring.roster
            await eventually(
                lambda: any(agent.slots_free for agent in roster.agents()), what="the agent serves"
            )
            yield balancer


async def choice(balancer: RunningBalancer, question: str, **more: Any) -> dict[str, Any]:
    """The one choice of an answer."""
    messages = [{"role": "user", "content": question}]
    body = {"messages": messages, "tools": TOOLS, "max_tokens": 300, **more}
    answer = await balancer.post(PATH, {"temperature": 0, "reasoning_effort": "none", **body})
    assert answer.status == 200, answer.body
    (only,) = answer.json()["choices"]
    return dict(only)


def calls_of(choice: dict[str, Any]) -> list[str]:
    """The names of what is called; all arguments must fit, but those that were cut off."""
    calls = [call["function"] for call in choice["message"].get("tool_calls") or ()]
    complete = calls if choice["finish_reason"] != "length" else calls[:-1]
    for call in complete:
        jsonschema.validate(json.loads(call["arguments"]), SCHEMAS[call["name"]])
    return [call["name"] for call in calls]


@pytest.mark.parametrize("question", ["Hello!", "Call reboot with host set to x."])
async def test_a_demanded_call_comes_whatever_is_asked(
    balancer: RunningBalancer, question: str
) -> None:
    answer = await choice(balancer, question, tool_choice="required")
    assert calls_of(answer)
    assert not answer["message"]["content"]


@pytest.mark.parametrize("name", SCHEMAS)
async def test_a_named_tool_is_called_once(balancer: RunningBalancer, name: str) -> None:
    named = {"type": "function", "function": {"name": name}}
    answer = await choice(balancer, "Tell me a joke.", tool_choice=named)
    assert calls_of(answer) == [name]
    assert answer["finish_reason"] == "tool_calls"


async def test_calls_that_are_not_parallel_are_one(balancer: RunningBalancer) -> None:
    answer = await choice(
        balancer,
        "Call reboot with host ab12, then call reboot with host cd34.",
        tool_choice="required",
        parallel_tool_calls=False,
    )
    assert len(calls_of(answer)) == 1


@pytest.mark.parametrize("seed", range(4))
async def test_a_call_that_the_model_makes_of_its_own_accord_fits(
    balancer: RunningBalancer, seed: int
) -> None:
    """Unheld, the shipped model writes what is not even JSON here."""
    question = "Call forecast with days set to many."
    answer = await choice(balancer, question, temperature=0.5, seed=seed)
    assert calls_of(answer)[:1] == ["forecast"]


async def test_a_model_may_think_before_it_must_call(balancer: RunningBalancer) -> None:
    answer = await choice(
        balancer, "Hello!", tool_choice="required", reasoning_effort="high", max_tokens=600
    )
    assert calls_of(answer) or answer["finish_reason"] == "length"


async def test_a_schema_that_no_grammar_can_express_is_named(balancer: RunningBalancer) -> None:
    impossible = {"type": "object", "not": {}}
    tool = {"type": "function", "function": {"name": "f", "parameters": impossible}}
    messages = [{"role": "user", "content": "Hello!"}]
    body = {"messages": messages, "tools": [*TOOLS, tool], "max_tokens": 10}
    answer = await balancer.post(PATH, {**body, "tool_choice": "required"})
    assert (answer.status, answer.error["param"]) == (400, "tools[2].function.parameters")
    assert "`not`" in answer.error["message"]
    assert (await balancer.post(PATH, body)).status == 200


@dataclass
class CallWithCut(HeardCall):
    """Remembers where another agent would have to go on, had it broken off after 20 tokens."""

    cut: Resume | None = None

    def on_tokens(self, *step: Any) -> None:
        super().on_tokens(*step)
        if self.cut is None and len(self.token_ids) >= 20:
            self.cut = self.resume()


async def test_a_call_that_breaks_off_in_its_arguments_goes_on_elsewhere() -> None:
    tools = tuple(
        Tool(function=FunctionDefinition(name=name, description="Do it", parameters=schema))
        for name, schema in SCHEMAS.items()
    )
    question = Message(role="user", content="Call forecast with days set to many.")
    asked = GenerationRequest(
        messages=(question,), tools=tools, temperature=0.5, seed=3, max_tokens=300
    )
    async with two_agents(engine(speculation="off"), engine(speculation="off")) as fleet:
        first = CallWithCut()
        facts: dict[str, Any] = {"created": 0, "deadline_ms": None, "trace_id": "t"}
        fleet.link("one").call(generate_tokens_call(asked, cache_scope="", **facts), first)
        await eventually(lambda: first.is_over, what="the call is over")
        assert first.cut is not None
        second = await fleet.whole("two", asked, resume=first.cut)
    assert [*first.cut.token_ids, *second.token_ids] == first.token_ids
    message = answer_of(first.deltas)
    (call,) = message.tool_calls
    jsonschema.validate(json.loads(call.function.arguments), SCHEMAS["forecast"])
    assert (
        len("forecast") < first.cut.emitted_chars < len("forecast") + len(call.function.arguments)
    )
