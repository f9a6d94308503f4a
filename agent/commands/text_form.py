"""What a call's text is held to: its grammar and its tools, behind the model's reasoning."""

from __future__ import annotations

from msgspec import Struct, structs

from agent.commands.calls import Call
from agent.commands.desk import Desk
from agent.commands.served import Served
from agent.grammar.reasoning_block import ReasoningBlock
from agent.grammar.tools import ToolGrammar, tool_grammar
from protocol.grammar import Grammar


class TextForm(Struct, frozen=True, kw_only=True):
    """As `agent.engine.frames.Submit` has them."""

    grammar: Grammar | None = None
    reasoning: ReasoningBlock | None = None
    tools: ToolGrammar | None = None


FREE = TextForm()


async def checked_form(
    desk: Desk, call: Call, served: Served, prompt: str | tuple[int, ...]
) -> TextForm:
    """What the engine may be given. Raises `GrammarRefused`, `GrammarBusy` and `OSError`."""
    tools = tool_grammar(call.request, served.output_format.call_form)
    # an answer that is calls has no text that could be held to anything
    grammar = None if tools is not None and tools.must_call else call.request.grammar
    if grammar is None and tools is None:
        return FREE
    reasoning = _reasoning_block(call, served, prompt)
    tools = await desk.grammars.check(
        grammar,
        reasoning,
        tools,
        scope=call.request.cache_scope,
        is_wanted=lambda: desk.calls.is_open(call),
    )
    return TextForm(grammar=grammar, reasoning=reasoning, tools=tools)


def _reasoning_block(
    call: Call, served: Served, prompt: str | tuple[int, ...]
) -> ReasoningBlock | None:
    """The block before a grammar. A prompt that is no chat has none, and who was told not to think
    opens none."""
    if call.request.messages is None or not isinstance(prompt, str):
        return None
    block = served.output_format.reasoning_block(prompt)
    if block is not None and call.request.enable_thinking is False and not block.is_open:
        return structs.replace(block, opening="") if block.answer_opening else None
    return block
