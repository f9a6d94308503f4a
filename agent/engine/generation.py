"""One call from its first token to its last: text, stop, count, end. Knows no slot, no batch.

After token k the text let out is a function of tokens 1..k alone, and the draw at position p of
(seed, p) alone. So a generation that began elsewhere goes on here by replaying its tokens.
"""

from __future__ import annotations

from collections.abc import Container

from agent.engine.detokenizer import Detokenizer
from agent.engine.frames import CallTokens, Submit
from agent.engine.llama.arrays import Row
from agent.engine.sampling.logprobs import logprobs_of
from agent.engine.sampling.sampler import Sampler
from agent.engine.stopping import StopMatcher
from protocol.generation import FinishReason, TokenLogprob


class ResumeMismatch(Exception):
    """The tokens to resume after do not give what was emitted elsewhere."""


class Generation:
    """The state of one call. `finish_reason` is None until it is over."""

    def __init__(
        self,
        submit: Submit,
        *,
        max_tokens: int,
        sampler: Sampler,
        pieces: list[bytes],
        shown_pieces: list[bytes],
        ends: Container[int],
    ) -> None:
        self.call = submit.call
        self.tokens_generated = 0
        self.finish_reason: FinishReason | None = None
        self.sampler = sampler
        self._sampler_state = submit.resume_sampler_state
        self._max_tokens = max_tokens
        self._min_tokens = submit.min_tokens
        self._top_logprobs = submit.sampling.top_logprobs
        self._detokenizer = Detokenizer(pieces)
        self._stops = StopMatcher(submit.stop)
        self._shown_pieces = shown_pieces
        self._ends = ends
        self._unscored = () if submit.prompt_logprobs else ends
        self._is_plain = sampler.is_plain and not submit.stop and self._top_logprobs is None
        self._passes = sampler.passes

    @property
    def stop_sequence(self) -> str | None:
        """The stop string that ended the text, if one did."""
        return self._stops.matched

    def replay(self, token_ids: tuple[int, ...], emitted_chars: int | None) -> tuple[str, ...]:
        """Take tokens that were generated elsewhere; what each of them emits.

        Raises `ResumeMismatch`; `emitted_chars` of None is not compared.
        """
        texts: list[str] = []
        for token in token_ids:
            if self.finish_reason is not None:
                raise ResumeMismatch("the generation was over before its last token")
            texts.append(self._accept(token))
        self._restore_sampler(token_ids)
        chars = sum(map(len, texts))
        if emitted_chars not in (None, chars):
            raise ResumeMismatch(
                f"{len(token_ids)} tokens give {chars} characters, {emitted_chars} were emitted"
            )
        return tuple(texts)

    def next_token(self, row: Row, best: int | None = None) -> tuple[int, CallTokens]:
        """Sample the next token from the model's logits and take it. `best`: see `Sampler`."""
        position = self.tokens_generated
        may_end = position >= self._min_tokens
        token = self.sampler.choose(row, position, may_end=may_end, best=best)
        logprobs: tuple[TokenLogprob, ...] = ()
        if self._top_logprobs is not None and token not in self._unscored:
            logprobs = (logprobs_of(row, token, self._top_logprobs, self._shown_pieces),)
        text = self._accept(token)
        return token, CallTokens(self.call, (token,), text, logprobs, self.sampler.state())

    def take_best(self, token: int) -> CallTokens | None:
        """Take the likeliest token, in one go; None: it must be `next_token`'s long way."""
        if not self._is_plain or token in self._ends:
            return None
        if self._passes is not None and not self._passes(token):
            return None
        self.tokens_generated += 1
        text = self._detokenizer.feed(token)
        if self.tokens_generated >= self._max_tokens:
            text += self._finish("length")
        return CallTokens(self.call, (token,), text)

    def _restore_sampler(self, token_ids: tuple[int, ...]) -> None:
        if not token_ids and not self._sampler_state:
            return
        try:
            self.sampler.restore(self._sampler_state)
        except ValueError as error:
            raise ResumeMismatch(str(error)) from error

    def _accept(self, token: int) -> str:
        """Count a token; the text that is certain with it, at the end all that was held back."""
        self.sampler.accept(token)
        self.tokens_generated += 1
        if token in self._ends:
            return self._finish("stop")
        text = self._until_stop(self._detokenizer.feed(token))
        if self._stops.matched is not None:
            self.finish_reason = "stop"
        elif self.sampler.is_complete:
            text += self._finish("stop")
        elif self.tokens_generated >= self._max_tokens:
            text += self._finish("length")
        return text

    def _until_stop(self, text: str) -> str:
        """No stop string is looked for in what comes before `min_tokens`."""
        if self.tokens_generated < self._min_tokens:
            return text
        return self._stops.feed(text)

    def _finish(self, reason: FinishReason) -> str:
        self.finish_reason = reason
        text = self._until_stop(self._detokenizer.flush())
        if self._stops.matched is not None:
            self.finish_reason = "stop"
            return text
        return text + self._stops.flush()
