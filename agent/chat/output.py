"""From the engine's text to typed deltas: which parsers a template calls for, and their chain."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from msgspec import Struct

from agent.chat import reasoning
from agent.chat.reasoning import ReasoningSplitter
from agent.chat.tool_calls import hermes
from agent.chat.tool_calls.form import HERMES, CallForm
from agent.chat.tool_calls.hermes import HermesParser
from protocol.generation import (
    ContentDelta,
    FinishReason,
    ReasoningDelta,
    StepDelta,
    ToolCallDelta,
    TypedDelta,
)


class OutputFormat(Struct, frozen=True, kw_only=True):
    """What the model's text can hold besides content, as its chat template tells."""

    reasoning: bool = False
    tool_calls: bool = False

    @classmethod
    def of_template(cls, template: str) -> OutputFormat:
        """The format of a model with this template."""
        return cls(
            reasoning=reasoning.knows_reasoning(template),
            tool_calls=hermes.knows_tool_calls(template),
        )

    @property
    def call_form(self) -> CallForm | None:
        """How the model writes tool calls; None: in no way that is known here."""
        return HERMES if self.tool_calls else None

    @property
    def revision(self) -> str:
        """The parsers in force; agents that differ here cannot go on for each other."""
        names = [reasoning.REVISION] * self.reasoning + [hermes.REVISION] * self.tool_calls
        return "+".join(names) or "plain"


class OutputParser:
    """One generation's text and tokens, step by step, as deltas.

    A token counts as reasoning when the block is open before or after its text; where a step has
    several tokens of one call, all of them count alike.
    """

    def __init__(self, splitter: ReasoningSplitter | None, tool_calls: HermesParser | None) -> None:
        self._splitter = splitter
        self._tool_calls = tool_calls
        self.reasoning_tokens = 0

    def feed(self, text: str, tokens: int) -> StepDelta:
        """The delta that `text`, made of so many tokens, makes certain."""
        splitter = self._splitter
        if splitter is None:
            return text if self._tool_calls is None else _packed(self._tool_calls.feed(text))
        was_inside = splitter.inside
        reasoned, content = splitter.feed(text)
        if was_inside or splitter.inside or reasoned:
            self.reasoning_tokens += tokens
        if splitter.done:
            self._splitter = None
        return self._delta(reasoned, content)

    def finish(self) -> StepDelta:
        """What was held back at the end."""
        reasoned, content = self._splitter.finish() if self._splitter else ("", "")
        self._splitter = None
        first = self._delta(reasoned, content)
        return joined(first, _packed(self._tool_calls.finish())) if self._tool_calls else first

    def finish_reason(self, engine_reason: FinishReason) -> FinishReason:
        """The engine's reason, or `tool_calls` for a stop with a call."""
        has_called = self._tool_calls is not None and self._tool_calls.calls > 0
        return "tool_calls" if engine_reason == "stop" and has_called else engine_reason

    def _delta(self, reasoned: str, content: str) -> StepDelta:
        if not reasoned and self._tool_calls is None:
            return content
        deltas: list[TypedDelta] = [ReasoningDelta(reasoned)] if reasoned else []
        if self._tool_calls is not None:
            deltas += self._tool_calls.feed(content)
        elif content:
            deltas.append(ContentDelta(content))
        return _packed(deltas)


def plain_parser() -> OutputParser:
    """For text that is content and nothing else."""
    return OutputParser(None, None)


def parser_for(
    output_format: OutputFormat, rendered_prompt: str, *, with_tools: bool, seed: int, trace_id: str
) -> OutputParser:
    """The parser of a chat: reasoning as the template knows it, tool calls if tools are offered."""
    splitter = None
    if output_format.reasoning:
        splitter = ReasoningSplitter(inside=reasoning.opens_reasoning(rendered_prompt))
    tool_calls = None
    if output_format.tool_calls and with_tools:
        tool_calls = HermesParser(lambda index: tool_call_id(trace_id, seed, index))
    return OutputParser(splitter, tool_calls)


def tool_call_id(trace_id: str, seed: int, index: int) -> str:
    """The same wherever the same generation runs or goes on."""
    facts = f"{trace_id}\0{seed}\0{index}".encode()
    return "call_" + hashlib.blake2b(facts, digest_size=12).hexdigest()


def joined(first: StepDelta, second: StepDelta) -> StepDelta:
    """Two deltas of one call as one."""
    if not first or not second:
        return first or second
    if isinstance(first, str) and isinstance(second, str):
        return first + second
    return _packed([*_parts(first), *_parts(second)])


def _parts(delta: StepDelta) -> Iterable[TypedDelta]:
    return (ContentDelta(delta),) if isinstance(delta, str) else delta


def _packed(deltas: Iterable[TypedDelta]) -> StepDelta:
    """Neighbours of one kind merged; content alone as a plain string."""
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
