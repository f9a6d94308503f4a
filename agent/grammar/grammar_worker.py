"""The process that compiles a client's grammar first, so that a hostile one can be killed.

Started as `python -m agent.grammar.grammar_worker FD PARENT_PID`. Bytes stand for the vocabulary:
what a grammar costs to compile hardly depends on it, and tokens that it names are looked for by the
engine, which has them.
"""

from __future__ import annotations

import re
import sys
import time

from llguidance import LLMatcher, LLTokenizer
from msgspec import structs

from agent.errors import GrammarRefused
from agent.grammar.compiling import compiled, kind_of, limits_for, reason
from agent.grammar.grammar_frames import (
    MAX_REFUSAL_CHARS,
    CompileJob,
    CompileReply,
    encode,
    job_decoder,
)
from agent.grammar.lark_text import grammar_text
from agent.grammar.marks import TokenNames
from agent.grammar.tools import ToolGrammar, ToolSchema
from agent.killable.job_loop import serve
from protocol.grammar import Grammar

MAX_CPU_S = 0.5
"""What may pass: the engine compiles the same once more, one after the other."""

_BYTES = LLTokenizer("byte")
_NAMES = TokenNames(control=lambda _text: None, whole=lambda _text: 0)
_NAMES_TOKENS = re.compile(r"<[^\s<>]")


def checked(job: CompileJob) -> CompileReply:
    """Do one job; whatever the grammar does short of ending the process is a reply."""
    if job.tools is None:
        return _checked(job)
    if job.grammar is not None:
        alone = _checked(structs.replace(job, tools=None))
        if alone.refusal:
            return alone
    whole = _checked(job)
    return _loosened(job, job.tools, whole) if whole.refusal else whole


def _loosened(job: CompileJob, tools: ToolGrammar, whole: CompileReply) -> CompileReply:
    """The reply where tools cannot be held to all their schemas: which of them have to, or which
    give way. `whole` is that for all of them as they are."""
    loose: list[int] = []
    for number, tool in enumerate(tools.tools):
        reply = _checked(_alone(tools, tool))
        if reply.out_of_memory or (reply.refusal and tool.binds):
            refusal = shortened(f"The parameters of the tool `{tool.name}`: {reply.refusal}")
            return structs.replace(reply, refusal=refusal, at_fault=f"tools[{tool.place}]")
        if reply.refusal:
            loose.append(number)
    may_be_loose = [number for number, tool in enumerate(tools.tools) if not tool.binds]
    for numbers in filter(None, (loose, may_be_loose)):
        if not _checked(structs.replace(job, tools=tools.loosened(numbers))).refusal:
            return CompileReply(loose=tuple(numbers))
    return structs.replace(whole, at_fault="tools")


def _alone(tools: ToolGrammar, tool: ToolSchema) -> CompileJob:
    """One tool's schema, between tags where the model writes them, which can express less."""
    if tools.form.tags is not None:
        only = structs.replace(tools, tools=(tool,), must_call=True)
        return CompileJob(grammar=None, reasoning=None, tools=only)
    schema = Grammar(kind="json_schema", text=tool.schema)
    return CompileJob(grammar=schema, reasoning=None)


def _checked(job: CompileJob) -> CompileReply:
    started = time.process_time()
    try:
        _compile(job)
    except GrammarRefused as refusal:
        return CompileReply(refusal=shortened(str(refusal)))
    except (MemoryError, RecursionError):
        return CompileReply(refusal="The grammar used more memory than it may.", out_of_memory=True)
    taken = time.process_time() - started
    if taken > MAX_CPU_S:
        return CompileReply(
            refusal=f"The grammar is too large: it takes {taken:.1f} s to compile, "
            f"{MAX_CPU_S:g} s are allowed."
        )
    return CompileReply()


def _compile(job: CompileJob) -> None:
    grammar = job.grammar
    text = grammar_text(grammar, job.reasoning, _NAMES, job.tools)
    if (
        grammar is None
        or grammar.kind not in ("lark", "gbnf")
        or not _NAMES_TOKENS.search(grammar.text)
    ):
        compiled(_BYTES, text, kind_of(grammar))
        return
    # without a tokenizer no token can be unknown
    problem = LLMatcher.validate_grammar(text, limits=limits_for(grammar.kind))
    if problem and not problem.startswith("WARNING"):
        raise GrammarRefused(f"The grammar cannot be used: {reason(problem)}.")


def shortened(refusal: str) -> str:
    """A refusal names what is wrong as the client wrote it, which may be as long as the grammar."""
    if len(refusal) <= MAX_REFUSAL_CHARS:
        return refusal
    return f"{refusal[: MAX_REFUSAL_CHARS - 1]}…"


def _reply_to(job: bytes) -> bytes:
    return encode(checked(job_decoder.decode(job)))


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]), _reply_to)
