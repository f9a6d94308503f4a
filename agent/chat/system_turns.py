"""System turns in chats whose template takes none where they stand. Pure.

Coding assistants put such a turn behind the user's first, and many templates refuse it there, or
leave it out. Its text then goes to the turn before it, so that nothing ahead of it moves and cached
prefixes stay.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

REVISION = "system-turns-1"
"""Another one where the same messages become another prompt: agents that differ in it cannot go on
with each other's generations."""
SEPARATOR = "\n\n"
"""Between the texts of turns that became one."""
_PROBE = "zq-system-turn-zq"
_USER = {"role": "user", "content": "a"}
_ASSISTANT = {"role": "assistant", "content": "b"}
_SYSTEM = {"role": "system", "content": _PROBE}
_JOINED_TO = ("system", "user", "tool")

Messages = list[dict[str, Any]]


class SystemTurns(Struct, frozen=True):
    """Where a template shows them."""

    first: bool
    later: bool


def probed(render: Callable[[Messages], str | None]) -> SystemTurns:
    """What a template takes, found by rendering with it: None of what it refuses.

    One that cannot even make a prompt of plain turns is taken to want its messages as they are.
    """
    if render([_USER, _ASSISTANT, _USER]) is None:
        return SystemTurns(first=True, later=True)
    return SystemTurns(
        first=_PROBE in (render([_SYSTEM, _USER]) or ""),
        later=_PROBE in (render([_USER, _SYSTEM, _ASSISTANT, _USER]) or ""),
    )


def has_system_turns(messages: Messages) -> bool:
    """Whether there is anything to look after."""
    return any(message["role"] == "system" for message in messages)


def folded(messages: Messages, taken: SystemTurns) -> Messages:
    """The messages with system turns where they are taken, and nowhere else.

    The text of others is joined to the turn before it, if that is the user's, a tool's result or
    the system's, and is the user's otherwise; what the user says next is then joined to it.
    """
    turns: Messages = []
    was_folded = False
    for i, message in enumerate(messages):
        role = message["role"]
        is_taken = taken.later if i else taken.first
        if role == "system" and not is_taken:
            _fold(turns, message)
            was_folded = True
        elif role == "user" and was_folded and turns[-1]["role"] == "user":
            turns[-1] = _joined(turns[-1], message)
            was_folded = False
        else:
            turns.append(message)
            was_folded = False
    return turns


def _fold(turns: Messages, message: dict[str, Any]) -> None:
    if turns and turns[-1]["role"] in _JOINED_TO:
        turns[-1] = _joined(turns[-1], message)
    else:
        turns.append({**message, "role": "user"})


def _joined(turn: dict[str, Any], message: dict[str, Any]) -> dict[str, Any]:
    return {**turn, "content": SEPARATOR.join((turn["content"], message["content"]))}
