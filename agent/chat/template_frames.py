"""What crosses the socket pair between the agent and its template worker, as MessagePack."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from msgspec import Struct

MAX_OUTPUT_BYTES = 1024 * 1024
MAX_REPLY_BYTES = 2 * MAX_OUTPUT_BYTES
MAX_REASON_CHARS = 500


class RenderJob(Struct, frozen=True, kw_only=True, array_like=True):
    """Render this template; `created` (unix seconds, UTC) is its clock.

    Without `variables` the template is only compiled and kept.
    """

    template: str
    variables: dict[str, Any] | None
    created: int = 0


class RenderReply(Struct, frozen=True, kw_only=True, array_like=True):
    """The text, or why there is none."""

    kind: Literal["rendered", "raised", "broken", "too_long", "out_of_memory"]
    text: str


_encoder = msgspec.msgpack.Encoder()
job_decoder = msgspec.msgpack.Decoder(RenderJob)
reply_decoder = msgspec.msgpack.Decoder(RenderReply)


def encode(frame: RenderJob | RenderReply) -> bytes:
    """The frame's body."""
    return _encoder.encode(frame)
