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


ANSWER_ALONE: dict[str, Any] = {
    "temperature": 0.5, "top_p": 0.5, "top_k": 4, "min_p": 0.1, "typical_p": 0.5,
    "presence_penalty": 1, "frequency_penalty": 1, "repeat_penalty": 2, "repeat_last_n": 8,
    "dry_multiplier": 1, "dry_base": 2, "dry_allowed_length": 3, "dry_penalty_last_n": 9,
    "dry_sequence_breakers": ["x"], "xtc_probability": 0.5, "xtc_threshold": 0.2, "mirostat": 2,
    "mirostat_tau": 4, "mirostat_eta": 0.3, "seed": 9, "stop": ["x"], "max_tokens": 3,
    "max_completion_tokens": 3, "n_predict": 3, "min_tokens": 2, "logit_bias": {"5": 1},
    "ignore_eos": True, "context_shift": True, "priority": -1, "logprobs": True,
    "top_logprobs": 2, "n": 2, "stream": True, "stream_options": {"include_usage": True},
    "timeout": 3, "parallel_tool_calls": False, "response_format": {"type": "json_object"},
    "user": "me", "metadata": {"a": "b"}, "safety_identifier": "s", "prompt_cache_key": "k",
    "prompt_cache_retention": "24h",
}  # fmt: skip


def test_what_concerns_the_answer_alone_changes_no_prompt() -> None:
    assert rendered(messages=HI, **ANSWER_ALONE) == rendered(messages=HI)
    for form in ({"grammar": "root ::= [0-9]+"}, {"json_schema": {"type": "object"}}):
        assert rendered(messages=HI, **form) == rendered(messages=HI)
    for name, wrong in {"temperature": 3, "grammar": 1, "top_logprobs": 99}.items():
        with pytest.raises(InvalidRequest) as refused:
            rendered(messages=HI, **{name: wrong})
        assert refused.value.param == name


@pytest.mark.parametrize("given", [{"store": True}, {"audio": {}}, {"functions": [{}]}])
def test_what_a_chat_completion_refuses_is_refused_for_its_prompt(given: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest) as refused:
        rendered(messages=HI, **given)
    assert refused.value.param == next(iter(given))


def test_the_template_is_told_whether_to_think_and_which_tools_there_are() -> None:
    tool = {"type": "function", "function": {"name": "port"}}
    assert rendered(messages=HI, reasoning_effort="high").enable_thinking is True
    assert rendered(messages=HI, tools=[tool], tool_choice="none").tools == ()


def test_what_is_no_part_of_a_prompt_is_not_counted() -> None:
    tool = {"name": "port", "input_schema": {"type": "object"}}
    thinking = {"type": "enabled"}
    plain = counted(tools=[tool], tool_choice={"type": "auto"}, thinking=thinking)
    full = counted(
        tools=[tool],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        thinking={**thinking, "budget_tokens": 2048, "block_binding": {}},
        output_config={"effort": "low"},
        cache_control={"type": "ephemeral"},
        speed="standard",
    )
    assert full == plain
    assert counted(tools=[tool], tool_choice={"type": "none"}).tools == ()


@pytest.mark.parametrize(
    ("given", "param"),
    [
        ({"mcp_servers": [{}]}, "mcp_servers"),
        ({"context_management": {"edits": [{"type": "other"}]}}, "context_management.edits[0]"),
        ({"compaction": {}}, "compaction"),
        ({"billing_policy": {"bill_to": "user_profile"}}, "billing_policy"),
        ({"speed": "fast"}, "speed"),
        ({"thinking": {"type": "enabled", "display": "omitted"}}, "thinking.display"),
    ],
)
def test_what_a_message_refuses_is_refused_to_be_counted(given: dict[str, Any], param: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        counted(**given)
    assert refused.value.param == param


def counted(**fields: Any) -> Render:
    body = decode_json(
        msgspec.json.encode({"model": "demo", "messages": HI, **fields}),
        msgspec.json.Decoder(CountTokensRequest),
        max_depth=64,
        expected=ANTHROPIC_EXPECTED,
    )
    return count_question(body, created=CREATED)


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
