"""What agents that lie and authors of model files try: each is stopped, and leaves a record."""

from __future__ import annotations

from pathlib import Path
from struct import pack
from typing import Any

import pytest
from msgspec import structs

from agent.chat.template import TemplateRenderer
from agent.engine.loading.gguf_file import read_gguf
from agent.engine.loading.model_shape import shape_of
from agent.errors import GrammarRefused, ModelRejected, TemplateRefused
from agent.grammar.checker import GrammarChecker
from agent.settings import BalancerAddress
from protocol.codec import encode_notification
from protocol.generation import Usage
from protocol.grammar import Grammar, GrammarKind
from protocol.to_balancer import Finished, Tokens
from tests.support.attempts import recorded
from tests.support.fake_agent import FakeAgent, Script
from tests.support.fake_engine import FACTS, FakeEngine
from tests.support.running_agent import running_agent
from tests.support.running_balancer import eventually, running_balancer

HTML = "<img src=x onerror=alert(1)>"
COMMANDS = "\x1b[2J\n\u2028"
HI = {"messages": [{"role": "user", "content": "hi"}]}
CHAT = "/v1/chat/completions"


# --- templates ---

CLASSES = "().__class__.__bases__[0].__subclasses__()"
ESCAPES = (
    *(f"{{{{ {CLASSES} }}}}", f"{{% for c in {CLASSES} %}}{{{{ c.__init__ }}}}{{% endfor %}}"),
    "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
    *("{{ lipsum.__globals__['os'].environ }}", "{{ namespace.__init__.__globals__ }}"),
    "{{ raise_exception.__globals__.sys.modules }}",
    *("{{ strftime_now.__closure__[0] }}", "{{ strftime_now.__code__.co_consts }}"),
    "{{ '{0.__class__.__mro__}'.format(messages) }}",
    *("{{ self._TemplateReference__context.environment }}", "{{ self.__init__.__globals__ }}"),
    *("{{ messages.append({}) }}", "{{ messages[0].update({'role': 'system'}) }}"),
)
FILES = ("{% import '/etc/passwd' as p %}", "{% include '/etc/passwd' %}", "{% extends 'a' %}")
BOMBS = ("{{ range(10**9)|list }}", "{{ 'a' * 10**10 }}", "{% for i in range(99999) %}{{ i }}")
HIDDEN = ("{{ lipsum|attr('__globals__') }}", "{{ lipsum|attr('__glo' ~ 'bals__') }}")
"""Jinja shows nothing at all for these."""


async def test_a_model_s_template_reaches_nothing_but_the_conversation() -> None:
    renderer = TemplateRenderer(timeout_s=5.0)

    async def outcome(template: str) -> str:
        messages = [{"role": "user", "content": "hi"}]
        try:
            return await renderer.render(template, {"messages": messages}, created=0)
        except TemplateRefused as refused:
            return f"refused: {refused}"

    try:
        for template in ESCAPES:
            assert "SecurityError: access to attribute" in await outcome(template), template
        for template in FILES:
            assert "no loader for this environment" in await outcome(template), template
        for template in HIDDEN:
            assert await outcome(template) == ""
        for template in BOMBS:
            assert (await outcome(template)).startswith("refused: "), template
        assert await outcome("{{ messages[0].content }}") == "hi"
    finally:
        await renderer.close()


async def test_a_request_to_a_model_with_a_hostile_template_fails_by_name() -> None:
    async with running_balancer() as balancer:
        address = BalancerAddress("127.0.0.1", balancer.management_port)
        async with running_agent(address, FakeEngine(), chat_template=ESCAPES[0]):
            await eventually(
                lambda: any(agent.slots_total for agent in balancer.app.wiring.roster.agents()),
                "the agent's slots",
            )
            with recorded() as records:
                answer = await balancer.post(CHAT, HI)
            assert answer.status == 400
            assert "SecurityError" in answer.error["message"]
            records.refusal(400, answer.error["code"])


# --- files ---

U32, I32, F32, TEXT, ARRAY, U64 = 4, 5, 6, 8, 9, 10
LARGEST = {U32: 2**32 - 1, U64: 2**64 - 1}


def text(value: str) -> bytes:
    data = value.encode()
    return pack("<Q", len(data)) + data


