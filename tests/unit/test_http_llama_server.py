"""llama-server's requests as questions to an agent, and ids in its shape."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from balancer.errors import InvalidRequest
from balancer.http.anthropic.count_tokens import count_question
from balancer.http.anthropic.schema import EXPECTED as ANTHROPIC_EXPECTED
from balancer.http.anthropic.schema import CountTokensRequest
from balancer.http.body import decode_json
from balancer.http.llama_server.answers import PIECE_IDS, token_pieces
from balancer.http.llama_server.schema import (
    EXPECTED,
    MAX_IDS,
    ApplyTemplateBody,
    DetokenizeBody,
    TokenizeBody,
)
from balancer.http.llama_server.translate import (
    MAX_TEXT_CHARS,
    MAX_TEXT_CHARS_WITH_PIECES,
    detokenize_question,
    render_question,
    tokenize_question,
)
from protocol.chat import FunctionDefinition, Message, Tool
from protocol.embeddings import TokenIds
from protocol.to_agent import Detokenize, Render, Tokenize

HI = [{"role": "user", "content": "hi"}]
CREATED = 1_700_000_000


def decoded(kind: Any, **fields: Any) -> Any:
    data = msgspec.json.encode(fields)
    return decode_json(data, msgspec.json.Decoder(kind), max_depth=64, expected=EXPECTED)


def tokenized(**fields: Any) -> Tokenize:
    return tokenize_question(decoded(TokenizeBody, **fields))


def rendered(**fields: Any) -> Render:
    return render_question(decoded(ApplyTemplateBody, **fields), created=CREATED)


@pytest.mark.parametrize(
    ("fields", "question"),
    [
        ({"content": "a"}, Tokenize(text="a")),
        ({"text": "a", "content": None}, Tokenize(text="a")),
        ({"content": ""}, Tokenize(text="")),
        (
            {"content": "a", "add_special": True, "parse_special": False, "with_pieces": True},
            Tokenize(text="a", add_special=True, parse_special=False, with_pieces=True),
        ),
        (
            {"content": "a", "parse_special": None, "model": "org/m@1", "new": 1},
            Tokenize(model="org/m@1", text="a"),
        ),
        ({"content": "a" * MAX_TEXT_CHARS}, Tokenize(text="a" * MAX_TEXT_CHARS)),
    ],
)
def test_a_text_is_tokenised_as_llama_server_would(
    fields: dict[str, Any], question: Tokenize
) -> None:
    assert tokenized(**fields) == question


@pytest.mark.parametrize(
    ("fields", "code", "param"),
    [
        ({}, "missing_required_parameter", "content"),
        ({"content": "a", "text": "a"}, "invalid_value", "text"),
        ({"content": ["a", 1]}, "invalid_type", "content"),
        ({"content": "a", "with_pieces": 1}, "invalid_type", "with_pieces"),
        ({"content": "a" * (MAX_TEXT_CHARS + 1)}, "invalid_value", "content"),
        (
            {"text": "a" * (MAX_TEXT_CHARS_WITH_PIECES + 1), "with_pieces": True},
            "invalid_value",
            "text",
        ),
        ({"content": "a", "model": "a b"}, "invalid_value", "model"),
    ],
)
def test_what_cannot_be_tokenised_is_named(fields: dict[str, Any], code: str, param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        tokenized(**fields)
    assert (refused.value.code, refused.value.param) == (code, param)


def test_ids_become_text_with_special_tokens_in_it() -> None:
    body = decoded(DetokenizeBody, tokens=[1, 2], model="demo")
    expected = Detokenize(model="demo", token_ids=(1, 2), show_special=True)
    assert detokenize_question(body) == expected


@pytest.mark.parametrize("tokens", [None, "a", [-1], [1.5], [0] * (MAX_IDS + 1)])
def test_what_are_no_ids_is_refused(tokens: Any) -> None:
    with pytest.raises(InvalidRequest) as refused:
        decoded(DetokenizeBody, tokens=tokens)
    assert (refused.value.param or "").startswith("tokens")


def test_a_template_is_given_what_a_chat_completion_would_give_it() -> None:
    tool = {"type": "function", "function": {"name": "port"}}
    question = rendered(
        messages=HI,
        model="demo",
        tools=[tool],
        chat_template_kwargs={"enable_thinking": False, "style": "short"},
        add_generation_prompt=False,
        temperature=0.5,
    )
    assert question == Render(
        model="demo",
        messages=(Message(role="user", content="hi"),),
        tools=(Tool(function=FunctionDefinition(name="port")),),
        enable_thinking=False,
        template_arguments={"style": "short", "add_generation_prompt": False},
        created=CREATED,
    )


def test_messages_alone_are_enough_for_a_template() -> None:
    message = Message(role="user", content="hi")
    assert rendered(messages=HI) == Render(messages=(message,), created=CREATED)
    with pytest.raises(InvalidRequest) as refused:
        rendered(messages=[{"role": "nobody", "content": "hi"}])
    assert refused.value.param == "messages[0].role"


def test_a_message_is_counted_with_its_system_prompt_and_tools() -> None:
    fields = {
        "model": "demo",
        "messages": HI,
        "system": "Be brief.",
        "tools": [{"name": "port", "input_schema": {"type": "object"}}],
        "thinking": {"type": "enabled", "budget_tokens": 1024},
    }
    body = decode_json(
        msgspec.json.encode(fields),
        msgspec.json.Decoder(CountTokensRequest),
        max_depth=64,
        expected=ANTHROPIC_EXPECTED,
    )
    function = FunctionDefinition(name="port", parameters={"type": "object"})
    assert count_question(body, created=CREATED) == Render(
        model="demo",
        messages=(
            Message(role="system", content="Be brief."),
            Message(role="user", content="hi"),
        ),
        tools=(Tool(function=function),),
        enable_thinking=True,
        created=CREATED,
        with_prompt=False,
        with_count=True,
    )


# --- answers ---


def shown(answer: TokenIds, *, with_pieces: bool) -> Any:
    return json.loads(b"".join(token_pieces(answer, with_pieces=with_pieces)))


def test_ids_are_numbers_or_have_their_pieces() -> None:
    answer = TokenIds(token_ids=(7, 8, 9), pieces=("a", "\xc3\xbc", "\xc3"))
    assert shown(answer, with_pieces=False) == {"tokens": [7, 8, 9]}
    assert shown(answer, with_pieces=True) == {
        "tokens": [{"id": 7, "piece": "a"}, {"id": 8, "piece": "ü"}, {"id": 9, "piece": [0xC3]}]
    }


@pytest.mark.parametrize("count", [0, 1, PIECE_IDS, 2 * PIECE_IDS + 1])
def test_many_ids_are_written_in_pieces_that_make_one_body(count: int) -> None:
    answer = TokenIds(token_ids=tuple(range(count)), pieces=("a",) * count)
    rows = shown(answer, with_pieces=True)["tokens"]
    assert [row["id"] for row in rows] == list(range(count))
    assert len(list(token_pieces(answer, with_pieces=True))) == 2 + -(-count // PIECE_IDS)


def test_a_piece_that_no_byte_could_be_is_shown_all_the_same() -> None:
    answer = TokenIds(token_ids=(1,), pieces=("\u2028",))
    assert shown(answer, with_pieces=True) == {"tokens": [{"id": 1, "piece": "?"}]}
