"""What the calls have to say since the last step."""

from __future__ import annotations

from dataclasses import dataclass, field

from agent.engine.frames import (
    Accepted,
    CacheNews,
    CallFailed,
    CallProgress,
    CallTokens,
    Ended,
    Refused,
    Step,
)


@dataclass(slots=True)
class News:
    """Filled by a turn, then told; a new one each step."""

    accepted: list[Accepted] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    tokens: list[CallTokens] = field(default_factory=list)
    ended: list[Ended] = field(default_factory=list)
    failed: list[CallFailed] = field(default_factory=list)

    def as_step(
        self,
        number: int,
        *,
        prefill: tuple[CallProgress, ...],
        has_work: bool,
        kv_cells_used: int,
        cache: tuple[CacheNews, ...],
        waiting: tuple[int, ...],
        preparing: bool,
    ) -> Step:
        """Everything in one frame, with how things stand."""
        return Step(
            number=number,
            accepted=tuple(self.accepted),
            refused=tuple(self.refused),
            tokens=tuple(self.tokens),
            prefill=prefill,
            ended=tuple(self.ended),
            has_work=has_work,
            kv_cells_used=kv_cells_used,
            failed=tuple(self.failed),
            cache=cache,
            waiting=waiting,
            preparing=preparing,
        )
