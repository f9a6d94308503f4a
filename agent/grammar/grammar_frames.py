"""What crosses the socket pair between the agent and its grammar worker, as MessagePack."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from agent.grammar.reasoning_block import ReasoningBlock
from protocol.grammar import Grammar

MAX_REFUSAL_CHARS = 1000
MAX_REPLY_BYTES = 16 * 1024


class CompileJob(Struct, frozen=True, kw_only=True, array_like=True):
    """Compile this and forget it."""

    grammar: Grammar
    reasoning: ReasoningBlock | None


class CompileReply(Struct, frozen=True, kw_only=True, array_like=True):
    """What is wrong with the grammar, for the client; "" if nothing."""

    refusal: str = ""
    out_of_memory: bool = False


_encoder = msgspec.msgpack.Encoder()
job_decoder = msgspec.msgpack.Decoder(CompileJob)
reply_decoder = msgspec.msgpack.Decoder(CompileReply)


def encode(frame: CompileJob | CompileReply) -> bytes:
    """The frame's body."""
    return _encoder.encode(frame)
