"""What a generation has given its client so far: all that another agent needs to go on."""

from __future__ import annotations

from protocol.generation import Resume, SamplerState, StepDelta, emitted_chars


class SoFar:
    """Tokens and characters, whoever produced them. `here` counts from the latest start on."""

    __slots__ = (
        "_emitted_chars",
        "_resume_key",
        "_tokens_before",
        "sampler_state",
        "token_ids",
    )

    def __init__(self) -> None:
        self.token_ids: list[int] = []
        self.sampler_state: SamplerState = ()
        """After the last token; empty for all samplers that can be rebuilt from the tokens."""
        self._emitted_chars = 0
        self._resume_key = ""
        self._tokens_before = 0

    @property
    def has_none_here(self) -> bool:
        """Whether the agent that works on it now has given no token yet."""
        return len(self.token_ids) == self._tokens_before

    @property
    def count_here(self) -> int:
        """Tokens of the agent that works on it now."""
        return len(self.token_ids) - self._tokens_before

    @property
    def resume_key(self) -> str | None:
        """Of the agents that can go on with the tokens; None while there are none, "" where the
        agent named none: then nobody can."""
        return self._resume_key if self.token_ids else None

    def begin(self, resume_key: str) -> None:
        """An agent with this key takes it up."""
        self._tokens_before = len(self.token_ids)
        if not self.token_ids:
            self._resume_key = resume_key

    def take(self, token_ids: tuple[int, ...], delta: StepDelta) -> None:
        """One step's output."""
        self.token_ids.extend(token_ids)
        self._emitted_chars += len(delta) if isinstance(delta, str) else emitted_chars(delta)

    def resume(self) -> Resume | None:
        """What the next agent is told; None: it begins."""
        if not self.token_ids:
            return None
        return Resume(
            token_ids=tuple(self.token_ids),
            emitted_chars=self._emitted_chars,
            sampler_state=self.sampler_state,
        )
