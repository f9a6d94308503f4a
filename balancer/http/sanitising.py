"""`sanitise`: rules on what models are given and on what they answer. Without rules nothing here is
called.

Given: every text of messages, prompts, inputs and documents; not images, sounds, definitions of
tools, grammars and other parameters. Answered: content, reasoning and the arguments of tool calls,
each for itself.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import lru_cache

from msgspec import structs

from balancer.dispatch.choices import ChoiceSink
from balancer.dispatch.sink import Flow, Outcome
from balancer.errors import InvalidRequest
from balancer.fleet.queries import TextQuestion
from balancer.http.shape import Generation
from balancer.settings import KIB
from balancer.text_rules import RewrittenText, TextRule
from protocol.chat import Message, Part, TextPart, ToolCall
from protocol.embeddings import EmbeddingRequest, RerankRequest, TokenizeRequest
from protocol.generation import (
    ContentDelta,
    GenerationRequest,
    StepDelta,
    TokenLogprob,
    ToolCallDelta,
    TypedDelta,
)
from protocol.rendering import RenderRequest
from protocol.to_agent import Committed

SLICE_CHARS = 8 * KIB
"""That are looked at before others have their turn."""
EACH_CHARS = 128
"""What a text takes besides, as so many characters."""

Rules = tuple[TextRule, ...]
_Ids = tuple[int, ...]


@lru_cache(16)
def rules_of_prompts(rules: Rules) -> Rules:
    """Those for what models are given."""
    return tuple(one for one in rules if one.where != "answer")


@lru_cache(16)
def rules_of_answers(rules: Rules) -> Rules:
    """Those for what they answer."""
    return tuple(one for one in rules if one.where != "prompt")


async def sanitised_generation(generation: Generation, rules: Rules) -> Generation:
    """What the model may be given. Raises `InvalidRequest` for what cannot be done with rules."""
    request = generation.request
    if rules_of_answers(rules) and request.top_logprobs is not None:
        if generation.best_of > generation.choices:
            raise _cannot("the likeliest are chosen by what rules here replace", "best_of")
        raise _cannot(
            "log probabilities would show what is replaced in answers here; leave it out",
            generation.logprobs_param,
        )
    if not (of_prompts := rules_of_prompts(rules)):
        return generation
    if request.prompt_logprobs:
        raise _cannot("log probabilities of a prompt that is rewritten are not of yours", "echo")
    look = _Look(of_prompts)
    return structs.replace(
        generation,
        request=await _request(request, look, generation.prompt_param),
        prompts=tuple(
            [await _prompt(one, look, generation.prompt_param) for one in generation.prompts]
        ),
    )


async def sanitised_inputs(request: EmbeddingRequest, rules: Rules) -> EmbeddingRequest:
    """The same for embeddings."""
    if not (rules := rules_of_prompts(rules)):
        return request
    look = _Look(rules)
    inputs = tuple([await _prompt(one, look, "input") for one in request.inputs])
    return structs.replace(request, inputs=inputs)


async def sanitised_question(question: TextQuestion, rules: Rules) -> TextQuestion:
    """The same for scores of documents, and for what becomes tokens."""
    if not (rules := rules_of_prompts(rules)):
        return question
    look = _Look(rules)
    match question:
        case RerankRequest():
            documents = tuple([await look.text(one) for one in question.documents])
            query = await look.text(question.query)
            return structs.replace(question, query=query, documents=documents)
        case TokenizeRequest():
            return structs.replace(question, text=await look.text(question.text))
        case RenderRequest():
            messages = await _messages(question.messages, look)
            return structs.replace(question, messages=messages)
    return question


def sanitised_sinks(sinks: Sequence[ChoiceSink], rules: Rules) -> Sequence[ChoiceSink]:
    """They hear of answers as the rules leave them. `flush` them when all is over."""
    of_answers = rules_of_answers(rules)
    return [SanitisingSink(sink, of_answers) for sink in sinks] if of_answers else sinks


def flush(sinks: Sequence[ChoiceSink]) -> None:
    """It ended well: what was held back goes out."""
    for sink in sinks:
        if isinstance(sink, SanitisingSink):
            sink.flush()


class SanitisingSink:
    """Rewrites what is answered, wherever its steps cut it. What is held back goes out when it is
    over, or when something of another kind comes: it stays in its order. A failed generation's is
    dropped, as half of what would be replaced may be in it."""

    def __init__(self, sink: ChoiceSink, rules: Rules) -> None:
        self._sink = sink
        self._text = RewrittenText(rules)
        self._last: TypedDelta = ContentDelta("")
        """Of which kind the text is."""

    def attach(self, flow: Flow) -> None:
        """Handed on."""
        self._sink.attach(flow)

    def on_committed(self, agent: str, committed: Committed) -> None:
        """Handed on."""
        self._sink.on_committed(agent, committed)

    def on_tokens(
        self,
        token_ids: tuple[int, ...],
        delta: StepDelta,
        logprobs: tuple[TokenLogprob, ...],
    ) -> None:
        """One step's output: as much as may go out."""
        parts = (ContentDelta(delta),) if isinstance(delta, str) else delta
        self._send([one for part in parts for one in self._taken(part)], token_ids, logprobs)

    def end(self, outcome: Outcome) -> None:
        """It is over, and others go on."""
        self.flush()
        self._sink.end(outcome)

    def flush(self) -> None:
        """It is over. More of this does nothing."""
        self._send(self._rest(), (), ())

    def _taken(self, part: TypedDelta) -> list[TypedDelta]:
        sent: list[TypedDelta] = []
        if not _is_one_text(self._last, part):
            sent = self._rest()
            self._last = part
        if isinstance(part, ToolCallDelta):
            arguments = self._text.feed(part.arguments)
            if part.id or part.name or arguments:
                sent.append(structs.replace(part, arguments=arguments))
        elif text := self._text.feed(part.text):
            sent.append(structs.replace(part, text=text))
        return sent

    def _rest(self) -> list[TypedDelta]:
        text, last = self._text.flush(), self._last
        if not text:
            return []
        if isinstance(last, ToolCallDelta):
            return [ToolCallDelta(index=last.index, arguments=text)]
        return [structs.replace(last, text=text)]

    def _send(
        self,
        parts: list[TypedDelta],
        token_ids: tuple[int, ...],
        logprobs: tuple[TokenLogprob, ...],
    ) -> None:
        if not parts:
            return
        only = parts[0]
        if len(parts) == 1 and isinstance(only, ContentDelta):
            self._sink.on_tokens(token_ids, only.text, logprobs)
        else:
            self._sink.on_tokens(token_ids, tuple(parts), logprobs)


