"""Prompts that are kept in memory: prefilled whenever an engine is new, one after the other.

A file is a JSON object with `messages` (and `tools`), as a chat request has them, or the plain
text of a system message. Requests that begin so are spared the prefill, whosever they are: these
texts are the operator's, and what tenants send is never found here. The balancer is told of them in
the default `cache_scope`. It is a convenience: what cannot be warmed is an issue, and serving goes
on.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct, structs

from agent.chat.template import template_variables
from agent.commands.desk import Desk
from agent.commands.served import Served
from agent.engine.frames import Refused, Step, Submit
from agent.errors import ConfigError, TemplateBusy, TemplateRefused
from protocol.chat import Message, Tool
from protocol.prefix_chain import PrefixChain
from protocol.refusals import RefusalCode
from protocol.to_agent import GenerateTokens

log = structlog.get_logger()

COLD = (
    "Some --keep-warm prompts are not kept warm: requests that begin so are served, but not spared "
    "the prefill"
)
NO_TEMPLATE = "the model has no chat template; name one with --chat-template, or leave it out"
MEND_IT = "mend the file, or leave it out"
SHORTEN_IT = "shorten it, or serve with a larger --context or fewer --slots"
TRY_AGAIN = "restart the agent to have it tried again"
RETRY_S = 1.0
"""Before a prompt whose template found no room or no process to run in is rendered once more."""
NO_ANSWER = {"add_generation_prompt": False}


class _WarmFile(Struct, frozen=True):
    messages: tuple[Message, ...]
    tools: tuple[Tool, ...] = ()


def read_warm_prompt(path: Path) -> GenerateTokens:
    """The request that a file stands for; raises `ConfigError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"--keep-warm {path} cannot be read as UTF-8 text: {error}") from error
    if not text.strip():
        raise ConfigError(f"--keep-warm {path} is empty; write a system message into it")
    if not text.lstrip().startswith("{"):
        return GenerateTokens(messages=(Message(role="system", content=text.strip()),))
    try:
        chat = msgspec.json.decode(text, type=_WarmFile)
    except msgspec.MsgspecError as error:
        raise ConfigError(
            f"--keep-warm {path} is not a chat: {error}. "
            'It should look like {"messages": [{"role": "system", "content": "…"}]}.'
        ) from error
    return GenerateTokens(messages=chat.messages, tools=chat.tools)


class KeepWarm:
    """Warms the prompts of one engine after the other. Its calls have numbers below 0."""

    def __init__(
        self,
        requests: Mapping[str, GenerateTokens],
        desk: Desk,
        *,
        on_cold: Callable[[str], None] = lambda _: None,
        on_freed: Callable[[], None] = lambda: None,
        wall_clock: Callable[[], float] = time.time,
        retry_s: float = RETRY_S,
    ) -> None:
        """`requests` by the names of their files. `on_cold` is told which of them are not warm, and
        why, whenever that changes; nothing (""): none of those that were tried. `on_freed` is told
        when a prompt's slot is free again."""
        self._files = tuple(requests)
        self._requests = tuple(requests.values())
        self._on_cold = on_cold
        self._on_freed = on_freed
        self._cold: dict[int, str] = {}
        self._desk = desk
        self._wall_clock = wall_clock
        self._retry_s = retry_s
        self._waiting: deque[tuple[int, str]] = deque()
        self._in_engine = 0
        self._engines = 0

    def begin(self) -> None:
        """An engine is ready, with nothing in its cache."""
        self._waiting.clear()
        self._cold.clear()
        self._on_cold("")
        self._in_engine = 0
        self._engines += 1
        served = self._desk.served
        if not self._requests or served is None:
            return
        if served.template:
            self._desk.spawn(self._render(served, self._engines))
        else:
            for number in range(1, len(self._requests) + 1):
                self._is_cold(number, NO_TEMPLATE)

    def on_step(self, step: Step) -> None:
        """Go on when a prompt is warm, or when there may be a slot again.

        To be told of a step before those who look at its news of the cache.
        """
        if not self._waiting:
            return
        for accepted in step.accepted:
            if accepted.call == self._in_engine:
                request = self._requests[-accepted.call - 1]
                chain = PrefixChain.of(request, cache_scope=request.cache_scope)
                self._desk.cached.begin(accepted.call, chain, prompt_tokens=accepted.prompt_tokens)
        for refused in step.refused:
            if refused.call == self._in_engine:
                self._refused(refused)
        for failed in step.failed:
            if failed.call == self._in_engine:
                self._give_up(f"{failed.message}; {TRY_AGAIN}")
        if any(ended.call == self._in_engine for ended in step.ended):
            log.info("prompt is kept warm", file=self._files[-self._in_engine - 1])
            self._desk.cached.end(self._in_engine, None, completion_tokens=0)
            self._leave()
        if not self._in_engine and _frees_slots(step):
            self._next()

    async def _render(self, served: Served, engine: int) -> None:
        """The outermost edge of a task: nothing is raised."""
        rendered: list[tuple[int, str]] = []
        cold: list[tuple[int, str]] = []
        for number, request in enumerate(self._requests, start=1):
            try:
                rendered.append((-number, await self._rendered(served, request)))
            except TemplateRefused as error:
                cold.append((number, f"{error}; {MEND_IT}"))
            except (TemplateBusy, OSError) as error:
                cold.append((number, f"{error}, twice; {TRY_AGAIN}"))
        if engine == self._engines:
            for number, reason in cold:
                self._is_cold(number, reason)
            self._waiting.extend(rendered)
            self._next()

    async def _rendered(self, served: Served, request: GenerateTokens) -> str:
        """The prompt, at the second try if the first one fails for a reason that may pass; raises
        `TemplateRefused`, and `TemplateBusy` or `OSError` of the second try."""
        variables = template_variables(
            # the head of an answer would be cached, too, and no other chat begins so
            structs.replace(request, template_arguments=NO_ANSWER),
            served.template,
            bos_token=served.bos_token,
            eos_token=served.eos_token,
        )
        render = partial(self._desk.renderer.render, served.template, variables)
        with suppress(TemplateBusy, OSError):
            return await render(created=int(self._wall_clock()))
        await asyncio.sleep(self._retry_s)
        return await render(created=int(self._wall_clock()))

    def _next(self) -> None:
        if self._waiting and self._desk.engine.facts is not None:
            number, prompt = self._waiting[0]
            self._in_engine = number
            self._desk.engine.send(Submit(call=number, prompt=prompt, warm=True))

    def _refused(self, refused: Refused) -> None:
        if refused.code == RefusalCode.NO_FREE_SLOT:
            self._in_engine = 0
        elif refused.code == RefusalCode.CONTEXT_TOO_LONG:
            self._give_up(f"{refused.message}; {SHORTEN_IT}")
        else:
            self._give_up(f"{refused.message}; {MEND_IT}")

    def _give_up(self, reason: str) -> None:
        self._is_cold(-self._in_engine, reason)
        self._leave()

    def _leave(self) -> None:
        """The prompt in the engine is warm, or given up; who was refused meanwhile may come."""
        self._waiting.popleft()
        self._in_engine = 0
        self._on_freed()

    def _is_cold(self, number: int, reason: str) -> None:
        self._cold[number] = f"{self._files[number - 1]}: {reason}"
        files = "; ".join(self._cold.values())
        self._on_cold(f"{COLD}: {files}")


def _frees_slots(step: Step) -> bool:
    """Whether a call let go of a slot, or of one that it was promised."""
    is_refused = any(refused.code != RefusalCode.NO_FREE_SLOT for refused in step.refused)
    return bool(step.ended or step.failed or is_refused)
