"""Refusals and failures of a call: one table, used on both ways and on both sides.

A refusal is the JSON-RPC error that answers `generate_tokens`; a failure is the `failed`
notification after the call was committed. Both carry a code of this table.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Literal

from msgspec import Struct

from protocol.jsonrpc import RpcCode

Blame = Literal["client", "agent", "capacity"]


class RefusalCode(IntEnum):
    """paddler-py's own codes, beside JSON-RPC's."""

    NO_FREE_SLOT = -32000
    MODEL_NOT_LOADED = -32001
    CONTEXT_TOO_LONG = -32002
    CANCELLED = -32003
    DRAINING = -32004
    UNSUPPORTED = -32005
    ENGINE_FAILED = -32006
    INVALID_TEMPLATE = -32007
    INVALID_GRAMMAR = -32008
    INVALID_MEDIA = -32009
    CAP_EXCEEDED = -32010
    RESUME_MISMATCH = -32011
    CANNOT_MOVE = -32012


class Consequence(Struct, frozen=True):
    """What a code means for the client and for the request.

    `status` is the HTTP status (None: the client never sees it), `client_code` the `error.code`
    of the API, `elsewhere` whether another agent may be tried.
    """

    name: str
    status: int | None
    client_code: str | None
    blame: Blame
    elsewhere: bool


CONSEQUENCES: dict[int, Consequence] = {
    RefusalCode.NO_FREE_SLOT: Consequence("no_free_slot", None, None, "capacity", True),
    RefusalCode.DRAINING: Consequence("draining", None, None, "capacity", True),
    RefusalCode.MODEL_NOT_LOADED: Consequence(
        "model_not_loaded", 503, "model_unavailable", "capacity", True
    ),
    RefusalCode.CONTEXT_TOO_LONG: Consequence(
        "context_too_long", 400, "context_length_exceeded", "client", False
    ),
    RefusalCode.CANCELLED: Consequence("cancelled", None, None, "client", False),
    RefusalCode.UNSUPPORTED: Consequence(
        "unsupported", 400, "unsupported_parameter", "client", False
    ),
    RefusalCode.ENGINE_FAILED: Consequence("engine_failed", 502, "upstream_failed", "agent", True),
    RefusalCode.INVALID_TEMPLATE: Consequence(
        "invalid_template", 400, "invalid_value", "client", False
    ),
    RefusalCode.INVALID_GRAMMAR: Consequence(
        "invalid_grammar", 400, "invalid_value", "client", False
    ),
    RefusalCode.INVALID_MEDIA: Consequence("invalid_media", 400, "invalid_value", "client", False),
    RefusalCode.CAP_EXCEEDED: Consequence(
        "cap_exceeded", 429, "token_limit_exceeded", "client", False
    ),
    RefusalCode.RESUME_MISMATCH: Consequence("resume_mismatch", None, None, "agent", True),
    # of a sequence's state: its call can be resumed without it
    RefusalCode.CANNOT_MOVE: Consequence("cannot_move", None, None, "capacity", True),
}

_JSONRPC_OWN = Consequence("protocol_error", 502, "upstream_failed", "agent", True)


def consequence_of(code: int) -> Consequence:
    """The row for a code; JSON-RPC's own and unknown codes are the agent's fault."""
    return CONSEQUENCES.get(code, _JSONRPC_OWN)


def is_known(code: int) -> bool:
    """Whether the code is one of ours or of JSON-RPC's."""
    return code in CONSEQUENCES or code in set(RpcCode)
