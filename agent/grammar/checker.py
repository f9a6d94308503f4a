"""Grammars from the agent's side: a client's is compiled in the killable worker first.

That takes at most 2 s and 256 MiB; a grammar that needs more, or is wrong, is refused with a
reason, and the next one finds a worker again. What has passed is remembered by content.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from agent.errors import GrammarBusy, GrammarRefused, WorkerBusy, WorkerDied, WorkerTooSlow
from agent.grammar.grammar_frames import MAX_REPLY_BYTES, CompileJob, encode, reply_decoder
from agent.grammar.reasoning_block import ReasoningBlock
from agent.killable.worker import KillableWorker
from protocol.grammar import Grammar

COMPILE_TIMEOUT_S = 2.0
PASSED_KEPT = 64

_Key = tuple[Grammar, ReasoningBlock | None]


class GrammarChecker:
    """One worker process, one job at a time; at most 256 jobs wait, more are refused.

    The worker is started by the first grammar and again after it was killed. Close it at the end.
    """

    def __init__(self, *, timeout_s: float = COMPILE_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._passed: OrderedDict[_Key, None] = OrderedDict()
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
        grammar: Grammar,
        reasoning: ReasoningBlock | None = None,
        *,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> None:
        """Return if the engine may be given this grammar, or nobody wants it any more.

        Raises `GrammarRefused` with what the client may read, `GrammarBusy`, and `OSError` where no
        worker can be started. Cancelling is safe; a job that had begun costs the worker.
        """
        key = (grammar, reasoning)
        if key in self._passed:
            self._passed.move_to_end(key)
            return
        job = CompileJob(grammar=grammar, reasoning=reasoning)
        try:
            reply = await self._worker.ask(encode(job), self._timeout_s, is_wanted)
        except WorkerBusy as error:
            raise GrammarBusy("too many grammars wait to be compiled") from error
        except WorkerTooSlow as error:
            raise GrammarRefused(
                f"The grammar is too large: it did not compile within {self._timeout_s:g} s."
            ) from error
        except WorkerDied as error:
            raise GrammarRefused(
                "The grammar is too large: it took more than the 256 MiB it may, or ended the "
                "process that compiled it."
            ) from error
        if reply is None:
            return
        if reply.refusal:
            raise GrammarRefused(reply.refusal)
        self._passed[key] = None
        if len(self._passed) > PASSED_KEPT:
            self._passed.popitem(last=False)

    async def close(self) -> None:
        """End the worker."""
        await self._worker.close()
