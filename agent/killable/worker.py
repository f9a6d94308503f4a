"""The agent's side of a killable worker process: one job at a time, a bounded queue in front.

The worker is started by the first job, and again after it was killed or died.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Generic, TypeVar

import msgspec
import structlog

from agent.errors import WorkerBusy, WorkerDied, WorkerTooSlow
from agent.killable.environment import for_children
from agent.killable.job_loop import HEADER_BYTES, framed

log = structlog.get_logger()

START_TIMEOUT_S = 20.0
MAX_WAITING = 256

_Reply = TypeVar("_Reply")


class KillableWorker(Generic[_Reply]):
    """`python -m module FD PARENT_PID`, a program around `job_loop.serve`. Close it at the end.

    `decode` makes a reply of its bytes; after a reply for which `spoils` is true the process is
    not used again. More than 256 waiting jobs are refused.
    """

    def __init__(
        self,
        module: str,
        *,
        decode: Callable[[bytes], _Reply],
        max_reply_bytes: int,
        spoils: Callable[[_Reply], bool] = lambda reply: False,  # noqa: ARG005 (a callback)
    ) -> None:
        self._module = module
        self._decode = decode
        self._max_reply_bytes = max_reply_bytes
        self._spoils = spoils
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._process: _Process | None = None

    @property
    def pid(self) -> int | None:
        """The worker's process id, if one runs."""
        return self._process.process.pid if self._process else None

    async def ask(
        self, job: bytes, timeout_s: float, is_wanted: Callable[[], bool] = lambda: True
    ) -> _Reply | None:
        """The reply to a job; None if it is not wanted any more when its turn comes.

        Raises `WorkerBusy`, `WorkerTooSlow`, `WorkerDied` where the job ended the process twice,
        and `OSError` where no process can be started. Cancelling is safe; a job that had begun
        costs the process.
        """
        if self._waiting >= MAX_WAITING:
            raise WorkerBusy(f"{MAX_WAITING} jobs wait already")
        self._waiting += 1
        try:
            async with self._turn:
                return await self._asked(framed(job), timeout_s) if is_wanted() else None
        finally:
            self._waiting -= 1

    async def close(self) -> None:
        """End the process."""
        async with self._turn:
            await self._kill()

    async def _asked(self, frame: bytes, timeout_s: float) -> _Reply:
        """One job's reply. A process that dies under it may have been killed from outside, so that
        a second one is asked before the job is blamed."""
        with suppress(EOFError):
            return await self._attempt(frame, timeout_s)
        try:
            return await self._attempt(frame, timeout_s)
        except EOFError as error:
            raise WorkerDied("the job ended its worker process") from error

    async def _attempt(self, frame: bytes, timeout_s: float) -> _Reply:
        """Unless the reply came whole and in time the process is gone afterwards. Raises `EOFError`
        where it died."""
        process = await self._started()
        healthy = False
        try:
            async with asyncio.timeout(timeout_s):
                reply = self._decode(await process.ask(frame, self._max_reply_bytes))
            healthy = not self._spoils(reply)
        except TimeoutError as error:
            raise WorkerTooSlow(f"the job took more than {timeout_s:g} s") from error
        except (OSError, msgspec.MsgspecError) as error:
            raise EOFError("the worker's reply broke off") from error
        finally:
            if not healthy:
                await self._kill()
        return reply

    async def _started(self) -> _Process:
        """A process that runs. Raises `OSError`: that there is none is no job's fault."""
        if self._process is not None and self._process.process.returncode is None:
            return self._process
        await self._kill()
        process = self._process = await _Process.start(self._module)
        healthy = False
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await process.reply(0)
            healthy = True
        except EOFError as error:
            raise OSError(f"{self._module} ended as it started") from error
        finally:
            if not healthy:
                await self._kill()
        return process

    async def _kill(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        log.debug("worker ended", module=self._module, pid=process.process.pid)
        await process.kill()


class _Process:
    """A running worker process and the socket to it."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.process = process
        self._reader = reader
        self._writer = writer

    @classmethod
    async def start(cls, module: str) -> _Process:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", module),
                    *(str(theirs.fileno()), str(os.getpid())),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env=for_children(os.environ),
                )
            except BaseException:
                ours.close()
                raise
        reader, writer = await asyncio.open_connection(sock=ours)
        return cls(process, reader, writer)

    async def ask(self, frame: bytes, max_reply_bytes: int) -> bytes:
        self._writer.write(frame)
        await self._writer.drain()
        return await self.reply(max_reply_bytes)

    async def reply(self, max_bytes: int) -> bytes:
        size = int.from_bytes(await self._reader.readexactly(HEADER_BYTES), "little")
        if size > max_bytes:
            raise EOFError("reply too long")
        return await self._reader.readexactly(size)

    async def kill(self) -> None:
        self._writer.transport.abort()
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()
