"""Ids of calls as a template must see them, where it shows the model an id and no name.

Kimi-K2 writes `functions.NAME:NUMBER` for a call, counted through the whole conversation, and its
template takes that for the id.
"""

from __future__ import annotations

from typing import Any

ARGUMENTS_BEGIN = "<|tool_call_argument_begin|>"


def wants_names(template: str) -> bool:
    """Whether a chat template shows ids for names."""
    return ARGUMENTS_BEGIN in template


def name_ids(messages: list[dict[str, Any]]) -> None:
    """Give calls, and the results that answer them, such ids, whatever they had."""
    named: dict[str, str] = {}
    count = 0
    for message in messages:
        for call in message.get("tool_calls", ()):
            new = f"functions.{call['function']['name']}:{count}"
            named[call["id"]], call["id"] = new, new
            count += 1
        if message.get("tool_call_id") in named:
            message["tool_call_id"] = named[message["tool_call_id"]]
