"""What an agent tells of its model when it is asked."""

from __future__ import annotations

import pytest
from msgspec import structs

from agent.commands.served import quantization_of
from protocol.codec import decode_result
from protocol.descriptions import MAX_TEMPLATE_CHARS, ModelDescription
from protocol.jsonrpc import ErrorResponse, Response
from protocol.refusals import RefusalCode
from protocol.to_agent import DescribeModel
from tests.support.fake_balancer import fake_balancer
from tests.support.fake_engine import FACTS, PLAIN_TEMPLATE, FakeEngine
from tests.support.running_agent import running_agent


@pytest.mark.parametrize("template", [PLAIN_TEMPLATE, "x" * (MAX_TEMPLATE_CHARS + 1)])
async def test_a_template_is_told_up_to_its_bound_without_the_engine(template: str) -> None:
    engine = FakeEngine(facts=structs.replace(FACTS, chat_template=template))
    async with fake_balancer() as balancer, running_agent(balancer.address, engine):
        await balancer.has_slots(4)
        answer = await balancer.answered(await balancer.ask(DescribeModel()))
        assert isinstance(answer, Response)
        described = decode_result(answer.result, ModelDescription)
        assert described.chat_template == template[:MAX_TEMPLATE_CHARS]
        assert described.template_chars == len(template)
        assert described.eos_token == "</s>"
    assert engine.commands == []


async def test_another_model_is_not_described() -> None:
    async with fake_balancer() as balancer, running_agent(balancer.address, FakeEngine()):
        await balancer.has_slots(4)
        answer = await balancer.answered(await balancer.ask(DescribeModel(model="other")))
        assert isinstance(answer, ErrorResponse)
        assert answer.error.code == RefusalCode.MODEL_NOT_LOADED


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("llama 7B Q4_K - Medium", "Q4_K - Medium"),
        ("llama 8x7B Q8_0", "Q8_0"),
        ("llama 30B.A3B F16", "F16"),
        ("llama all F32", "all F32"),
        ("llama", ""),
        ("another kind of words", ""),
    ],
)
def test_how_weights_are_written_is_taken_from_llama_cpp_s_words(
    description: str, expected: str
) -> None:
    assert quantization_of(description, "llama") == expected
