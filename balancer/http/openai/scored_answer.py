"""A text completion with the log probabilities of its prompt, which `echo` and `logprobs` together
ask for, as a JSON body. Pure."""

from __future__ import annotations

import codecs
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from msgspec import structs

from balancer.dispatch.sink import Outcome
from balancer.errors import UpstreamFailed
from balancer.http.openai.completion_answer import text_of
from balancer.http.openai.ending import whole_body
from balancer.http.openai.logprobs import CompletionLogprobs, piece_bytes
from balancer.http.openai.prompts import Prompt
from balancer.http.shape import AnswerHead
from protocol.generation import StepDelta, TokenLogprob


class ScoredAnswer:
    """Gathers a choice. `prompts`: what comes before each of the request."""

    def __init__(self, *, prompts: Sequence[Prompt], is_prompt_only: bool) -> None:
        self._prompts = prompts
        self._is_prompt_only = is_prompt_only
        self._text: list[str] = []
        self._logprobs: list[TokenLogprob] = []

    def take(self, delta: StepDelta, logprobs: tuple[TokenLogprob, ...]) -> None:
        """One step's output."""
        self._text.append(text_of(delta))
        self._logprobs += logprobs

    def choice(self, index: int, outcome: Outcome) -> dict[str, Any]:
        """The whole of it. Raises `UpstreamFailed`."""
        usage = outcome.usage
        # where an agent was lost while it told them, they came a second time
        told = self._logprobs[-(usage.prompt_tokens + usage.completion_tokens) :]
        if len(told) < usage.prompt_tokens + usage.completion_tokens:
            raise UpstreamFailed(
                f"{outcome.agent!r} told {len(told)} log probabilities of a prompt of "
                f"{usage.prompt_tokens} tokens; is it older than this balancer?"
            )
        of_prompt, of_answer = told[: usage.prompt_tokens], told[usage.prompt_tokens :]
        prompt, offsets = _echoed(self._prompts[index], of_prompt)
        shaped = CompletionLogprobs().shape(of_prompt)
        shaped["token_logprobs"][0] = shaped["top_logprobs"][0] = None
        shaped["text_offset"] = offsets
        if not self._is_prompt_only:
            of_rest = CompletionLogprobs(len(prompt)).shape(of_answer)
            shaped = {name: shaped[name] + of_rest[name] for name in shaped}
        answer = "" if self._is_prompt_only else "".join(self._text)
        return {
            "text": prompt + answer,
            "index": index,
            "logprobs": shaped,
            "finish_reason": "length" if self._is_prompt_only else outcome.finish_reason,
        }


def scored_body(
    head: AnswerHead, choices: Sequence[msgspec.Raw], whole: Outcome, *, is_prompt_only: bool
) -> bytes:
    """The answer of all choices; what is not shown does not count."""
    if is_prompt_only:
        usage = structs.replace(whole.usage, completion_tokens=0)
        whole = structs.replace(whole, usage=usage)
    return whole_body(head, choices, whole, kind="text_completion")


def _echoed(prompt: Prompt, tokens: Iterable[TokenLogprob]) -> tuple[str, list[int]]:
    """The prompt as text, and where in it each token begins. What a model sets before a text (a
    token for the start, a space) begins where the text does."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    pieces, offsets, chars = list[str](), list[int](), 0
    for token in tokens:
        offsets.append(chars)
        pieces.append(decoder.decode(piece_bytes(token.piece)))
        chars += len(pieces[-1])
    pieces.append(decoder.decode(b"", True))
    if not isinstance(prompt, str):
        return "".join(pieces), offsets
    before = max(chars - len(prompt), 0)
    return prompt, [max(offset - before, 0) for offset in offsets]
