"""Warm prompts: one after the other, for every engine anew, and none of them costs the agent."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from agent.chat.template import TemplateRenderer
from agent.commands.calls import Calls
from agent.commands.desk import Desk
from agent.commands.queries import Queries
from agent.commands.served import served
from agent.engine.frames import Accepted, CacheNews, CallFailed, Ended, Refused, Step, Submit
from agent.errors import ConfigError, TemplateBusy, TemplateRefused
from agent.keep_warm import (
    COLD,
    MEND_IT,
    NO_TEMPLATE,
    SHORTEN_IT,
    TRY_AGAIN,
    KeepWarm,
    read_warm_prompt,
)
from agent.settings import MAX_FILES, BalancerAddress, Settings
from protocol.agent_status import AgentStatus
from protocol.chat import Message
from protocol.generation import Timings, Usage
from protocol.prefix_chain import prefix_chain
from protocol.refusals import RefusalCode
from protocol.to_agent import GenerateTokens
from tests.support.fake_engine import FACTS, FakeEngine

SETTINGS = Settings(balancer=BalancerAddress("a", 1), model_path=Path("fake.gguf"))
REQUESTS = [GenerateTokens(messages=(Message(role="system", content=c),)) for c in ("one", "two")]
USAGE = Usage(prompt_tokens=3, completion_tokens=0)


class Renderer(TemplateRenderer):
    """Renders a prompt when it is let go, or raises."""

    def __init__(self, *, error: Exception | None = None, times: int = 1000) -> None:
        """The first `times` renderings of "one" raise the error."""
        super().__init__()
        self._times = times
        self.may_go = asyncio.Event()
        self.may_go.set()
        self.created: list[int] = []
        self._error = error

    async def render(
        self,
        template: str,  # noqa: ARG002 (the renderer's interface)
        variables: dict[str, Any],
        *,
        created: int,
        **_: Any,
    ) -> str:
        await self.may_go.wait()
        self.created.append(created)
        if self._error is not None and variables["messages"][0]["content"] == "one":
            self._times -= 1
            if self._times >= 0:
                raise self._error
        return str(variables["messages"][0]["content"])


class Warming:
    """Prompts to be kept warm, at an engine whose steps the test makes."""

    def __init__(self, renderer: Renderer) -> None:
        self._tasks: list[Coroutine[Any, Any, None]] = []
        self.engine = FakeEngine()
        self.engine.facts = FACTS
        self.engine.ignore_submits = True
        self.desk = Desk(
            engine=self.engine,
            renderer=renderer,
            calls=Calls(lambda _: None),
            send=lambda _: None,
            spawn=self._tasks.append,
            status=lambda: AgentStatus(seq=1, capacity_version=0, slots_total=4),
            served=served(FACTS, SETTINGS),
        )
        self.told: list[str] = []
        self.freed = 0
        self.warm = KeepWarm(
            dict(zip(("one.txt", "two.txt"), REQUESTS, strict=True)),
            self.desk,
            on_cold=self.told.append,
            on_freed=self.count_freed,
            wall_clock=lambda: 1_700_000_000.9,
            retry_s=0.0,
        )

    def count_freed(self) -> None:
        self.freed += 1

    @property
    def submitted(self) -> list[int]:
        return [each.call for each in self.engine.commands if isinstance(each, Submit)]

    async def begin(self, *, renders: bool = True) -> None:
        """An engine is ready; without `renders` its prompts are still to come."""
        self.warm.begin()
        if renders:
            await self.rendered()

    async def rendered(self) -> None:
        tasks = self._tasks.copy()
        self._tasks.clear()
        await asyncio.gather(*tasks)

    def step(self, **news: Any) -> None:
        self.warm.on_step(Step(number=1, **news))

    def end(self, call: int) -> None:
        self.step(ended=(Ended(call, "stop", USAGE, Timings()),))


async def test_prompts_are_warmed_one_after_the_other() -> None:
    renderer = Renderer()
    warming = Warming(renderer)
    await warming.begin()
    assert warming.submitted == [-1]
    warming.end(7)
    assert warming.submitted == [-1]
    warming.end(-1)
    assert warming.submitted == [-1, -2]
    warming.end(-2)
    assert warming.submitted == [-1, -2]
    assert renderer.created == [1_700_000_000] * 2


@pytest.mark.parametrize(
    "freeing",
    [
        {"ended": (Ended(7, "stop", USAGE, Timings()),)},
        {"failed": (CallFailed(7, RefusalCode.ENGINE_FAILED, "broken"),)},
        {"refused": (Refused(7, RefusalCode.CANCELLED, "cancelled"),)},
    ],
)
async def test_a_prompt_that_finds_no_slot_waits_for_one(freeing: dict[str, Any]) -> None:
    warming = Warming(Renderer())
    await warming.begin()
    warming.step(refused=(Refused(-1, RefusalCode.NO_FREE_SLOT, "full"),))
    assert warming.submitted == [-1]
    warming.step(refused=(Refused(8, RefusalCode.NO_FREE_SLOT, "full"),))
    assert warming.submitted == [-1]
    warming.step(**freeing)
    assert warming.submitted == [-1, -1]


NEWS_AND_REMEDY = [
    ({"refused": (Refused(-1, RefusalCode.CONTEXT_TOO_LONG, "too long"),)}, SHORTEN_IT),
    ({"refused": (Refused(-1, RefusalCode.UNSUPPORTED, "no such thing"),)}, MEND_IT),
    ({"failed": (CallFailed(-1, RefusalCode.ENGINE_FAILED, "broken"),)}, TRY_AGAIN),
]


@pytest.mark.parametrize(
    "news",
    [*(news for news, _ in NEWS_AND_REMEDY), {"ended": (Ended(-1, "stop", USAGE, Timings()),)}],
)
async def test_it_is_told_when_a_prompt_leaves_its_slot(news: dict[str, Any]) -> None:
    warming = Warming(Renderer())
    await warming.begin()
    assert warming.freed == 0
    warming.step(**news)
    assert warming.freed == 1


async def test_a_prompt_that_found_no_slot_frees_none() -> None:
    warming = Warming(Renderer())
    await warming.begin()
    warming.step(refused=(Refused(-1, RefusalCode.NO_FREE_SLOT, "full"),))
    assert warming.freed == 0


@pytest.mark.parametrize(("news", "remedy"), NEWS_AND_REMEDY)
async def test_a_prompt_that_cannot_be_warmed_does_not_hold_up_the_next(
    news: dict[str, Any], remedy: str
) -> None:
    warming = Warming(Renderer())
    await warming.begin()
    warming.step(**news)
    assert warming.submitted == [-1, -2]
    reason = next(iter(news.values()))[0].message
    assert warming.told == ["", f"{COLD}: one.txt: {reason}; {remedy}"]


async def test_every_prompt_that_is_not_warm_is_told_until_the_next_engine_tries_it() -> None:
    warming = Warming(Renderer())
    await warming.begin()
    for call in (-1, -2):
        warming.step(refused=(Refused(call, RefusalCode.CONTEXT_TOO_LONG, f"{call} is long"),))
    assert warming.told[-1] == (
        f"{COLD}: one.txt: -1 is long; {SHORTEN_IT}; two.txt: -2 is long; {SHORTEN_IT}"
    )
    await warming.begin()
    assert warming.told[-1] == ""


async def test_without_a_chat_template_no_prompt_is_warm() -> None:
    warming = Warming(Renderer())
    warming.desk.served = served(structs.replace(FACTS, chat_template=""), SETTINGS)
    await warming.begin()
    assert warming.submitted == []
    assert warming.told[-1] == f"{COLD}: one.txt: {NO_TEMPLATE}; two.txt: {NO_TEMPLATE}"


async def test_a_prompt_that_finds_no_slot_is_not_told_of() -> None:
    warming = Warming(Renderer())
    await warming.begin()
    warming.step(refused=(Refused(-1, RefusalCode.NO_FREE_SLOT, "full"),))
    assert warming.told == [""]


@pytest.mark.parametrize(
    ("error", "advice"),
    [
        (TemplateRefused("wrong"), f"; {MEND_IT}"),
        (TemplateBusy("busy"), f", twice; {TRY_AGAIN}"),
        (OSError("no process"), f", twice; {TRY_AGAIN}"),
    ],
)
async def test_a_prompt_that_cannot_be_rendered_costs_neither_the_agent_nor_the_next(
    error: Exception, advice: str
) -> None:
    warming = Warming(Renderer(error=error))
    await warming.begin()
    assert warming.submitted == [-2]
    assert warming.told == ["", f"{COLD}: one.txt: {error}{advice}"]


@pytest.mark.parametrize("error", [TemplateBusy("busy"), OSError("no process")])
async def test_a_prompt_that_was_not_rendered_for_a_reason_that_passed_is_warmed(
    error: Exception,
) -> None:
    warming = Warming(Renderer(error=error, times=1))
    await warming.begin()
    assert warming.submitted == [-1]
    assert warming.told == [""]


async def test_an_engine_that_dies_while_prompts_are_rendered_gets_none_of_them_twice() -> None:
    renderer = Renderer()
    warming = Warming(renderer)
    renderer.may_go.clear()
    await warming.begin(renders=False)
    await warming.begin(renders=False)
    renderer.may_go.set()
    await warming.rendered()
    assert warming.submitted == [-1]
    warming.end(-1)
    warming.end(-2)
    assert warming.submitted == [-1, -2]


async def test_the_balancer_hears_what_is_warm() -> None:
    warming = Warming(Renderer())
    await warming.begin()
    warming.step(accepted=(Accepted(-1, 3, 1),))
    warming.desk.cached.take(CacheNews(0, -1, 3))
    [told] = warming.desk.cached.take_changes()
    assert told.gained == prefix_chain(REQUESTS[0], cache_scope="")


def test_no_query_has_the_number_of_a_warm_prompt() -> None:
    query = Queries().open("a")
    assert query is not None
    assert query.number < -MAX_FILES


def test_a_warm_prompt_is_a_chat_or_the_text_of_a_system_message(tmp_path: Path) -> None:
    file = tmp_path / "warm"
    file.write_text(" Be brief.\n")
    assert read_warm_prompt(file).messages == (Message(role="system", content="Be brief."),)
    file.write_text('{"messages": [{"role": "user", "content": "Hi"}]}')
    assert read_warm_prompt(file).messages == (Message(role="user", content="Hi"),)


@pytest.mark.parametrize("content", [b"", b" \n", b"\xff", b'{"messages": 1}', b"{"])
def test_a_file_that_is_no_warm_prompt_is_refused_by_its_name(
    tmp_path: Path, content: bytes
) -> None:
    file = tmp_path / "warm.json"
    file.write_bytes(content)
    with pytest.raises(ConfigError, match=r"warm\.json"):
        read_warm_prompt(file)
