"""The prompts of a text completion, and how many answers each of them gets. Pure: raises
`InvalidRequest`."""

from __future__ import annotations

from typing import Any

from balancer.http.faults import missing, refuse_value, unsupported
from balancer.http.openai.schema import EXPECTED, MAX_CHOICES, CompletionRequest
from protocol.generation import MAX_PROMPT_LOGPROBS

Prompt = str | tuple[int, ...]

MAX_TOKEN_ID = 2**31 - 1
MAX_PROMPT_TOKENS = 2**20
"""Token ids of all prompts together: a bound on what one request can make the loop do at a
stretch."""


MAX_SCORED = 8 * MAX_PROMPT_LOGPROBS
"""Of all prompts together, tokens times (`logprobs` + 1): such an answer is held until its end."""


def prompts_of(body: CompletionRequest) -> tuple[Prompt, ...]:
    """One or more, each text or token ids."""
    given = body.prompt
    if given is None:
        raise missing("prompt")
    if isinstance(given, str):
        return (given,)
    if not given or not isinstance(given[0], str | list):
        _check_tokens(given, len(given))
        return (_ids(given, "prompt"),)
    most = MAX_CHOICES // max(body.n or 1, body.best_of or 1)
    if len(given) > most:
        raise refuse_value(
            "prompt",
            given,
            f"at most {most} prompts: with their choices {MAX_CHOICES}",
        )
    _check_tokens(given, sum(len(prompt) for prompt in given if isinstance(prompt, list)))
    return tuple(_prompt(prompt, f"prompt[{i}]") for i, prompt in enumerate(given))


def best_of(body: CompletionRequest) -> int:
    """How many answers are made of each prompt; 0: as many as are shown."""
    if body.best_of is None:
        return 0
    shown = body.n or 1
    if body.best_of < shown:
        raise refuse_value("best_of", body.best_of, f"at least `n`, which is {shown}")
    if body.best_of > shown and body.stream:
        raise unsupported("best_of", body.best_of, "the same as `n`, or `stream: false`")
    return body.best_of


def scores_prompts(body: CompletionRequest) -> bool:
    """Whether the log probabilities of the prompts' own tokens are asked for."""
    return bool(body.echo) and body.logprobs is not None


def wants_prompt_only(body: CompletionRequest) -> bool:
    """Whether nothing of the answer is shown."""
    return body.max_tokens == 0 and scores_prompts(body)


def check_echo(body: CompletionRequest, prompts: tuple[Prompt, ...]) -> None:
    """Refuse what cannot be echoed, or scored."""
    if body.max_tokens == 0 and not scores_prompts(body):
        raise refuse_value("max_tokens", 0, "at least 1, or 0 beside `echo` and `logprobs`")
    if scores_prompts(body):
        _check_scored(body, prompts)
    elif body.echo and not all(isinstance(prompt, str) for prompt in prompts):
        raise unsupported("echo", True, "false beside a `prompt` of token ids, or ask for logprobs")


def echoed_prompts(body: CompletionRequest, prompts: tuple[Prompt, ...]) -> tuple[Prompt, ...]:
    """For each choice what comes before it; nothing unless it is asked for."""
    if not body.echo:
        return ()
    return tuple(prompt for prompt in prompts for _ in range(body.n or 1))


def _check_scored(body: CompletionRequest, prompts: tuple[Prompt, ...]) -> None:
    if body.stream:
        raise unsupported("stream", True, "false beside `echo` and `logprobs`")
    if body.suffix:
        raise unsupported("suffix", body.suffix, "no suffix beside `echo` and `logprobs`")
    if best_of(body) > (body.n or 1):
        raise unsupported("best_of", body.best_of, "the same as `n` beside `echo` and `logprobs`")
    tokens = (body.n or 1) * sum(_most_tokens(prompt) for prompt in prompts)
    most = MAX_SCORED // ((body.logprobs or 0) + 1)
    if tokens > most:
        raise refuse_value(
            "prompt",
            f"{tokens} tokens, or bytes of text",
            f"at most {most} tokens or bytes of text in all, times `n`, beside `echo` and so many "
            "`logprobs`",
        )


def _most_tokens(prompt: Prompt) -> int:
    return len(prompt.encode("utf-8", "replace")) if isinstance(prompt, str) else len(prompt)


def suffix_of(body: CompletionRequest, prompts: tuple[Prompt, ...]) -> str | None:
    """What stands behind the gap to fill in; an empty one is none."""
    if not body.suffix:
        return None
    if not all(isinstance(prompt, str) for prompt in prompts):
        raise unsupported("suffix", body.suffix, "a `prompt` that is text with it")
    return body.suffix


def _prompt(given: Any, at: str) -> Prompt:
    return given if isinstance(given, str) else _ids(given, at)


def _ids(given: Any, at: str) -> tuple[int, ...]:
    if not isinstance(given, list) or not given or not all(map(_is_token, given)):
        raise refuse_value(at, given, EXPECTED["prompt"], code="invalid_type")
    return tuple(given)


def _is_token(item: Any) -> bool:
    return isinstance(item, int) and not isinstance(item, bool) and 0 <= item <= MAX_TOKEN_ID


def _check_tokens(given: list[Any], tokens: int) -> None:
    if tokens > MAX_PROMPT_TOKENS:
        raise refuse_value("prompt", given, f"at most {MAX_PROMPT_TOKENS} token ids in all")