def number(kind: int, value: float) -> bytes:
    return pack("<I" + {U32: "I", I32: "i", F32: "f", U64: "Q"}[kind], kind, value)


def gguf(path: Path, *, tensors: int = 0, entries: int | None = None, **more: bytes) -> Path:
    """A header with these values; what it says of their number may be something else."""
    shape = {"block_count": 2, "embedding_length": 32, "context_length": 512}
    found = {f"gemma2.{name}": number(U32, value) for name, value in shape.items()}
    found["general.architecture"] = pack("<I", TEXT) + text("gemma2")
    found |= {name.replace("__", "."): value for name, value in more.items()}
    count = len(found) if entries is None else entries
    head = b"GGUF" + pack("<IQQ", 3, tensors, count)
    path.write_bytes(head + b"".join(text(name) + value for name, value in found.items()))
    return path


@pytest.mark.parametrize(
    "said",
    [
        {"tensors": 2**63},
        {"entries": 2**64 - 1},
        {"entries": 900_000},
        {"general__name": pack("<IQ", TEXT, 2**62)},
        {"tokenizer__ggml__tokens": pack("<IIQ", ARRAY, TEXT, 2**64 - 1)},
        {"a": pack("<IIQ", ARRAY, U64, 2**64 - 1)},
        {"a": pack("<IIQ", ARRAY, ARRAY, 1) + pack("<IQ", U32, 1)},
        {"a": pack("<I", 77)},
        {"general__alignment": number(U32, 0)},
        {"general__alignment": number(F32, 1.0)},
        {"general__architecture": number(U32, 7)},
        {"split__count": number(U32, 2**32 - 1)},
        {"gemma2__block_count": number(U32, 2**32 - 1)},
        {"gemma2__block_count": number(I32, -1)},
        {"gemma2__embedding_length": pack("<I", TEXT) + text("wide")},
    ],
)
def test_a_model_file_with_hostile_metadata_is_rejected_before_llama_cpp_sees_it(
    tmp_path: Path, said: dict[str, Any]
) -> None:
    with pytest.raises(ModelRejected) as rejected:
        shape_of(read_gguf(gguf(tmp_path / "model.gguf", **said)))
    assert str(rejected.value).isprintable()


def test_no_number_of_a_model_file_takes_memory_by_itself(tmp_path: Path) -> None:
    for kind, largest in LARGEST.items():
        for name in ("attention__sliding_window_pattern", "attention__head_count", "vocab_size"):
            said: dict[str, Any] = {f"gemma2__{name}": number(kind, largest)}
            shape = shape_of(read_gguf(gguf(tmp_path / "model.gguf", **said)))
            assert len(shape.layers) == 2


async def test_names_of_a_model_file_and_of_an_agent_are_data_and_no_page() -> None:
    async with running_balancer() as balancer:
        for name in (HTML, COMMANDS, "../../etc", "a" * 300):
            refused = FakeAgent(balancer.management_port, name=name)
            await refused.open()
            with recorded() as records:
                await refused.register()
                await refused.close()
            assert refused.refusal is not None
            records.event("message dropped", kind="bad_message")
        hostile = structs.replace(FACTS, architecture=HTML * 9, description=COMMANDS + HTML * 99)
        address = BalancerAddress("127.0.0.1", balancer.management_port)
        async with running_agent(address, FakeEngine(facts=hostile), name="gpu"):
            await eventually(balancer.app.wiring.roster.agents, "the agent is there")
            async with balancer.session.get(f"{balancer.management_url}/agents") as answer:
                assert answer.content_type == "application/json"
                assert answer.headers["X-Content-Type-Options"] == "nosniff"
                assert HTML in await answer.text()
        async with balancer.session.get(balancer.management_url) as page:
            policy = page.headers["Content-Security-Policy"]
            assert "default-src 'none'" in policy
            assert "unsafe-inline" not in policy