def _is_one_text(one: TypedDelta, other: TypedDelta) -> bool:
    if isinstance(one, ToolCallDelta) and isinstance(other, ToolCallDelta):
        return one.index == other.index
    return type(one) is type(other)


class _Look:
    """Rewrites the texts of one request, one after the other."""

    def __init__(self, rules: Rules) -> None:
        self._rewritten = RewrittenText(rules)
        self._done = 0

    async def text(self, text: str) -> str:
        """Slice by slice, so that neither a long text nor many hold anybody up. Raises
        `InvalidRequest`."""
        out = []
        try:
            for start in range(0, max(len(text), 1), SLICE_CHARS):
                piece = text[start : start + SLICE_CHARS]
                await self._give_way(len(piece) + EACH_CHARS)
                out.append(self._rewritten.feed(piece))
            out.append(self._rewritten.flush())
        except UnicodeEncodeError as error:
            raise InvalidRequest("the request holds text that is not valid Unicode") from error
        return "".join(out)

    async def _give_way(self, chars: int) -> None:
        self._done += chars
        if self._done > SLICE_CHARS:
            self._done = chars
            await asyncio.sleep(0)


async def _request(request: GenerationRequest, look: _Look, param: str) -> GenerationRequest:
    return structs.replace(
        request,
        messages=None if request.messages is None else await _messages(request.messages, look),
        prompt=None if request.prompt is None else await _prompt(request.prompt, look, param),
        suffix=None if request.suffix is None else await look.text(request.suffix),
    )


async def _messages(messages: Sequence[Message], look: _Look) -> tuple[Message, ...]:
    return tuple([await _message(one, look) for one in messages])


async def _message(message: Message, look: _Look) -> Message:
    content, reasoning = message.content, message.reasoning_content
    return structs.replace(
        message,
        content=(
            await look.text(content)
            if isinstance(content, str)
            else content and tuple([await _part(one, look) for one in content])
        ),
        name=None if message.name is None else await look.text(message.name),
        tool_calls=tuple([await _call(one, look) for one in message.tool_calls]),
        reasoning_content=None if reasoning is None else await look.text(reasoning),
    )


async def _part(part: Part, look: _Look) -> Part:
    return TextPart(text=await look.text(part.text)) if isinstance(part, TextPart) else part


async def _call(call: ToolCall, look: _Look) -> ToolCall:
    arguments = await look.text(call.function.arguments)
    return structs.replace(call, function=structs.replace(call.function, arguments=arguments))


async def _prompt(prompt: str | _Ids, look: _Look, param: str) -> str | _Ids:
    if isinstance(prompt, str):
        return await look.text(prompt)
    raise _cannot("prompts are looked at here before models get them; send text, not tokens", param)


def _cannot(words: str, param: str) -> InvalidRequest:
    return InvalidRequest(
        f"`{param}`: {words}",
        code="unsupported_parameter",
        param=param,
        details={"parameter": param, "setting": "sanitise"},
    )
