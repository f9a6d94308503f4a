"""Chat templates in their killable worker: hostile ones are refused, the next one works."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator

import psutil
import pytest

from agent.chat.template import TemplateRenderer
from agent.errors import TemplateRefused
from tests.support.cluster import PROJECT, eventually

LOOP = "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}"


@pytest.fixture
async def renderer() -> AsyncIterator[TemplateRenderer]:
    renderer = TemplateRenderer(timeout_s=5.0)
    yield renderer
    await renderer.close()


async def rendered(renderer: TemplateRenderer, template: str = "Hi {{ name }}") -> str:
    return await renderer.render(template, {"name": "you"}, created=0)


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('Roles must alternate.') }}", r"^Roles must alternate\.$"),
        ("{% for %}", "TemplateSyntaxError"),
        ("{{ 'a' * 10**9 }}", "256 MiB"),
        ("{% set ns = namespace(a=[0]) %}{% for i in range(99) %}{% set ns.a = ns.a + ns.a %}"
         "{% endfor %}", "256 MiB"),
        ("{% for i in range(99999) %}{{ 'abcdefghij' * 10 }}{% endfor %}", "1 MiB"),
        ("{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}", "RecursionError"),
    ],
)  # fmt: skip
async def test_a_hostile_template_is_refused_and_the_next_one_works(
    renderer: TemplateRenderer, template: str, reason: str
) -> None:
    with pytest.raises(TemplateRefused, match=reason):
        await rendered(renderer, template)
    assert await rendered(renderer) == "Hi you"


@pytest.mark.parametrize("template", [LOOP, "{{ (9 ** 9999999) % 7 }}"])
async def test_a_template_without_end_is_killed(template: str) -> None:
    renderer = TemplateRenderer(timeout_s=0.3)
    try:
        with pytest.raises(TemplateRefused, match="did not finish within"):
            await rendered(renderer, template)
        assert renderer.pid is None
    finally:
        await renderer.close()


async def test_a_worker_that_was_killed_is_replaced(renderer: TemplateRenderer) -> None:
    await rendered(renderer)
    assert renderer.pid is not None
    worker = psutil.Process(renderer.pid)
    worker.kill()
    assert await rendered(renderer) == "Hi you"


async def test_a_worker_killed_from_outside_costs_nobody_a_request(
    renderer: TemplateRenderer,
) -> None:
    await rendered(renderer)
    assert renderer.pid is not None
    worker = psutil.Process(renderer.pid)
    worker.suspend()
    asked = asyncio.ensure_future(rendered(renderer))
    await asyncio.sleep(0)  # the job is on its way to the stopped worker
    worker.kill()
    assert await asked == "Hi you"


async def test_a_worker_that_cannot_start_is_not_blamed_on_the_template(
    renderer: TemplateRenderer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(OSError, match="ended as it started"):
        await rendered(renderer)
    assert renderer.pid is None
    monkeypatch.undo()
    assert await rendered(renderer) == "Hi you"


async def test_a_job_that_nobody_wants_any_more_is_not_done(renderer: TemplateRenderer) -> None:
    unwanted = renderer.render("Hi", {}, created=0, is_wanted=lambda: False)
    assert await unwanted == ""
    assert renderer.pid is None


async def test_numbers_that_no_frame_can_carry_are_refused(renderer: TemplateRenderer) -> None:
    with pytest.raises(TemplateRefused, match="cannot be given"):
        await renderer.render("{{ n }}", {"n": 10**30}, created=0)


async def test_jobs_of_many_callers_are_not_mixed_up(renderer: TemplateRenderer) -> None:
    names = [f"caller {number}" for number in range(50)]
    jobs = (renderer.render("{{ name }}", {"name": name}, created=0) for name in names)
    assert await asyncio.gather(*jobs) == names


async def test_a_caller_that_leaves_disturbs_nobody(renderer: TemplateRenderer) -> None:
    await rendered(renderer)
    leaving = asyncio.ensure_future(rendered(renderer, LOOP))
    waiting = asyncio.ensure_future(rendered(renderer))
    await asyncio.sleep(0)
    leaving.cancel()
    assert await waiting == "Hi you"
    with pytest.raises(asyncio.CancelledError):
        await leaving


async def test_the_worker_ends_with_its_renderer(renderer: TemplateRenderer) -> None:
    await rendered(renderer)
    pid = renderer.pid
    assert pid is not None
    await renderer.close()
    assert not psutil.pid_exists(pid)


ENDLESS_RENDERER = """
import asyncio
from agent.chat.template import TemplateRenderer

async def main():
    renderer = TemplateRenderer(timeout_s=300)
    await renderer.prepare("x")
    print(renderer.pid, flush=True)
    await renderer.render({loop!r}, {{}}, created=0)

asyncio.run(main())
"""


async def test_a_killed_agent_leaves_no_worker_behind_even_one_that_is_busy() -> None:
    agent = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", ENDLESS_RENDERER.format(loop=LOOP)),
        stdout=asyncio.subprocess.PIPE,
        cwd=PROJECT,
    )
    assert agent.stdout is not None
    worker = psutil.Process(int(await agent.stdout.readline()))
    await eventually(lambda: worker.status() == psutil.STATUS_RUNNING, what="the worker is busy")
    agent.send_signal(signal.SIGKILL)
    await agent.wait()
    await eventually(
        lambda: not worker.is_running() or worker.status() == psutil.STATUS_ZOMBIE,
        what="the worker is gone",
    )


async def test_a_template_that_takes_no_system_turn_in_between_gets_its_text_elsewhere(
    renderer: TemplateRenderer,
) -> None:
    template = (
        "{% for m in messages %}{% if m.role == 'system' and loop.index0 %}"
        "{{ raise_exception('no') }}{% endif %}[{{ m.role }}:{{ m.content }}]{% endfor %}"
    )
    await renderer.prepare(template)
    turns = [{"role": "user", "content": "hi"}, {"role": "system", "content": "be brief"}]
    prompt = await renderer.render(template, {"messages": turns}, created=0)
    assert prompt == "[user:hi\n\nbe brief]"
