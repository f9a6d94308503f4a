"""Chat templates from the agent's side: messages to variables, and the worker that is killed.

Rendering takes at most 1 s and gives at most 1 MiB; a template that does more, or fails, is
refused with a reason, and the next one finds a worker again.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import structlog

import agent
from agent.chat.template_frames import (
    HEADER_BYTES,
    MAX_REPLY_BYTES,
    RenderJob,
    RenderReply,
    encode,
    reply_decoder,
)
from agent.errors import TemplateBusy, TemplateRefused
from protocol.chat import Message
from protocol.generation import GenerationRequest

log = structlog.get_logger()

RENDER_TIMEOUT_S = 1.0
PREPARE_TIMEOUT_S = 10.0
START_TIMEOUT_S = 20.0
MAX_WAITING = 256

_REASONS = {
    "broken": "The chat template failed: ",
    "too_long": "The chat template gave more than 1 MiB of text.",
    "out_of_memory": "The chat template used more memory than the 256 MiB it may.",
}


class TemplateRenderer:
    """One worker process, one job at a time; at most 256 jobs wait, more are refused.

    The worker is started by the first job and again after it was killed. Close it at the end.
    """

    def __init__(self, *, timeout_s: float = RENDER_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self._turn = asyncio.Lock()
        self._waiting = 0
        self._worker: _Worker | None = None

    @property
    def pid(self) -> int | None:
        """The worker's process id, if one runs."""
        return self._worker.process.pid if self._worker else None

    async def prepare(self, template: str) -> None:
        """Compile a template ahead of its first use, with more time than a job has.

        Raises as `render` does.
        """
        await self._run(RenderJob(template=template, variables=None), PREPARE_TIMEOUT_S)

    async def render(
        self,
        template: str,
        variables: dict[str, Any],
        *,
        created: int,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> str:
        """The prompt; nothing if it is not wanted any more when its turn comes.

        Raises `TemplateRefused` with what the client may read, `TemplateBusy`, and `OSError` where
        no worker can be started. Cancelling is safe; a job that had begun costs the worker.
        """
        job = RenderJob(template=template, variables=variables, created=created)
        return await self._run(job, self._timeout_s, is_wanted)

    async def close(self) -> None:
        """End the worker."""
        async with self._turn:
            await self._kill()

    async def _run(
        self, job: RenderJob, timeout_s: float, is_wanted: Callable[[], bool] = lambda: True
    ) -> str:
        if self._waiting >= MAX_WAITING:
            raise TemplateBusy("too many chat templates wait to be rendered")
        frame = _encoded(job)
        self._waiting += 1
        try:
            async with self._turn:
                if not is_wanted():
                    return ""
                reply = await self._ask(frame, timeout_s)
        finally:
            self._waiting -= 1
        if reply.kind == "rendered":
            return reply.text
        raise TemplateRefused(_REASONS.get(reply.kind, "") + reply.text)

    async def _ask(self, frame: bytes, timeout_s: float) -> RenderReply:
        """One job's reply. A worker that dies under it may have been killed from outside, so that
        a second one is asked before the template is blamed."""
        with suppress(EOFError):
            return await self._attempt(frame, timeout_s)
        try:
            return await self._attempt(frame, timeout_s)
        except EOFError as error:
            raise TemplateRefused("The chat template ended its worker process.") from error

    async def _attempt(self, frame: bytes, timeout_s: float) -> RenderReply:
        """Unless the reply came whole and in time the worker is gone afterwards. Raises `EOFError`
        where it died."""
        worker = await self._started()
        healthy = False
        try:
            async with asyncio.timeout(timeout_s):
                reply = await worker.ask(frame)
            healthy = reply.kind != "out_of_memory"
        except TimeoutError as error:
            raise TemplateRefused(
                f"The chat template did not finish within {timeout_s:g} s."
            ) from error
        except (OSError, msgspec.MsgspecError) as error:
            raise EOFError("the worker's reply broke off") from error
        finally:
            if not healthy:
                await self._kill()
        return reply

    async def _started(self) -> _Worker:
        """A worker that runs. Raises `OSError`: that there is none is no template's fault."""
        if self._worker is not None and self._worker.process.returncode is None:
            return self._worker
        await self._kill()
        worker = self._worker = await _Worker.start()
        healthy = False
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                await worker.reply()
            healthy = True
        except EOFError as error:
            raise OSError("the chat template worker ended as it started") from error
        finally:
            if not healthy:
                await self._kill()
        return worker

    async def _kill(self) -> None:
        worker, self._worker = self._worker, None
        if worker is None:
            return
        log.debug("template worker ended", pid=worker.process.pid)
        await worker.kill()


class _Worker:
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
    async def start(cls) -> _Worker:
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                process = await asyncio.create_subprocess_exec(
                    *(sys.executable, "-P", "-m", "agent.chat.template_worker"),
                    *(str(theirs.fileno()), str(os.getpid())),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=asyncio.subprocess.DEVNULL,
                    stderr=asyncio.subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    env=_environment(),
                )
            except BaseException:
                ours.close()
                raise
        reader, writer = await asyncio.open_connection(sock=ours)
        return cls(process, reader, writer)

    async def ask(self, frame: bytes) -> RenderReply:
        self._writer.write(frame)
        await self._writer.drain()
        return await self.reply()

    async def reply(self) -> RenderReply:
        size = int.from_bytes(await self._reader.readexactly(HEADER_BYTES), "little")
        if size > MAX_REPLY_BYTES:
            raise EOFError("reply too long")
        return reply_decoder.decode(await self._reader.readexactly(size))

    async def kill(self) -> None:
        self._writer.transport.abort()
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


def _encoded(job: RenderJob) -> bytes:
    try:
        return encode(job)
    except (OverflowError, msgspec.MsgspecError) as error:
        raise TemplateRefused(f"The chat template cannot be given this: {error}.") from error


def template_variables(
    request: GenerationRequest, template: str, *, bos_token: str, eos_token: str
) -> dict[str, Any]:
    """What a template sees of a request, as transformers would show it.

    The request's own `template_arguments` may add names and set `add_generation_prompt`.
    """
    has_developer = "developer" in template
    variables: dict[str, Any] = {
        "add_generation_prompt": True,
        "documents": None,
        **request.template_arguments,
        "messages": [_as_dict(m, has_developer=has_developer) for m in request.messages or ()],
        "tools": msgspec.to_builtins(request.tools) if request.tools else None,
        "bos_token": bos_token,
        "eos_token": eos_token,
    }
    if request.enable_thinking is not None:
        variables["enable_thinking"] = request.enable_thinking
    return variables


def _as_dict(message: Message, *, has_developer: bool) -> dict[str, Any]:
    """A message with its content as one text and its calls' arguments as objects.

    Templates written for system prompts alone get a developer's message as one.
    """
    shown: dict[str, Any] = msgspec.to_builtins(message)
    if message.role == "developer" and not has_developer:
        shown["role"] = "system"
    if not isinstance(message.content, str):
        shown["content"] = "".join(part.text for part in message.content or ())
    for call in shown.get("tool_calls", ()):
        call["function"]["arguments"] = _as_object(call["function"]["arguments"])
    return shown


def _as_object(arguments: str) -> Any:
    try:
        value = msgspec.json.decode(arguments)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments


def _environment() -> dict[str, str]:
    """Ours, with this very package in front."""
    root = str(Path(agent.__file__).resolve().parent.parent)
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{path}" if path else root}
