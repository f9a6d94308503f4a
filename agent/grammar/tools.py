"""Tool calls as a grammar has them: of which tools, written how, and whether one must come."""

from __future__ import annotations

from collections.abc import Collection

import msgspec
from msgspec import Struct, structs

from agent.errors import ToolsRefused
from agent.grammar.call_form import CallForm
from protocol.chat import NamedTool, Tool
from protocol.generation import GenerationRequest
from protocol.grammar import MAX_GRAMMAR_CHARS
from protocol.refusals import RefusalCode

_BESIDE_CALLS = frozenset({"json_schema", "json_object"})
"""What an answer may have to be that can be told from a call by its first character."""


class ToolSchema(Struct, frozen=True, array_like=True):
    """A tool with the schema of its arguments, as JSON; empty: any object will do.

    A schema that no grammar can express is an error where it `binds`. `place` is where the tool
    stands in the request.
    """

    name: str
    schema: str
    binds: bool
    place: int


class ToolGrammar(Struct, frozen=True, array_like=True):
    """The answer is calls of these tools, if `must_call`; else it may have calls in it, and only
    those are held to the grammar. Not `several`: one call, and the answer is over."""

    form: CallForm
    tools: tuple[ToolSchema, ...]
    must_call: bool
    several: bool

    def loosened(self, numbers: Collection[int]) -> ToolGrammar:
        """The same with any object for the arguments of these tools."""
        tools = tuple(
            structs.replace(tool, schema="") if number in numbers else tool
            for number, tool in enumerate(self.tools)
        )
        return structs.replace(self, tools=tools)


def tool_grammar(request: GenerationRequest, form: CallForm | None) -> ToolGrammar | None:
    """What holds a request's calls to their tools' schemas, for a model that writes calls in `form`
    (None: in none that is known); None: nothing does. Raises `ToolsRefused`.
    """
    must_call = request.tool_choice != "auto"
    if must_call:
        _check_choice(request, form)
    if not request.tools or request.messages is None or form is None:
        return None
    if not must_call and not _can_be_told(request, form):
        return None
    named = isinstance(request.tool_choice, NamedTool)
    tools = tuple(
        _tool_schema(tool, place, must_call=must_call)
        for place, tool in enumerate(request.tools)
        if not isinstance(request.tool_choice, NamedTool)
        or tool.function.name == request.tool_choice.name
    )
    if sum(len(tool.schema) for tool in tools) > MAX_GRAMMAR_CHARS:
        raise ToolsRefused(
            f"The schemas of all tools have more than {MAX_GRAMMAR_CHARS} characters.", "tools"
        )
    several = request.parallel_tool_calls and not named and form.between_calls is not None
    return ToolGrammar(form=form, tools=tools, must_call=must_call, several=several)


def _check_choice(request: GenerationRequest, form: CallForm | None) -> None:
    if request.messages is None or not request.tools:
        raise ToolsRefused("`tool_choice` goes with `messages` and `tools`.", "tool_choice")
    if form is None:
        raise ToolsRefused(
            "The model's chat template shows no way of calling tools that is known here; leave "
            "`tool_choice` out.",
            "tool_choice",
            RefusalCode.UNSUPPORTED,
        )
    choice = request.tool_choice
    if isinstance(choice, NamedTool) and all(
        tool.function.name != choice.name for tool in request.tools
    ):
        raise ToolsRefused(f"No tool is called {choice.name!r}.", "tool_choice")


def _can_be_told(request: GenerationRequest, form: CallForm) -> bool:
    """Whether a call that may come can be told from text. Raises `ToolsRefused` where something
    was asked for that is lost without."""
    if request.grammar is not None and (
        not form.opening or request.grammar.kind not in _BESIDE_CALLS or request.grammar.trigger
    ):
        raise ToolsRefused(
            "This cannot bind the text of an answer that may call tools instead; leave `tools` "
            "out, or send a `tool_choice` other than auto.",
            "grammar",
            RefusalCode.UNSUPPORTED,
        )
    if not form.opening and not request.parallel_tool_calls and form.between_calls is not None:
        raise ToolsRefused(
            "The model's calls begin like any text, so that nothing keeps them to one; leave "
            "`parallel_tool_calls` out, or send a `tool_choice` other than auto.",
            "parallel_tool_calls",
            RefusalCode.UNSUPPORTED,
        )
    return bool(form.opening)


def _tool_schema(tool: Tool, place: int, *, must_call: bool) -> ToolSchema:
    function = tool.function
    schema = msgspec.json.encode({**function.parameters, "type": "object"}).decode()
    return ToolSchema(
        name=function.name,
        schema=schema,
        binds=must_call or bool(function.strict),
        place=place,
    )
