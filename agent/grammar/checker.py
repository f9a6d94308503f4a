"""Grammars from the agent's side: a client's is compiled in the killable worker first.

That takes at most 2 s and 256 MiB; a grammar that needs more, or is wrong, is refused with a
reason, and the next one finds a worker again. What has passed is remembered by content, for the
callers of one scope: another one cannot see by the time it takes what others asked for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from agent.errors import (
    GrammarBusy,
    GrammarRefused,
    ToolsRefused,
    WorkerBusy,
    WorkerDied,
    WorkerTooSlow,
)
from agent.grammar.grammar_frames import (
    MAX_REPLY_BYTES,
    CompileJob,
    CompileReply,
    encode,
    reply_decoder,
)
from agent.grammar.reasoning_block import ReasoningBlock
from agent.grammar.tools import ToolGrammar
from agent.killable.worker import KillableWorker
from protocol.grammar import Grammar

COMPILE_TIMEOUT_S = 2.0
PASSED_KEPT = 64


class GrammarChecker:
    """One worker process, one job at a time; at most 256 jobs wait, more are refused.

    The worker is started by the first grammar and again after it was killed. Close it at the end.
    """

    def __init__(self, *, timeout_s: float = COMPILE_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._passed: OrderedDict[tuple[str, CompileJob], ToolGrammar | None] = OrderedDict()
        self._worker = KillableWorker(
            "agent.grammar.grammar_worker",
            decode=reply_decoder.decode,
            max_reply_bytes=MAX_REPLY_BYTES,
            spoils=lambda reply: reply.out_of_memory,
        )

    @property
    def pid(self) -> int | None:
        """The worker's process id, if one runs."""
        return self._worker.pid

    async def check(
        self,
        grammar: Grammar | None,
        reasoning: ReasoningBlock | None = None,
        tools: ToolGrammar | None = None,
        *,
        scope: str = "",
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> ToolGrammar | None:
        """Return if the engine may be given this, or nobody wants it any more: the tools as it may
        be given them. Schemas that need not bind have given way where no grammar can express them,
        and so have the tools as a whole, if it took that.

        Raises `GrammarRefused` with what the client may read, `GrammarBusy`, and `OSError` where no
        worker can be started. Cancelling is safe; a job that had begun costs the worker.
        """
        job = CompileJob(grammar=grammar, reasoning=reasoning, tools=tools)
        key = scope, job
        if key in self._passed:
            self._passed.move_to_end(key)
            return self._passed[key]
        try:
            passed = await self._asked(job, is_wanted)
        except GrammarRefused:
            if tools is None or grammar is not None or any(tool.binds for tool in tools.tools):
                raise
            passed = None
        if is_wanted():
            self._passed[key] = passed
        if len(self._passed) > PASSED_KEPT:
            self._passed.popitem(last=False)
        return passed

    async def _asked(self, job: CompileJob, is_wanted: Callable[[], bool]) -> ToolGrammar | None:
        try:
            reply = await self._worker.ask(encode(job), self._timeout_s, is_wanted)
        except WorkerBusy as error:
            raise GrammarBusy("too many grammars wait to be compiled") from error
        except WorkerTooSlow as error:
            raise _too_large(job, f"it did not compile within {self._timeout_s:g} s") from error
        except WorkerDied as error:
            raise _too_large(
                job,
                "it took more than the 256 MiB it may, or ended the process that compiled it",
            ) from error
        return job.tools if reply is None else _tools_of(job, reply)

    async def close(self) -> None:
        """End the worker."""
        await self._worker.close()


def _tools_of(job: CompileJob, reply: CompileReply) -> ToolGrammar | None:
    if reply.at_fault:
        raise ToolsRefused(reply.refusal, reply.at_fault)
    if reply.refusal:
        raise GrammarRefused(reply.refusal)
    return job.tools.loosened(reply.loose) if job.tools and reply.loose else job.tools


def _too_large(job: CompileJob, why: str) -> GrammarRefused:
    message = f"The grammar is too large: {why}."
    if job.tools is None or job.grammar is not None:
        return GrammarRefused(message)
    return ToolsRefused(f"The schemas of the tools: {message}", "tools")
