"""Clients' grammars in their killable worker: hostile ones are refused, the next one passes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import psutil
import pytest
from msgspec import structs

from agent.chat.tool_calls.table import TOOL_FORMATS
from agent.engine.frames import EngineFacts, Submit
from agent.errors import GrammarRefused, ToolsRefused
from agent.grammar.checker import GrammarChecker
from agent.grammar.grammar_frames import CompileJob
from agent.grammar.grammar_worker import checked
from agent.grammar.reasoning_block import ReasoningBlock
from agent.grammar.tools import ToolGrammar, ToolSchema
from agent.killable.worker import KillableWorker
from protocol.chat import FunctionDefinition, Message, NamedTool, Tool
from protocol.generation import GenerationRequest
from protocol.grammar import Grammar, GrammarKind
from protocol.jsonrpc import ErrorObject, ErrorResponse
from protocol.refusals import RefusalCode
from tests.support.fake_balancer import FakeBalancer, fake_balancer
from tests.support.fake_engine import FACTS, FakeEngine
from tests.support.running_agent import running_agent

LARGE = json.dumps({"anyOf": [{"const": {f"a{number}": number}} for number in range(8000)]})


@pytest.fixture
async def checker() -> AsyncIterator[GrammarChecker]:
    checker = GrammarChecker(timeout_s=20.0)
    yield checker
    await checker.close()


async def passes(checker: GrammarChecker, kind: GrammarKind, text: str = "") -> bool:
    await checker.check(Grammar(kind=kind, text=text))
    return True


async def test_what_passed_in_one_scope_is_looked_at_again_in_another(
    checker: GrammarChecker, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = 0
    ask = KillableWorker.ask

    async def counted(self: Any, *given: Any) -> Any:
        nonlocal asked
        asked += 1
        return await ask(self, *given)

    monkeypatch.setattr(KillableWorker, "ask", counted)
    grammar = Grammar(kind="regex", text="[a-z]+")
    looked_at = []
    for scope in ("alice", "alice", "bob"):
        await checker.check(grammar, scope=scope)
        looked_at.append(asked)
    assert looked_at == [1, 1, 2]


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("json_object", ""),
        ("json_schema", '{"type": "string"}'),
        ("regex", "[a-z]+"),
        ("gbnf", 'root ::= <think> !</think>* </think> "a"'),
        ("lark", "start: <|python_tag|> /[a-z]+/"),
    ],
)
async def test_a_good_grammar_passes_whatever_the_vocabulary(
    checker: GrammarChecker, kind: GrammarKind, text: str
) -> None:
    assert await passes(checker, kind, text)


@pytest.mark.parametrize(
    ("kind", "text", "named"),
    [
        ("json_schema", '{"not": {}}', "`not`"),
        ("json_schema", LARGE, "too large"),
        ("json_schema", '{"type": "string", "pattern": "("}', "unclosed"),
        ("gbnf", "root ::= nothing", "`nothing`"),
        ("gbnf", "root ::= " + "n" * 100_000, "the rule `nnn"),
        ("json_schema", '{"type": "string", "format": "' + "f" * 100_000 + '"}', "`format` fff"),
        ("gbnf", "root ::= " + " | ".join(f'"{n}"' for n in range(20_000)), "too large"),
        ("lark", "start: <|x|> nothing", "nothing"),
        ("lark", 'start: %regex { "substring_chars": "' + "ab" * 50_000 + '"}', "too large"),
    ],
)
async def test_a_hostile_grammar_is_refused_and_the_next_one_passes(
    checker: GrammarChecker, kind: GrammarKind, text: str, named: str
) -> None:
    with pytest.raises(GrammarRefused) as refused:
        await passes(checker, kind, text)
    assert named in str(refused.value)
    assert await passes(checker, "regex", "a")


async def test_a_grammar_that_does_not_compile_in_time_is_killed() -> None:
    checker = GrammarChecker(timeout_s=0.01)
    try:
        with pytest.raises(GrammarRefused, match=r"within 0\.01 s"):
            await passes(checker, "json_schema", LARGE)
        assert checker.pid is None
    finally:
        await checker.close()


async def test_what_has_passed_needs_no_worker_again(checker: GrammarChecker) -> None:
    await passes(checker, "regex", "a+")
    assert checker.pid is not None
    psutil.Process(checker.pid).kill()
    assert await passes(checker, "regex", "a+")
    assert await passes(checker, "regex", "b+")


async def test_a_grammar_that_nobody_wants_any_more_is_not_looked_at(
    checker: GrammarChecker,
) -> None:
    await checker.check(Grammar(kind="regex", text="("), is_wanted=lambda: False)
    assert checker.pid is None


async def test_the_worker_ends_with_its_checker(checker: GrammarChecker) -> None:
    await passes(checker, "json_object")
    pid = checker.pid
    assert pid is not None
    await checker.close()
    assert not psutil.pid_exists(pid)


@pytest.mark.parametrize(
    "more", [{"trigger": "<tool_call>"}, {"reasoning": ReasoningBlock("<think>", "</think>")}]
)
def test_a_lazy_grammar_is_compiled_as_the_engine_will(more: dict[str, Any]) -> None:
    reasoning = more.get("reasoning")
    for kind, text in (("json_object", ""), ("lark", 'start: "a"'), ("regex", "a")):
        grammar = Grammar(kind=kind, text=text, trigger=more.get("trigger", ""))  # type: ignore[arg-type]  # of the tuple
        assert checked(CompileJob(grammar=grammar, reasoning=reasoning)).refusal == ""


# --- on their way to the engine ---

SCHEMA = Grammar(kind="json_schema", text='{"type": "object"}')
REASONING = structs.replace(
    FACTS, chat_template="{{ messages[0].content }}{% if enable_thinking %}<think>\n{% endif %}"
)


@pytest.fixture
async def balancer() -> AsyncIterator[FakeBalancer]:
    async with fake_balancer() as balancer:
        yield balancer


async def submitted(balancer: FakeBalancer, request: GenerationRequest) -> Submit:
    engine = FakeEngine(facts=REASONING)
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        await balancer.finished(await balancer.call(request))
    return engine.submits[0]


async def test_a_prompt_s_grammar_reaches_the_engine(balancer: FakeBalancer) -> None:
    submit = await submitted(balancer, GenerationRequest(prompt="x", grammar=SCHEMA))
    assert (submit.grammar, submit.reasoning) == (SCHEMA, None)


@pytest.mark.parametrize(
    ("thinking", "block"),
    [
        (None, ReasoningBlock("<think>", "</think>", is_open=False)),
        (True, ReasoningBlock("<think>", "</think>", is_open=True)),
        (False, None),
    ],
)
async def test_a_chat_s_grammar_binds_after_the_reasoning_of_its_model_unless_it_is_off(
    balancer: FakeBalancer, thinking: bool | None, block: ReasoningBlock | None
) -> None:
    messages = (Message(role="user", content="Hi"),)
    request = GenerationRequest(messages=messages, grammar=SCHEMA, enable_thinking=thinking)
    submit = await submitted(balancer, request)
    assert submit.reasoning == block


async def test_a_wrong_grammar_is_the_client_s_fault_and_never_meets_the_engine(
    balancer: FakeBalancer,
) -> None:
    engine = FakeEngine()
    request = GenerationRequest(prompt="x", grammar=Grammar(kind="gbnf", text="root ::= nothing"))
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        answer = await balancer.answered(await balancer.call(request))
        await balancer.finished(await balancer.call(GenerationRequest(prompt="y")))
    assert isinstance(answer, ErrorResponse)
    assert answer.error.code == RefusalCode.INVALID_GRAMMAR
    assert "`nothing` is not defined" in answer.error.message
    assert [submit.prompt for submit in engine.submits] == ["y"]


# --- tools on their way to the engine ---

HERMES_FACTS = structs.replace(
    FACTS, chat_template="{{ messages[0].content }}{# <tool_call> <think> #}"
)
FINE = {"type": "object", "properties": {"x": {"type": "integer"}}}
IMPOSSIBLE = {"type": "object", "not": {"required": ["x"]}}


def tool(name: str, parameters: dict[str, Any], *, strict: bool = False) -> Tool:
    return Tool(function=FunctionDefinition(name=name, parameters=parameters, strict=strict))


def with_tools(*tools: Tool, **more: Any) -> GenerationRequest:
    return GenerationRequest(messages=(Message(role="user", content="Hi"),), tools=tools, **more)


async def answered(
    balancer: FakeBalancer, request: GenerationRequest, facts: EngineFacts = HERMES_FACTS
) -> Submit | ErrorObject:
    """What reaches the engine of a request, or what it is refused with."""
    engine = FakeEngine(facts=facts)
    async with running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        answer = await balancer.answered(await balancer.call(request))
    return answer.error if isinstance(answer, ErrorResponse) else engine.submits[0]


async def test_tools_reach_the_engine_behind_the_reasoning(balancer: FakeBalancer) -> None:
    submit = await answered(balancer, with_tools(tool("f", FINE), tool("g", FINE)))
    assert isinstance(submit, Submit)
    assert submit.reasoning == ReasoningBlock("<think>", "</think>")
    assert submit.tools is not None
    assert (submit.tools.must_call, submit.tools.several) == (False, True)
    assert [(one.name, json.loads(one.schema)) for one in submit.tools.tools] == [
        ("f", FINE),
        ("g", FINE),
    ]


async def test_a_demanded_call_leaves_no_text_to_have_a_form(balancer: FakeBalancer) -> None:
    request = with_tools(tool("f", FINE), tool_choice="required", grammar=SCHEMA)
    submit = await answered(balancer, request)
    assert isinstance(submit, Submit)
    assert submit.grammar is None
    assert submit.tools is not None
    assert submit.tools.must_call


async def test_text_and_calls_are_held_to_theirs(balancer: FakeBalancer) -> None:
    submit = await answered(balancer, with_tools(tool("f", FINE), grammar=SCHEMA))
    assert isinstance(submit, Submit)
    assert submit.grammar == SCHEMA
    assert submit.tools is not None


async def test_a_schema_that_need_not_bind_gives_way(balancer: FakeBalancer) -> None:
    submit = await answered(balancer, with_tools(tool("f", IMPOSSIBLE), tool("g", FINE)))
    assert isinstance(submit, Submit)
    assert submit.tools is not None
    loose, held = submit.tools.tools
    assert (loose.schema, json.loads(held.schema)) == ("", FINE)


@pytest.mark.parametrize(
    "request_",
    [
        with_tools(tool("f", FINE), tool("g", IMPOSSIBLE), tool_choice="required"),
        with_tools(tool("f", FINE), tool("g", IMPOSSIBLE), tool_choice=NamedTool(name="g")),
        with_tools(tool("f", IMPOSSIBLE), tool("g", IMPOSSIBLE, strict=True)),
    ],
)
async def test_a_schema_that_must_bind_is_refused_by_name(
    balancer: FakeBalancer, request_: GenerationRequest
) -> None:
    error = await answered(balancer, request_)
    assert isinstance(error, ErrorObject)
    assert error.code == RefusalCode.INVALID_GRAMMAR
    assert error.data == {"param": "tools[1]"}
    assert "`g`" in error.message
    assert "`not`" in error.message


async def test_a_model_that_cannot_call_is_asked_in_vain(balancer: FakeBalancer) -> None:
    error = await answered(balancer, with_tools(tool("f", FINE), tool_choice="required"), FACTS)
    assert isinstance(error, ErrorObject)
    assert (error.code, error.data) == (RefusalCode.UNSUPPORTED, {"param": "tool_choice"})


async def test_a_choice_without_messages_is_refused(balancer: FakeBalancer) -> None:
    error = await answered(balancer, GenerationRequest(prompt="x", tool_choice="required"))
    assert isinstance(error, ErrorObject)
    assert error.data == {"param": "tool_choice"}


async def test_schemas_too_large_for_a_grammar_leave_calls_free(checker: GrammarChecker) -> None:
    large = ToolSchema("f", LARGE, binds=False, place=0)
    tools = ToolGrammar(
        form=TOOL_FORMATS["hermes"].form, tools=(large,), must_call=False, several=True
    )
    assert await checker.check(None, None, tools) == tools.loosened([0])
    bound = structs.replace(tools, tools=(structs.replace(large, binds=True),))
    with pytest.raises(ToolsRefused, match="too large"):
        await checker.check(None, None, bound)


async def test_tools_whose_grammar_does_not_compile_in_time_are_not_held() -> None:
    checker = GrammarChecker(timeout_s=0.01)
    large = ToolSchema("f", LARGE, binds=False, place=0)
    tools = ToolGrammar(
        form=TOOL_FORMATS["hermes"].form, tools=(large,), must_call=False, several=True
    )
    try:
        assert await checker.check(None, None, tools) is None
        assert checker.pid is None
        assert await checker.check(None, None, tools) is None
        assert checker.pid is None
        bound = structs.replace(tools, tools=(structs.replace(large, binds=True),))
        with pytest.raises(ToolsRefused, match=r"within 0\.01 s"):
            await checker.check(None, None, bound)
    finally:
        await checker.close()
