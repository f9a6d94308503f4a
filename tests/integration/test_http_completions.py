"""What text completions have of their own: several prompts, echoes, suffixes, the best of many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import openai
import pytest

from balancer.policy.choices import seed_of_choice
from protocol.codec import encode_notification
from protocol.generation import TokenLogprob, TopLogprob
from protocol.refusals import RefusalCode
from protocol.to_balancer import Tokens
from tests.support.fake_agent import FakeAgent, Script, events_of
from tests.support.running_balancer import (
    Answer,
    RunningBalancer,
    eventually,
    running_balancer,
)

TEXT = "Hello, world"


@pytest.fixture
async def agent(balancer: RunningBalancer) -> AsyncIterator[FakeAgent]:
    async with FakeAgent(balancer.management_port, slots=8) as agent:
        yield agent


async def complete(balancer: RunningBalancer, **fields: Any) -> Answer:
    return await balancer.post("/v1/completions", {"prompt": "hi", **fields})


def texts_of(answer: Answer) -> dict[int, str]:
    """The text of each choice, streamed or not."""
    streamed = answer.headers["Content-Type"].startswith("text/event-stream")
    events = [event for event in events_of(answer.body) if event != "[DONE]"]
    texts: dict[int, str] = {}
    for event in events if streamed else [answer.json()]:
        for choice in event["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    return texts


@pytest.mark.parametrize("stream", [False, True])
async def test_each_prompt_of_a_list_has_its_choices_in_order(
    balancer: RunningBalancer, agent: FakeAgent, stream: bool
) -> None:
    answer = await complete(balancer, prompt=["a", [1, 2]], n=2, seed=5, stream=stream)
    assert texts_of(answer) == dict.fromkeys(range(4), TEXT)
    assert [call.prompt for call in agent.started] == ["a", "a", (1, 2), (1, 2)]
    assert [call.seed for call in agent.started] == [seed_of_choice(5, i) for i in range(4)]
    if not stream:
        usage = answer.json()["usage"]
        assert (usage["prompt_tokens"], usage["completion_tokens"]) == (2 * 7, 4 * 4)


@pytest.mark.parametrize("stream", [False, True])
async def test_prompts_are_echoed_before_their_choices(
    balancer: RunningBalancer,
    agent: FakeAgent,  # noqa: ARG001 (serves)
    stream: bool,
) -> None:
    answer = await complete(balancer, prompt=['"a" ', "b "], n=2, echo=True, stream=stream)
    a, b = '"a" ' + TEXT, "b " + TEXT
    assert texts_of(answer) == {0: a, 1: a, 2: b, 3: b}


async def test_prompts_are_scored_as_lm_evaluation_harness_asks_for_it(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    of_prompt = tuple(TokenLogprob(one, f" {one}", -one / 10) for one in range(7))
    said = TokenLogprob(7, "x", -0.5, (TopLogprob(7, "x", -0.5),))
    end = TokenLogprob(8, "<end>", -0.1, (TopLogprob(8, "<end>", -0.1),))
    agent.script = Script(is_held=True)
    given = {"prompt": [[1, 2], [3]], "echo": True, "logprobs": 1, "temperature": 0, "seed": 9}
    for max_tokens, generated, text in ((2, 2, "x"), (0, 0, "")):
        task = asyncio.ensure_future(complete(balancer, max_tokens=max_tokens, **given))
        await eventually(lambda: len(agent.calls) == 2, "both of them run")
        for call in list(agent.calls.values()):
            assert (call.request.prompt_logprobs, call.request.max_tokens) == (True, generated or 1)
            await agent.tokens(call, "x", (*of_prompt, said, end))
            await agent.finish(call)
        body = (await task).json()
        for choice in body["choices"]:
            shown = choice["logprobs"]
            assert choice["text"] == "".join(one.piece for one in of_prompt) + text
            assert shown["token_logprobs"][:2] == [None, -0.1]
            assert shown["top_logprobs"][7:] == [{"x": -0.5}, {"<end>": -0.1}][:generated]
            assert len(shown["tokens"]) == len(of_prompt) + generated
        assert body["usage"]["completion_tokens"] == 2 * generated


async def test_an_agent_that_vanishes_while_it_tells_of_a_prompt_is_not_noticed(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    agent.script = Script(is_held=True)
    scoring = asyncio.ensure_future(complete(balancer, echo=True, logprobs=0))
    scored = await agent.call()
    chatting = asyncio.ensure_future(balancer.chat())
    await eventually(lambda: len(agent.calls) == 2, "both of them run")
    some = Tokens(
        calls=(scored.id,),
        token_ids=((),),
        deltas=("",),
        logprobs=((TokenLogprob(1, "x", -9.0),) * 3,),
    )
    await agent.send_raw(encode_notification(some).decode())
    await agent.tokens(await agent.call(), "Hello")
    await eventually(
        lambda: any(row.completion_tokens for row in balancer.app.wiring.dispatcher.requests()),
        "what came before it arrived",
    )
    agent.kill()
    async with FakeAgent(balancer.management_port, name="two"):
        answer = await scoring
        await chatting
    shown = answer.json()["choices"][0]["logprobs"]
    assert len(shown["tokens"]) == answer.json()["usage"]["total_tokens"]
    assert -9.0 not in shown["token_logprobs"]


async def test_of_many_answers_the_likeliest_are_shown_and_all_are_counted(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    agent.script = Script(is_held=True)
    task = asyncio.ensure_future(complete(balancer, n=2, best_of=4, echo=True))
    await eventually(lambda: len(agent.calls) == 4, "all of them run")
    calls = list(agent.calls.values())
    for call, logprob in zip(calls, (-2.0, -0.5, -1.0, -0.9), strict=True):
        await agent.tokens(call, f"{logprob}", (TokenLogprob(1, "x", logprob),))
    # of two tokens the mean counts, not the sum
    await agent.tokens(calls[2], "!", (TokenLogprob(1, "x", -0.2),))
    for call in calls:
        await agent.finish(call)
    answer = await task
    assert texts_of(answer) == {0: "hi-0.5", 1: "hi-1.0!"}
    assert all(choice["logprobs"] is None for choice in answer.json()["choices"])
    assert answer.json()["usage"]["completion_tokens"] == 2 + 2 + 3 + 2
    assert answer.json()["usage"]["prompt_tokens"] == 7


async def test_the_best_of_each_prompt_is_shown(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    agent.script = Script(is_held=True)
    task = asyncio.ensure_future(complete(balancer, prompt=["a", "b"], best_of=2, logprobs=0))
    await eventually(lambda: len(agent.calls) == 4, "all of them run")
    for call, logprob in zip(agent.calls.values(), (-1.0, -2.0, -4.0, -3.0), strict=True):
        await agent.tokens(call, f"{logprob}", (TokenLogprob(1, "x", logprob),))
    for call in list(agent.calls.values()):
        await agent.finish(call)
    answer = await task
    assert texts_of(answer) == {0: "-1.0", 1: "-3.0"}
    shown = [choice["logprobs"]["token_logprobs"] for choice in answer.json()["choices"]]
    assert shown == [[-1.0], [-3.0]]


async def test_a_suffix_goes_to_the_agent_and_a_model_that_cannot_says_so(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    assert (await complete(balancer, suffix="end")).status == 200
    assert agent.started[0].suffix == "end"
    agent.script = Script(refuse_with=RefusalCode.UNSUPPORTED, refuse_about="suffix")
    refused = await complete(balancer, suffix="end")
    error = refused.error
    assert (refused.status, error["code"], error["param"]) == (
        400,
        "unsupported_parameter",
        "suffix",
    )


async def test_a_prompt_that_is_too_long_is_named_as_its_client_named_it(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    agent.script = Script(refuse_with=RefusalCode.CONTEXT_TOO_LONG)
    for prompt in ("a", ["a", "b"]):
        refused = await complete(balancer, prompt=prompt)
        assert (refused.status, refused.error["param"]) == (400, "prompt")
    assert (await balancer.chat()).error["param"] == "messages"


async def test_log_probabilities_of_many_prompts_are_bounded(
    balancer: RunningBalancer, agent: FakeAgent
) -> None:
    refused = await complete(balancer, prompt=["a"] * 33, logprobs=3)
    assert (refused.status, refused.error["param"]) == (400, "n")
    assert "prompts times `n` times (`logprobs` + 1) is 132" in refused.error["message"]
    assert not agent.started


async def test_openai_s_own_client_reads_the_choices_of_several_prompts(
    balancer: RunningBalancer,
    agent: FakeAgent,  # noqa: ARG001 (serves)
) -> None:
    async with openai.AsyncOpenAI(base_url=f"{balancer.url}/v1", api_key="none") as client:
        whole = await client.completions.create(
            model="demo", prompt=["a ", "b "], n=2, best_of=3, echo=True
        )
        texts = [choice.text for choice in whole.choices]
        assert texts == ["a " + TEXT] * 2 + ["b " + TEXT] * 2


async def test_only_an_admin_s_call_may_have_others_give_way() -> None:
    async with (
        running_balancer(insecure=True) as balancer,
        FakeAgent(balancer.management_port) as agent,
    ):
        proxied = {"X-Forwarded-For": "192.0.2.1"}
        for priority, status in ((1, 403), (0, 200), (-7, 200)):
            body = {"prompt": "hi", "priority": priority}
            answer = await balancer.post("/v1/completions", body, proxied)
            assert answer.status == status
            if status == 403:
                assert answer.error["param"] == "priority"
        assert (await complete(balancer, priority=1000)).status == 200
        assert [call.priority for call in agent.started] == [0, -7, 1000]
