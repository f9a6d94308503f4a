"""What crosses the socket pair between the agent and its media worker, as MessagePack."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import Struct

MAX_REPLY_BYTES = 4096
MAX_REASON_CHARS = 300


class MediaJob(Struct, frozen=True, kw_only=True, array_like=True):
    """Decode a file and write what is in it to another: RGB bytes, or float32 samples of one
    channel at `sample_rate` Hz."""

    kind: Literal["image", "audio"]
    data: bytes
    target: str
    sample_rate: int = 0


class MediaReply(Struct, frozen=True, kw_only=True, array_like=True):
    """What was written, and its hash; or why nothing was, for the client to read."""

    kind: Literal["decoded", "refused", "out_of_memory"]
    text: str = ""
    width: int = 0
    height: int = 0
    samples: int = 0
    digest: bytes = b""


_encoder = msgspec.msgpack.Encoder()
job_decoder = msgspec.msgpack.Decoder(MediaJob)
reply_decoder = msgspec.msgpack.Decoder(MediaReply)


def encode(frame: MediaJob | MediaReply) -> bytes:
    """The frame's body."""
    return _encoder.encode(frame)