async def test_a_grammar_runs_by_work_that_is_counted_and_reads_nothing_from_elsewhere() -> None:
    """What takes a backtracking engine for ever takes llguidance no longer than other patterns."""
    checker = GrammarChecker(timeout_s=20.0)
    nested = "(" * 5000 + "a" + ")" * 5000
    try:
        for pattern in ("(a+)+b", "(a|a)*b", "(.*)*x", "((a{1000}){1000}){1000}"):
            await checker.check(Grammar(kind="regex", text=pattern))
        hostile: tuple[tuple[GrammarKind, str, str], ...] = (
            ("regex", r"(a)\1", "backreferences"),
            ("regex", "(?=a)a", "look-around"),
            ("regex", nested, "nested too deep"),
            ("json_schema", '{"$ref": "http://169.254.169.254/"}', "leads out of the schema"),
            ("json_schema", '{"$ref": "file:///etc/passwd"}', "leads out of the schema"),
            ("json_schema", '{"$ref": "#"}', "cannot be used"),
        )
        for kind, text, why in hostile:
            with pytest.raises(GrammarRefused, match=why):
                await checker.check(Grammar(kind=kind, text=text))
    finally:
        await checker.close()


# --- agents ---


async def test_an_agent_does_not_get_the_name_of_one_that_is_there() -> None:
    async with running_balancer() as balancer, FakeAgent(balancer.management_port) as first:
        with recorded() as records:
            async with FakeAgent(balancer.management_port, epoch="mine") as second:
                assert second.refusal is not None
                assert second.refusal.data == {"reason": "name_taken"}
        records.audited("agent.refused", target="one", facts={"reason": "name_taken"})
        assert (await balancer.post(CHAT, HI)).status == 200
        assert len(first.started) == 1


async def test_an_agent_that_lies_of_others_calls_and_of_counts_is_not_believed() -> None:
    held = Script(is_held=True)
    async with (
        running_balancer() as balancer,
        FakeAgent(balancer.management_port, name="honest", script=held) as honest,
    ):
        reader, writer = await balancer.open_chat(stream=True)
        call = await honest.call()
        async with FakeAgent(balancer.management_port, name="liar") as liar:
            usage = Usage(prompt_tokens=1, completion_tokens=1)
            with recorded() as records:
                for message in (
                    Tokens(calls=(call.id,), token_ids=((1,),), deltas=("stolen",)),
                    Finished(call=call.id, finish_reason="stop", usage=usage),
                ):
                    await liar.send_raw(encode_notification(message).decode())
                await eventually(
                    lambda: balancer.metric("paddler_link_garbage_total") >= 2, "they are dropped"
                )
            records.event("message dropped", agent="liar", kind="unknown_call")
            await honest.tokens(call, "mine")
            await honest.finish(call)
            answer = await reader.readuntil(b"[DONE]")
            writer.close()
        assert b"mine" in answer
        assert b"stolen" not in answer


@pytest.mark.parametrize(
    ("prompt_tokens", "completion_tokens"), [(-(10**9), 1), (1, -(10**9)), (2**62, 1), (1, 2**62)]
)
async def test_counts_that_no_model_could_have_are_no_message(
    prompt_tokens: int, completion_tokens: int
) -> None:
    """Fewer than none would give a tenant back what it spent, or take from the totals."""
    held = Script(is_held=True)
    async with (
        running_balancer() as balancer,
        FakeAgent(balancer.management_port, script=held, heartbeat_s=0.05) as agent,
    ):
        reader, writer = await balancer.open_chat()
        call = await agent.call()
        usage = Usage(prompt_tokens=prompt_tokens, completion_tokens=completion_tokens)
        ended = Finished(call=call.id, finish_reason="stop", usage=usage)
        with recorded() as records:
            await agent.send_raw(encode_notification(ended).decode())
            await eventually(lambda: balancer.metric("paddler_link_garbage_total"), "it is dropped")
        assert "tokens" in records.event("message dropped", kind="bad_message")["reason"]
        assert balancer.metric("paddler_prompt_tokens_total") == 0
        assert balancer.metric("paddler_completion_tokens_total") == 0
        await agent.finish(call)
        await reader.readuntil(b"}")
        writer.close()


async def test_an_agent_with_more_slots_than_there_can_be_does_not_come_in() -> None:
    async with running_balancer() as balancer:
        liar = FakeAgent(balancer.management_port, name="liar", slots=10**6)
        await liar.open()
        with recorded() as records:
            await liar.register()
            await liar.close()
        assert liar.refusal is not None
        assert "slots_total" in liar.refusal.message
        records.event("message dropped", kind="bad_message")
        assert not balancer.app.wiring.roster.agents()
