"""OpenAI's Responses with the shipped model, through the official client."""

from __future__ import annotations

from collections.abc import Iterator

import openai
import pytest

from tests.support.cluster import Cluster

COUNT = "Count from 1 to 120."
COUNTED = " ".join(map(str, range(1, 121)))


@pytest.fixture
def client(serving: Cluster) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(
        base_url=f"{serving.inference_url}/v1", api_key="none", max_retries=0, timeout=60
    ) as client:
        yield client


def test_a_response_is_the_same_in_one_piece_and_as_a_stream(client: openai.OpenAI) -> None:
    whole = client.responses.create(model="demo", input=COUNT, temperature=0)
    assert (whole.output_text, whole.status) == (COUNTED, "completed")
    with client.responses.stream(model="demo", input=COUNT, temperature=0) as stream:
        pieces = [event.delta for event in stream if event.type == "response.output_text.delta"]
        streamed = stream.get_final_response()
    assert "".join(pieces) == streamed.output_text == COUNTED
    assert len(pieces) > 50


def test_what_is_gone_on_with_is_not_prefilled_again(client: openai.OpenAI) -> None:
    first = client.responses.create(model="demo", input=COUNT, temperature=0)
    second = client.responses.create(
        model="demo", input="And once more?", previous_response_id=first.id, temperature=0
    )
    assert first.usage is not None
    assert second.usage is not None
    said = first.usage.input_tokens + first.usage.output_tokens
    assert second.usage.input_tokens > said
    assert second.usage.input_tokens_details.cached_tokens > said / 2


def test_what_is_cut_short_says_why(client: openai.OpenAI) -> None:
    cut = client.responses.create(model="demo", input=COUNT, temperature=0, max_output_tokens=5)
    assert cut.status == "incomplete"
    assert cut.incomplete_details is not None
    assert cut.incomplete_details.reason == "max_output_tokens"
    assert COUNTED.startswith(cut.output_text)
    assert cut.usage is not None
    assert cut.usage.output_tokens == 5
