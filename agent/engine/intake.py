"""From what was submitted to a call that can be seated, or to the reason why not."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from agent.engine.call import Call
from agent.engine.context_shift import left_of
from agent.engine.frames import EngineOptions, Submit
from agent.engine.generation import Generation, ResumeMismatch
from agent.engine.llama.adapters import Adapters, AdapterSet
from agent.engine.llama.arrays import Ints
from agent.engine.llama.context import Context
from agent.engine.llama.draft_model import DraftModel
from agent.engine.llama.model import Model
from agent.engine.llama.sampler_chain import Candidates
from agent.engine.media import Media, MediaPrompt
from agent.engine.media_ids import without_media
from agent.engine.pace import DecodeCosts, Pace
from agent.engine.prefix_cache import WARM_SCOPE
from agent.engine.prompt_scores import PromptScores, problem_with_scoring, rows_at_once
from agent.engine.prompts import (
    PromptRefused,
    adapters_of,
    cap_of,
    check_parameters,
    known_tokens,
    prompt_ids,
    with_start,
)
from agent.engine.sampling.constraint import Constraint
from agent.engine.sampling.grammar import Grammars
from agent.engine.sampling.reduced import ReducedSampler, takes_few
from agent.engine.sampling.sampler import Sampler
from agent.engine.speculation import NgramDrafter, Speculation
from agent.engine.text_thread import LONG_TEXT_CHARS
from agent.errors import GrammarRefused, OutsideGrammar
from protocol.refusals import RefusalCode

PROBE_DRAFT_MODEL_EVERY = 64
"""Steps without drafts after which one is tried: it costs decodes of the small model."""


class Prepared(NamedTuple):
    """What takes long of a call, made ready: its prompt's ids, but for one with media, and what
    holds its text to a grammar, if anything does."""

    ids: Ints | None
    constraint: Constraint | None


class Intake:
    """Makes calls for one model and context."""

    def __init__(
        self,
        model: Model,
        context: Context,
        options: EngineOptions,
        adapters: Adapters | None,
        media: Media | None,
        draft_model: DraftModel | None,
    ) -> None:
        self.vocabulary = model.vocabulary
        self.costs = DecodeCosts(split=not context.memory.unified)
        # a draft that was wrong has to be cut off again
        self.speculates = options.speculation != "off" and context.memory.kind == "ranged"
        self._reduces = context.samplers is not None
        self._context_tokens = context.context_tokens
        self._scored_rows = rows_at_once(model.vocabulary.size, context.most_outputs)
        self._can_shift = context.memory.can_shift
        self._adapter_names = adapters.names if adapters is not None else ()
        self._media = media
        self._draft_model = draft_model
        self._grammars = Grammars(self.vocabulary)
        self._candidates = Candidates(self.vocabulary.size)
        self._ends = np.array(self.vocabulary.end_tokens, dtype=np.int32)
        self._end_set = frozenset(self.vocabulary.end_tokens)

    def check(self, submit: Submit, *, has_slot: bool) -> None:
        """Raise `PromptRefused` for what is wrong whatever the prompt's tokens are."""
        if not has_slot:
            raise PromptRefused(RefusalCode.NO_FREE_SLOT, "all slots are taken")
        check_parameters(submit, self.vocabulary)

    def takes_long(self, submit: Submit) -> bool:
        """Whether running streams would feel that a call is made ready on their thread."""
        return _is_long(submit) or not self._grammars.has(
            submit.grammar, submit.reasoning, submit.tools, scope=submit.scope
        )

    def prepared(self, submit: Submit) -> Prepared:
        """What takes long of a call. Raises `PromptRefused`. May be called from another thread."""
        ids = None
        if not submit.media:
            ids = prompt_ids(submit, self.vocabulary, self._context_tokens)
        return Prepared(ids, self._constraint(submit))

    def call(self, submit: Submit, prepared: Prepared | None = None, *, has_slot: bool) -> Call:
        """The call with its prompt tokenised, its grammar compiled (if they are not `prepared`)
        and what it resumes replayed.

        It holds native memory: `generation.sampler` is to be closed. Raises `PromptRefused`.
        """
        self.check(submit, has_slot=has_slot)
        media = self._media_of(submit)
        ids = prepared.ids if prepared is not None else None
        if media is not None:
            ids = with_start(media.tokens, self.vocabulary)
        prompt, max_tokens = known_tokens(submit, self.vocabulary, self._context_tokens, ids)
        max_tokens = cap_of(submit, max_tokens, can_shift=self._can_shift)
        adapters = adapters_of(submit, self._adapter_names)
        scores = self._scores_of(submit, prompt)
        constraint = prepared.constraint if prepared is not None else self._constraint(submit)
        generation = self._generation(submit, max_tokens, prompt, constraint)
        call = Call(
            submit.call,
            generation,
            len(prompt),
            max_tokens,
            known=left_of(
                np.concatenate((prompt, np.array(submit.resume_ids, dtype=np.int32))),
                prompt_tokens=len(prompt),
                context=self._context_tokens,
            ),
            shifts=submit.context_shift,
            scope=_scope_of(submit, adapters, is_alone=scores is not None),
            adapters=adapters,
            priority=submit.priority,
            is_warming=submit.warm,
            finds_warm=not adapters and scores is None,
            media=media,
            scores=scores,
            may_speculate=submit.speculate and self.speculates,
        )
        try:
            call.resumed_texts = _replayed(generation, submit)
        except PromptRefused:
            generation.sampler.close()
            raise
        return call

    def speculation(self, call: Call, slot: int) -> Speculation | None:
        """How a call that has taken a slot drafts, if it does."""
        if not call.may_speculate:
            return None
        text = without_media(call.known)
        if self._draft_model is not None:
            drafter = self._draft_model.drafter(slot, text, scope=call.scope)
            pace = Pace(self.costs, probe_every=PROBE_DRAFT_MODEL_EVERY)
            return Speculation(drafter, pace, is_dear=True)
        return Speculation(NgramDrafter(text, ends=self.vocabulary.end_tokens), Pace(self.costs))

    def _scores_of(self, submit: Submit, prompt: Ints) -> PromptScores | None:
        """For its prompt, if it is to be scored; who resumes has told of it already."""
        if not submit.prompt_logprobs or submit.resume_ids:
            return None
        if submit.media:
            message = "`prompt_logprobs`: a prompt with images or sounds is not scored"
            raise PromptRefused(RefusalCode.UNSUPPORTED, message, param="prompt_logprobs")
        top_logprobs = submit.sampling.top_logprobs or 0
        problem = problem_with_scoring(len(prompt), top_logprobs)
        if problem:
            raise PromptRefused(RefusalCode.UNSUPPORTED, problem, param="prompt")
        return PromptScores(
            prompt,
            top_logprobs=top_logprobs,
            pieces=self.vocabulary.shown_pieces,
            rows=self._scored_rows,
        )

    def _media_of(self, submit: Submit) -> MediaPrompt | None:
        if not submit.media:
            return None
        if self._media is None:
            message = "this model takes text only, no images or sounds"
            raise PromptRefused(RefusalCode.UNSUPPORTED, message, param="messages")
        return self._media.read(submit)

    def _generation(
        self, submit: Submit, max_tokens: int, prompt: Ints, constraint: Constraint | None
    ) -> Generation:
        kind = ReducedSampler if self._reduces and takes_few(submit) else Sampler
        return Generation(
            submit,
            max_tokens=max_tokens,
            sampler=kind(
                submit.sampling,
                self._candidates,
                self.vocabulary.size,
                self._ends,
                constraint,
                prompt=without_media(prompt),
                pieces=self.vocabulary.shown_pieces,
            ),
            pieces=self.vocabulary.pieces_with(submit.shown_specials),
            shown_pieces=self.vocabulary.shown_pieces,
            ends=self._end_set,
        )

    def _constraint(self, submit: Submit) -> Constraint | None:
        if submit.grammar is None and submit.tools is None:
            return None
        try:
            return self._grammars.constraint(
                submit.grammar, submit.reasoning, submit.tools, scope=submit.scope
            )
        except GrammarRefused as refused:
            raise PromptRefused(RefusalCode.INVALID_GRAMMAR, str(refused)) from refused


def _scope_of(submit: Submit, adapters: AdapterSet, *, is_alone: bool) -> str:
    """Who shares its cached tokens; nobody, if it is alone. What is kept warm is shared by all."""
    if submit.warm:
        return WARM_SCOPE
    if is_alone:
        return repr((submit.scope, adapters, submit.call))
    return repr((submit.scope, adapters)) if adapters else submit.scope


def _is_long(submit: Submit) -> bool:
    """Whether tokenising takes long. Text with media does not: the projector reads it."""
    if submit.media or not isinstance(submit.prompt, str):
        return False
    return len(submit.prompt) + len(submit.suffix or "") > LONG_TEXT_CHARS


def _replayed(generation: Generation, submit: Submit) -> tuple[str, ...]:
    try:
        return generation.replay(submit.resume_ids, submit.resume_emitted_chars)
    except (ResumeMismatch, OutsideGrammar) as mismatch:
        raise PromptRefused(RefusalCode.RESUME_MISMATCH, str(mismatch)) from mismatch
    except GrammarRefused as refused:
        raise PromptRefused(RefusalCode.INVALID_GRAMMAR, str(refused)) from refused
