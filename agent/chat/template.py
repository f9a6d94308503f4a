"""Chat templates from the agent's side: messages to variables, and the worker that is killed.

Rendering takes at most 1 s and gives at most 1 MiB; a template that does more, or fails, is
refused with a reason, and the next one finds a worker again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
from msgspec import structs

from agent.chat.call_ids import name_ids, wants_names
from agent.chat.template_frames import MAX_REPLY_BYTES, RenderJob, encode, reply_decoder
from agent.errors import TemplateBusy, TemplateRefused, WorkerBusy, WorkerDied, WorkerTooSlow
from agent.killable.worker import KillableWorker
from protocol.chat import Message, TextPart
from protocol.generation import GenerationRequest

RENDER_TIMEOUT_S = 1.0
PREPARE_TIMEOUT_S = 10.0

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
        self._worker = KillableWorker(
            "agent.chat.template_worker",
            decode=reply_decoder.decode,
            max_reply_bytes=MAX_REPLY_BYTES,
            spoils=lambda reply: reply.kind == "out_of_memory",
        )

    @property
    def pid(self) -> int | None:
        """The worker's process id, if one runs."""
        return self._worker.pid

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
        await self._worker.close()

    async def _run(
        self, job: RenderJob, timeout_s: float, is_wanted: Callable[[], bool] = lambda: True
    ) -> str:
        try:
            reply = await self._worker.ask(_encoded(job), timeout_s, is_wanted)
        except WorkerBusy as error:
            raise TemplateBusy("too many chat templates wait to be rendered") from error
        except WorkerTooSlow as error:
            raise TemplateRefused(
                f"The chat template did not finish within {timeout_s:g} s."
            ) from error
        except WorkerDied as error:
            raise TemplateRefused("The chat template ended its worker process.") from error
        if reply is None:
            return ""
        if reply.kind == "rendered":
            return reply.text
        raise TemplateRefused(_REASONS.get(reply.kind, "") + reply.text)


def _encoded(job: RenderJob) -> bytes:
    try:
        return encode(job)
    except (OverflowError, msgspec.MsgspecError) as error:
        raise TemplateRefused(f"The chat template cannot be given this: {error}.") from error


def template_variables(
    request: GenerationRequest,
    template: str,
    *,
    bos_token: str,
    eos_token: str,
    marker: str = "",
) -> dict[str, Any]:
    """What a template sees of a request, as transformers would show it; of images and sounds the
    `marker`.

    The request's own `template_arguments` may add names and set `add_generation_prompt`.
    """
    has_developer = "developer" in template
    messages = [
        _as_dict(message, marker, has_developer=has_developer) for message in request.messages or ()
    ]
    if wants_names(template):
        name_ids(messages)
    variables: dict[str, Any] = {
        "add_generation_prompt": True,
        "documents": None,
        **request.template_arguments,
        "messages": messages,
        "tools": msgspec.to_builtins(request.tools) if request.tools else None,
        "bos_token": bos_token,
        "eos_token": eos_token,
    }
    if request.enable_thinking is not None:
        variables["enable_thinking"] = request.enable_thinking
        # Granite's and DeepSeek's templates have this name for it
        variables.setdefault("thinking", request.enable_thinking)
    return variables


def _as_dict(message: Message, marker: str, *, has_developer: bool) -> dict[str, Any]:
    """A message with its content as one text and its calls' arguments as objects.

    Templates written for system prompts alone get a developer's message as one.
    """
    if not isinstance(message.content, str):
        parts = message.content or ()
        text = "".join(part.text if isinstance(part, TextPart) else marker for part in parts)
        message = structs.replace(message, content=text)
    shown: dict[str, Any] = msgspec.to_builtins(message)
    if message.role == "developer" and not has_developer:
        shown["role"] = "system"
    for call in shown.get("tool_calls", ()):
        call["function"]["arguments"] = _as_object(call["function"]["arguments"])
    return shown


def _as_object(arguments: str) -> Any:
    try:
        value = msgspec.json.decode(arguments)
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return arguments
    return value if isinstance(value, dict) else arguments
