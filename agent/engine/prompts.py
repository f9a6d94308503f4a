"""What a submitted call asks for, checked against the model: token ids and the cap on output."""

from __future__ import annotations

import numpy as np

from agent.engine.frames import Submit
from agent.engine.llama.arrays import Ints
from agent.engine.llama.vocabulary import Vocabulary
from agent.engine.sampling import problem_with
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


def known_tokens(submit: Submit, vocabulary: Vocabulary, context: int) -> tuple[Ints, int]:
    """The prompt's ids and the cap on output in force; raises `PromptRefused`."""
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
    prompt = _prompt_ids(submit.prompt, vocabulary, context)
    left = context - len(prompt)
    if left < 1:
        raise _too_long(len(prompt), context, at_least=False)
    return prompt, left if submit.max_tokens is None else min(submit.max_tokens, left)


def _parameter_named_in(problem: str) -> dict[str, str]:
    """Problems of sampling begin with the parameter's name in backticks."""
    return {"param": problem.split("`")[1]} if problem.startswith("`") else {}


def _prompt_ids(prompt: str | tuple[int, ...], vocabulary: Vocabulary, context: int) -> Ints:
    if isinstance(prompt, str):
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


def _tokenized(text: str, vocabulary: Vocabulary, context: int) -> Ints:
    # no token is longer than the longest: text that cannot fit is not even tokenised
    at_least = len(text.encode("utf-8", "replace")) // vocabulary.longest_piece
    if at_least >= context:
        raise _too_long(at_least, context, at_least=True)
    ids = vocabulary.tokenize(text)
    if vocabulary.adds_bos and (len(ids) == 0 or ids[0] != vocabulary.bos):
        ids = np.concatenate((np.array([vocabulary.bos], dtype=np.int32), ids))
    return ids


def _are_ids(ids: tuple[int, ...], vocabulary_size: int) -> bool:
    return not ids or (min(ids) >= 0 and max(ids) < vocabulary_size)


def _too_long(tokens: int, context: int, *, at_least: bool) -> PromptRefused:
    about = "at least " if at_least else ""
    return PromptRefused(
        RefusalCode.CONTEXT_TOO_LONG,
        f"the prompt has {about}{tokens} tokens, the context {context}; "
        "one must be left for the answer",
        prompt_tokens=tokens,
        context_tokens=context,
    )
