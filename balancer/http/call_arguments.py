"""The arguments of a tool's call as the object that some families of APIs show. Pure."""

from __future__ import annotations

from typing import Any

import msgspec

from protocol.json_depth import is_too_deep

MAX_ARGUMENT_DEPTH = 64
"""A deeper call is told as text: clients, and we, would have to take it apart by recursion."""


def arguments_object(text: str) -> dict[str, Any]:
    """What a model wrote, as an object; of what is none, as where it was cut short, the text under
    `partial_json`, so that nothing is lost."""
    data = text.encode("utf-8", "replace") or b"{}"
    if is_too_deep(data, MAX_ARGUMENT_DEPTH):
        return {"partial_json": text}
    try:
        return msgspec.json.decode(data, type=dict[str, Any])
    except msgspec.MsgspecError:
        return {"partial_json": text}
