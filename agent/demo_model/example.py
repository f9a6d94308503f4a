"""What one training or test question is: shapes only, no text and no randomness."""

from dataclasses import dataclass
from typing import Any

JsonObject = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One user (or tool) message and the assistant's exact answer to it.

    `marks` weighs single tokens of the loss: the token that starts at character `offset` of
    `answer` counts `weight` times (default 1). `scale` weighs all tokens of the answer but the end.
    """

    kind: str
    prompt: str
    answer: str
    thought: str
    role: str = "user"
    marks: tuple[tuple[int, float], ...] = ()
    scale: float = 1.0


@dataclass(frozen=True, kw_only=True)
class ToolCallTask:
    """One request with tools, OpenAI-shaped, and the call that answers it."""

    tools: tuple[JsonObject, ...]
    turn: Turn
    name: str
    arguments: JsonObject

    @property
    def messages(self) -> list[JsonObject]:
        """The conversation to send: one user message."""
        return [{"role": "user", "content": self.turn.prompt}]


@dataclass(frozen=True, kw_only=True)
class Conversation:
    """A system prompt (empty for none), tools on offer and turns; thinking is per turn."""

    system: str
    tools: tuple[JsonObject, ...]
    turns: tuple[Turn, ...]
    thinks: tuple[bool, ...]
