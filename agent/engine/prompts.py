"""What a submitted call asks for, checked against the model: token ids and the cap on output."""

from __future__ import annotations

import numpy as np

from agent.engine.frames import Submit
from agent.engine.infill import infill_prompt, missing_tokens
from agent.engine.llama.adapters import AdapterSet
from agent.engine.llama.arrays import Ints
from agent.engine.llama.vocabulary import Vocabulary
from agent.engine.sampling.limits import problem_with
from protocol.generation import MAX_ADAPTER_SCALE
from protocol.refusals import RefusalCode


class PromptRefused(Exception):
    """The call is not taken; `code` is one of `protocol.refusals`.

    Never one of JSON-RPC's: those blame the agent, and here the client is to blame. `facts` has
    what the message says as numbers, and under `param` the name of the parameter at fault.
    """

    def __init__(self, code: int, message: str, **facts: int | str) -> None:
        super().__init__(message)
        self.code = int(code)
        self.facts = facts


def known_tokens(
    submit: Submit, vocabulary: Vocabulary, context: int, prompt: Ints | None = None
) -> tuple[Ints, int]:
    """The prompt's ids and the cap on output in force; raises `PromptRefused`.

    `prompt`: its ids where they are known already, from `prompt_ids` or with media in them.
    """
    if prompt is None:
        prompt = prompt_ids(submit, vocabulary, context)
    left = context - len(prompt)
    if left < 1:
        raise _too_long(len(prompt), context, at_least=False)
    return prompt, left if submit.max_tokens is None else min(submit.max_tokens, left)


def check_parameters(submit: Submit, vocabulary: Vocabulary) -> None:
    """Raise `PromptRefused` for what is wrong whatever the prompt is."""
    problem = problem_with(submit.sampling, vocabulary.size)
    if problem:
        raise PromptRefused(RefusalCode.UNSUPPORTED, problem, **_parameter_named_in(problem))
    if submit.max_tokens is not None and submit.max_tokens < 1:
        raise PromptRefused(
            RefusalCode.UNSUPPORTED, "`max_tokens` must be at least 1", param="max_tokens"
        )
    if not _are_ids(submit.resume_ids, vocabulary.size):
        raise PromptRefused(
            RefusalCode.RESUME_MISMATCH, "the tokens to resume after are not of this vocabulary"
        )


def cap_of(submit: Submit, max_tokens: int, *, can_shift: bool) -> int:
    """The cap on output in force, `max_tokens` but for a context shift; raises `PromptRefused`."""
    if not submit.context_shift:
        return max_tokens
    if not can_shift or submit.media:
        raise PromptRefused(
            RefusalCode.UNSUPPORTED,
            "`context_shift` is not possible with images or sounds, with this model's kind of "
            "memory or with a unified KV cache: leave it out, and the answer ends when the context "
            "is full",
            param="context_shift",
        )
    return submit.max_tokens or max_tokens


def adapters_of(submit: Submit, loaded: tuple[str, ...]) -> AdapterSet:
    """The adapters in force, ordered by name; raises `PromptRefused`."""
    wanted = {name: scale for name, scale in submit.adapters if scale}
    if len({name for name, _ in submit.adapters}) < len(submit.adapters):
        raise PromptRefused(
            RefusalCode.UNSUPPORTED, "`adapters` names one of them twice", param="adapters"
        )
    for name, scale in wanted.items():
        if name not in loaded:
            known = ", ".join(loaded) or "none"
            raise PromptRefused(
                RefusalCode.UNSUPPORTED,
                f"the adapter {name!r} is not loaded here; loaded are: {known}",
                param="adapters",
            )
        if not abs(scale) <= MAX_ADAPTER_SCALE:
            raise PromptRefused(
                RefusalCode.UNSUPPORTED,
                f"the scale of the adapter {name!r} is {scale}, "
                f"allowed are {-MAX_ADAPTER_SCALE} to {MAX_ADAPTER_SCALE}",
                param="adapters",
            )
    return tuple(sorted(wanted.items()))


def _parameter_named_in(problem: str) -> dict[str, str]:
    """Problems of sampling begin with the parameter's name in backticks."""
    return {"param": problem.split("`")[1]} if problem.startswith("`") else {}


def prompt_ids(submit: Submit, vocabulary: Vocabulary, context: int) -> Ints:
    """The ids of a prompt without media. Raises `PromptRefused`; of one that is far too long
    without tokenising it, of another one `known_tokens` knows. May be called from another thread.
    """
    prompt = submit.prompt
    if submit.suffix is not None:
        ids = _infill_ids(prompt, submit.suffix, vocabulary, context)
    elif isinstance(prompt, str):
        ids = _tokenized(prompt, vocabulary, context)
    elif _are_ids(prompt, vocabulary.size):
        ids = np.array(prompt, dtype=np.int32)
    else:
        raise PromptRefused(
            RefusalCode.UNSUPPORTED,
            f"`prompt` holds token ids outside of the vocabulary (0 to {vocabulary.size - 1})",
            param="prompt",
        )
    if len(ids) == 0:
        raise PromptRefused(RefusalCode.UNSUPPORTED, "the prompt is empty", param="prompt")
    return ids


def _infill_ids(
    prefix: str | tuple[int, ...], suffix: str, vocabulary: Vocabulary, context: int
) -> Ints:
    missing = missing_tokens(vocabulary)
    if missing:
        raise PromptRefused(
            RefusalCode.UNSUPPORTED,
            "`suffix`: this model cannot fill in, its vocabulary has no token for the "
            + " and the ".join(missing),
            param="suffix",
        )
    if not isinstance(prefix, str):
        raise PromptRefused(
            RefusalCode.UNSUPPORTED,
            "`suffix` goes with a `prompt` that is text, not token ids",
            param="suffix",
        )
    _check_length(prefix + suffix, vocabulary, context)
    return infill_prompt(vocabulary, prefix, suffix)


def _tokenized(text: str, vocabulary: Vocabulary, context: int) -> Ints:
    _check_length(text, vocabulary, context)
    return with_start(vocabulary.tokenize(text), vocabulary)


def with_start(ids: Ints, vocabulary: Vocabulary) -> Ints:
    """With the token that the model wants at the start, if it is not there yet."""
    if vocabulary.adds_bos and (len(ids) == 0 or ids[0] != vocabulary.bos):
        ids = np.concatenate((np.array([vocabulary.bos], dtype=np.int32), ids))
    return ids


def _check_length(text: str, vocabulary: Vocabulary, context: int) -> None:
    """No token is longer than the longest: text that cannot fit is not even tokenised."""
    at_least = len(text.encode("utf-8", "replace")) // vocabulary.longest_piece
    if at_least >= context:
        raise _too_long(at_least, context, at_least=True)


def _are_ids(ids: tuple[int, ...], vocabulary_size: int) -> bool:
    return not ids or (min(ids) >= 0 and max(ids) < vocabulary_size)


def _too_long(tokens: int, context: int, *, at_least: bool) -> PromptRefused:
    """In Anthropic's words and in OpenAI's: clients that read them shorten the conversation."""
    about = "at least " if at_least else ""
    return PromptRefused(
        RefusalCode.CONTEXT_TOO_LONG,
        f"prompt is too long: {about}{tokens} tokens > {context - 1} maximum. This model's maximum "
        f"context length is {context} tokens, and one must be left for the answer",
        prompt_tokens=tokens,
        context_tokens=context,
    )
