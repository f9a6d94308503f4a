"""What crosses the socket pair between the agent and its grammar worker, as MessagePack."""

from __future__ import annotations

import msgspec
from msgspec import Struct

from agent.grammar.reasoning_block import ReasoningBlock
from agent.grammar.tools import ToolGrammar
from protocol.grammar import Grammar

MAX_REFUSAL_CHARS = 1000
MAX_REPLY_BYTES = 16 * 1024


class CompileJob(Struct, frozen=True, kw_only=True, array_like=True):
    """Compile this, a grammar or tools or both, and forget it."""

    grammar: Grammar | None
    reasoning: ReasoningBlock | None
    tools: ToolGrammar | None = None


class CompileReply(Struct, frozen=True, kw_only=True, array_like=True):
    """What is wrong with the grammar, for the client; "" if nothing. `at_fault` is the parameter,
    where it is one of the tools.

    `loose` are those tools, by their number in the job, whose schemas no grammar can express and
    need not: with any object for their arguments the rest is in order.
    """

    refusal: str = ""
    at_fault: str = ""
    loose: tuple[int, ...] = ()
    out_of_memory: bool = False


_encoder = msgspec.msgpack.Encoder()
job_decoder = msgspec.msgpack.Decoder(CompileJob)
reply_decoder = msgspec.msgpack.Decoder(CompileReply)


def encode(frame: CompileJob | CompileReply) -> bytes:
    """The frame's body."""
    return _encoder.encode(frame)
