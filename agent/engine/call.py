"""One call in the engine: what it was given, what it generated, when."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import numpy as np
from msgspec import structs

from agent.engine.frames import Accepted, CallTokens, Ended
from agent.engine.generation import Generation
from agent.engine.llama.adapters import AdapterSet
from agent.engine.llama.arrays import Ints, Rows
from agent.engine.media import MediaPrompt
from agent.engine.prompt_scores import PromptScores
from agent.engine.speculation import Speculation
from protocol.generation import FinishReason, Timings, TokenLogprob, Usage
from protocol.invariants import present

NO_TOKENS: Ints = np.empty(0, dtype=np.int32)


@dataclass(slots=True, eq=False)
class Call:
    """Its state between two steps. `known` tokens are prefilled; `generated` came since then."""

    number: int
    generation: Generation
    prompt_tokens: int
    max_tokens: int
    known: Ints
    scope: str
    adapters: AdapterSet
    priority: int
    is_warming: bool = False
    """Its prompt is to be cached, nothing generated."""
    finds_warm: bool = False
    """It may begin with a prompt that is kept warm, in whatever scope it is itself."""
    generated: list[int] = field(default_factory=list)
    media: MediaPrompt | None = None
    """The images and sounds among its known tokens."""
    encode_ms: float = 0.0
    may_speculate: bool = False
    speculation: Speculation | None = None
    """While it is seated, if it may."""
    shifts: bool = False
    """When its share of the context is full, it goes on without its older tokens."""
    is_shifted: bool = False
    """What it has in the KV cache is not what its tokens alone would give."""
    paused: bool = False
    wait_for: int = -1
    """The call that is prefilling what this one waits for."""
    wait_tokens: int = 0
    cached_tokens: int = 0
    """Of its tokens, those that it was spared to prefill."""
    finds_its_own: bool = False
    """It gave way after it had prefilled some itself: what it finds in the cache may be those."""
    draft_steps: int = 0
    drafted_tokens: int = 0
    accepted_draft_tokens: int = 0
    scores: PromptScores | None = None
    """Of its prompt's tokens, if they are asked for; told with its first token."""
    resumed_texts: tuple[str, ...] = ()
    started: float = field(default_factory=time.monotonic)
    first_token: float = 0.0

    @property
    def leaves_nothing(self) -> bool:
        """Whether what it has in the KV cache is of no use to others."""
        return self.is_shifted or self.scores is not None

    @property
    def scored_rows(self) -> int:
        """How many of its prompt's tokens may go into a batch, each with a row; 0: as many as
        there is room for, as only the last one needs one."""
        return 0 if self.scores is None or self.scores.is_complete else self.scores.rows

    @property
    def takes_few(self) -> bool:
        """Whether the likeliest tokens of its next row are enough for it."""
        return self.generation.sampler.takes_few

    def content(self, cached: int) -> Ints:
        """Its first `cached` tokens."""
        if cached <= len(self.known):
            return self.known[:cached]
        new = np.array(self.generated[: cached - len(self.known)], dtype=np.int32)
        return np.concatenate((self.known, new))

    def found(self, cached: int) -> None:
        """So many of its tokens are in the cache without its doing."""
        if not self.finds_its_own:
            self.cached_tokens = max(self.cached_tokens, cached)

    def start_over(self) -> None:
        """It lost its cells: everything so far is to be prefilled."""
        self.known = self.content(len(self.known) + len(self.generated))
        self.generated.clear()

    def drop(self, start: int, count: int) -> None:
        """Forget `count` of its tokens from `start` on."""
        self.start_over()
        self.known = np.delete(self.known, np.s_[start : start + count])
        self.is_shifted = True

    def allowance(self, *, busy: int, slots: int) -> int:
        """How many guesses of the tokens behind the last one are worth checking in this step."""
        if self.speculation is None:
            return 0
        # behind the last token that may come there is nothing to guess
        left = self.max_tokens - self.generation.tokens_generated - 1
        return min(left, self.speculation.allowance(busy_slots=busy, slots=slots))

    def draft(self, most: int) -> Ints:
        """Up to `most` guesses of the tokens behind the last one."""
        return self.speculation.draft(most) if self.speculation is not None else NO_TOKENS

    def score(self, rows: Rows, start: int) -> None:
        """The rows of its prompt's tokens from `start` on."""
        present(self.scores).take(rows, start)

    def take_best(self, token: int) -> CallTokens | None:
        """Take the likeliest token, in one go; None: it must be `take`."""
        tokens = self.generation.take_best(token)
        if tokens is not None:
            self.generated.append(token)
            if self.speculation is not None:
                self.speculation.accept((token,))
        return tokens

    def take(self, rows: Rows, drafted: Ints, best: int | None = None) -> CallTokens:
        """Sample a token from each row as long as the drafts are right; at least one.

        Row i is the model's after the first i drafted tokens. `best`: of the first row, if known.
        """
        generation, first = self.generation, len(self.generated)
        token, tokens = generation.next_token(rows[0], best)
        self.generated.append(token)
        self.first_token = self.first_token or time.monotonic()
        if len(drafted):
            tokens = self._verified(rows, drafted, token, tokens)
            self.draft_steps += 1
            self.drafted_tokens += len(drafted)
            self.accepted_draft_tokens += len(tokens.token_ids) - 1
        if self.speculation is not None:
            self.speculation.accept(self.generated[first:])
        if self.scores is not None and generation.tokens_generated == len(tokens.token_ids):
            tokens = structs.replace(tokens, logprobs=self.scores.told() + tokens.logprobs)
        return tokens

    def _verified(self, rows: Rows, drafted: Ints, token: int, tokens: CallTokens) -> CallTokens:
        ids, texts = [token], [tokens.text]
        logprobs: list[TokenLogprob] = list(tokens.logprobs)
        for row, draft in zip(rows[1:], drafted.tolist(), strict=True):
            if token != draft or self.generation.finish_reason is not None:
                break
            token, tokens = self.generation.next_token(row)
            self.generated.append(token)
            ids.append(token)
            texts.append(tokens.text)
            logprobs += tokens.logprobs
        return CallTokens(
            self.number, tuple(ids), "".join(texts), tuple(logprobs), tokens.sampler_state
        )

    def accepted(self) -> Accepted:
        """The call is taken."""
        return Accepted(
            self.number,
            self.prompt_tokens,
            self.max_tokens,
            self.resumed_texts,
            cached_tokens=self._cached_of_prompt,
        )

    @property
    def _cached_of_prompt(self) -> int:
        return min(self.cached_tokens, self.prompt_tokens)

    def ended(self, reason: FinishReason) -> Ended:
        """The call is over."""
        now = time.monotonic()
        prefilled = self.first_token or now
        return Ended(
            self.number,
            reason,
            Usage(
                prompt_tokens=self.prompt_tokens,
                completion_tokens=self.generation.tokens_generated,
                cached_tokens=self._cached_of_prompt,
            ),
            Timings(
                prefill_ms=round(1000 * (prefilled - self.started), 3),
                decode_ms=round(1000 * (now - prefilled), 3),
                encode_ms=round(self.encode_ms, 3),
                draft_steps=self.draft_steps,
                drafted_tokens=self.drafted_tokens,
                accepted_draft_tokens=self.accepted_draft_tokens,
            ),
            self.generation.stop_sequence,
        )
