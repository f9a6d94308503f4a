"""Prompts that are kept in memory: prefilled whenever an engine is new, one after the other.

A file is a JSON object with `messages` (and `tools`), as a chat request has them, or the plain
text of a system message. Requests of the default `cache_scope` that begin so are spared the
prefill. It is a convenience: what cannot be warmed is an issue, and serving goes on.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
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

REMEDY = (
    "Some --keep-warm prompts are not kept warm: requests that begin so are served, but not spared "
    "the prefill. Mend the file or leave it out, or shorten one that is too long, or give it a "
    "larger --context or fewer --slots"
)
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
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`requests` by the names of their files. `on_cold` is told which of them are not warm, and
        why, whenever that changes; nothing (""): none of those that were tried."""
        self._files = tuple(requests)
        self._requests = tuple(requests.values())
        self._on_cold = on_cold
        self._cold: dict[int, str] = {}
        self._desk = desk
        self._wall_clock = wall_clock
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
                self._is_cold(number, "the model has no chat template")

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
                self._give_up(failed.message)
        if any(ended.call == self._in_engine for ended in step.ended):
            log.info("prompt is kept warm", file=self._files[-self._in_engine - 1])
            self._desk.cached.end(self._in_engine, None, completion_tokens=0)
            self._waiting.popleft()
            self._in_engine = 0
        if step.ended and not self._in_engine:
            self._next()

    async def _render(self, served: Served, engine: int) -> None:
        """The outermost edge of a task: nothing is raised."""
        rendered: list[tuple[int, str]] = []
        for number, request in enumerate(self._requests, start=1):
            variables = template_variables(
                # the head of an answer would be cached, too, and no other chat begins so
                structs.replace(request, template_arguments=NO_ANSWER),
                served.template,
                bos_token=served.bos_token,
                eos_token=served.eos_token,
            )
            try:
                prompt = await self._desk.renderer.render(
                    served.template, variables, created=int(self._wall_clock())
                )
            except (TemplateRefused, TemplateBusy, OSError) as error:
                if engine == self._engines:
                    self._is_cold(number, str(error))
                continue
            rendered.append((-number, prompt))
        if engine == self._engines:
            self._waiting.extend(rendered)
            self._next()

    def _next(self) -> None:
        if self._waiting and self._desk.engine.facts is not None:
            number, prompt = self._waiting[0]
            self._in_engine = number
            self._desk.engine.send(Submit(call=number, prompt=prompt, warm=True))

    def _refused(self, refused: Refused) -> None:
        if refused.code == RefusalCode.NO_FREE_SLOT:
            self._in_engine = 0
        else:
            self._give_up(refused.message)

    def _give_up(self, reason: str) -> None:
        self._in_engine = 0
        number, _ = self._waiting.popleft()
        self._is_cold(-number, reason)
        self._next()

    def _is_cold(self, number: int, reason: str) -> None:
        self._cold[number] = f"{self._files[number - 1]}: {reason}"
        files = "; ".join(self._cold.values())
        self._on_cold(f"{REMEDY}: {files}")
