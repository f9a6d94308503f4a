"""What the dispatcher tells whoever counts a request's tokens."""

from __future__ import annotations

from typing import Protocol

from balancer.errors import BalancerError


class Meter(Protocol):
    """Counts the tokens of one request, whose generations are numbered."""

    def prompt_counted(self, choice: int, tokens: int) -> BalancerError | None:
        """An agent has counted a generation's prompt, and would begin it; or the error that the
        request ends with."""

    def ended(self, choice: int, *, prompt_tokens: int, completion_tokens: int) -> None:
        """A generation is over, however it ended, and took so much."""
