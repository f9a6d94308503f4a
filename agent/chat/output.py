"""From the engine's text to typed deltas: which parsers a template calls for, and their chain."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Set
from typing import Any

from msgspec import Struct

from agent.chat.reasoning_formats import REASONING_FORMATS, Splitter, reasoning_format_of
from agent.chat.tool_calls.parser import CallParser
from agent.chat.tool_calls.table import TOOL_FORMATS, tool_format_of
from agent.grammar.call_form import CallForm
from agent.grammar.reasoning_block import ReasoningBlock
from protocol.generation import (
    ContentDelta,
    FinishReason,
    ReasoningDelta,
    StepDelta,
    ToolCallDelta,
    TypedDelta,
)

SHORT_ID_CHARS = 9


class OutputFormat(Struct, frozen=True, kw_only=True):
    """What the model's text can hold besides content: names of formats, "" for none."""

    reasoning: str = ""
    tool_calls: str = ""

    @classmethod
    def of_template(
        cls, template: str, *, reasoning: str = "auto", tool_calls: str = "auto"
    ) -> OutputFormat:
        """The format of a model with this template; what is not `auto` is set, maybe to `none`."""
        if reasoning == "auto":
            reasoning = reasoning_format_of(template)
        if tool_calls == "auto":
            tool_calls = tool_format_of(template)
        return cls(
            reasoning="" if reasoning == "none" else reasoning,
            tool_calls="" if tool_calls == "none" else tool_calls,
        )

    @property
    def revision(self) -> str:
        """The parsers in force; agents that differ here cannot go on for each other."""
        names: list[str] = []
        if self.reasoning:
            names.append(f"reasoning:{REASONING_FORMATS[self.reasoning].revision}")
        if self.tool_calls:
            names.append(f"calls:{TOOL_FORMATS[self.tool_calls].revision}")
        return "+".join(names) or "plain"

    @property
    def call_form(self) -> CallForm | None:
        """How the model writes tool calls, plainly; None: not at all."""
        return TOOL_FORMATS[self.tool_calls].form if self.tool_calls else None

    def reasoning_block(self, rendered_prompt: str) -> ReasoningBlock | None:
        """What a grammar must let by before it binds; None: nothing."""
        return REASONING_FORMATS[self.reasoning].block(rendered_prompt) if self.reasoning else None

    def specials(self, *, with_tools: bool) -> tuple[str, ...]:
        """Texts of control tokens that the parsers must see."""
        shown = REASONING_FORMATS[self.reasoning].specials if self.reasoning else ()
        if with_tools and self.tool_calls:
            shown += TOOL_FORMATS[self.tool_calls].form.specials
        return tuple(sorted(set(shown)))


class OutputParser:
    """One generation's text and tokens, step by step, as deltas.

    A token counts as reasoning when the block is open before or after its text; where a step has
    several tokens of one call, all of them count alike.
    """

    def __init__(self, splitter: Splitter | None, tool_calls: CallParser | None) -> None:
        self._splitter = splitter
        self._tool_calls = tool_calls
        self.reasoning_tokens = 0

    def feed(self, text: str, tokens: int) -> StepDelta:
        """The delta that `text`, made of so many tokens, makes certain."""
        splitter = self._splitter
        if splitter is None:
            return text if self._tool_calls is None else _packed(self._tool_calls.feed(text))
        was_inside = splitter.inside
        parts = splitter.feed(text)
        if was_inside or splitter.inside or any(isinstance(p, ReasoningDelta) for p in parts):
            self.reasoning_tokens += tokens
        if splitter.done:
            self._splitter = None
        return _packed(self._with_calls(parts))

    def finish(self) -> StepDelta:
        """What was held back at the end."""
        parts = self._splitter.finish() if self._splitter else []
        self._splitter = None
        held = self._with_calls(parts)
        if self._tool_calls is not None:
            held += self._tool_calls.finish()
        return _packed(held)

    def finish_reason(self, engine_reason: FinishReason) -> FinishReason:
        """The engine's reason, or `tool_calls` for a stop with a call."""
        has_called = self._tool_calls is not None and self._tool_calls.calls > 0
        return "tool_calls" if engine_reason == "stop" and has_called else engine_reason

    def _with_calls(self, parts: list[TypedDelta]) -> list[TypedDelta]:
        """The parts with the tool calls in their content."""
        if self._tool_calls is None:
            return parts
        deltas: list[TypedDelta] = []
        for part in parts:
            deltas += self._tool_calls.feed(part.text) if isinstance(part, ContentDelta) else [part]
        return deltas


def plain_parser() -> OutputParser:
    """For text that is content and nothing else."""
    return OutputParser(None, None)


def parser_for(
    output_format: OutputFormat,
    rendered_prompt: str,
    *,
    tools: Set[str],
    seed: int,
    trace_id: str,
    parameters: Mapping[str, Mapping[str, Any]] | None = None,
) -> OutputParser:
    """The parser of a chat: reasoning as the model writes it, calls of the `tools` on offer, whose
    schemas by name are `parameters`."""
    splitter = None
    if output_format.reasoning:
        splitter = REASONING_FORMATS[output_format.reasoning].splitter(rendered_prompt)
    tool_calls = None
    if output_format.tool_calls and tools:
        row = TOOL_FORMATS[output_format.tool_calls]
        tool_calls = CallParser(
            row.writing,
            tools,
            lambda index: tool_call_id(trace_id, seed, index, short=row.has_short_ids),
            parameters,
        )
    return OutputParser(splitter, tool_calls)


def tool_call_id(trace_id: str, seed: int, index: int, *, short: bool = False) -> str:
    """The same wherever the same generation runs or goes on."""
    facts = f"{trace_id}\0{seed}\0{index}".encode()
    digest = hashlib.blake2b(facts, digest_size=12).hexdigest()
    return digest[:SHORT_ID_CHARS] if short else "call_" + digest


def joined(first: StepDelta, second: StepDelta) -> StepDelta:
    """Two deltas of one call as one."""
    if not first or not second:
        return first or second
    if isinstance(first, str) and isinstance(second, str):
        return first + second
    return _packed([*_parts(first), *_parts(second)])


def _parts(delta: StepDelta) -> Iterable[TypedDelta]:
    return (ContentDelta(delta),) if isinstance(delta, str) else delta


def _packed(deltas: list[TypedDelta]) -> StepDelta:
    """Neighbours of one kind merged; content alone as a plain string."""
    if len(deltas) == 1:
        only = deltas[0]
        return only.text if isinstance(only, ContentDelta) else (only,)
    merged: list[TypedDelta] = []
    for delta in deltas:
        last = merged[-1] if merged else None
        match last, delta:
            case ContentDelta(), ContentDelta():
                merged[-1] = ContentDelta(last.text + delta.text)
            case ReasoningDelta(), ReasoningDelta():
                merged[-1] = ReasoningDelta(last.text + delta.text)
            case ToolCallDelta(id=""), ToolCallDelta(id=""):
                merged[-1] = ToolCallDelta(
                    index=last.index, arguments=last.arguments + delta.arguments
                )
            case _:
                merged.append(delta)
    if not merged:
        return ""
    if len(merged) == 1 and isinstance(merged[0], ContentDelta):
        return merged[0].text
    return tuple(merged)
