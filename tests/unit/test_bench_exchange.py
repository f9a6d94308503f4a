"""How the benchmarks' client reads what servers send."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.benchmarks.peers.exchange import Answer, Refused, Unusable

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


def event(text: str = "", **more: Any) -> bytes:
    return b"data: " + json.dumps({"choices": [{"text": text}], **more}).encode() + b"\n\n"


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


def test_every_text_has_the_time_its_event_was_complete() -> None:
    first, second = chunk(event(" a")), chunk(event(" b"))
    pieces = [(1.0, CHUNKED), (2.0, first + second[:9]), (3.5, second[9:]), (4.0, b"0\r\n\r\n")]
    answer = Answer(0.5, pieces, 0)
    assert answer.texts == [(2.0, " a"), (3.5, " b")]
    assert answer.text == " a b"
    assert answer.first_text_s == 1.5
    assert answer.gaps() == [1.5]


def test_a_body_without_chunks_that_ends_with_the_connection_is_read() -> None:
    done = event() + b"data: [DONE]\n\n"
    answer = Answer(0.0, [(1.0, HEAD + b"\r\n" + event(" a")), (2.0, event(" b") + done)], 0)
    assert answer.texts == [(1.0, " a"), (2.0, " b")]


def test_chat_deltas_and_whole_messages_are_text_too() -> None:
    delta = b'data: {"choices":[{"delta":{"role":"assistant","content":" a"}}]}\n\n'
    assert Answer(0.0, [(1.0, HEAD + b"\r\n" + delta)], 0).text == " a"
    body = b'{"choices":[{"message":{"content":" b"}}]}'
    assert Answer(0.0, [(1.0, b"HTTP/1.1 200 OK\r\n\r\n" + body)], 0).text == " b"


def test_comments_and_empty_deltas_count_as_nothing() -> None:
    body = b": waiting\n\n" + event("") + event(" a")
    assert Answer(0.0, [(1.0, HEAD + b"\r\n" + body)], 0).texts == [(1.0, " a")]


def test_gaps_are_those_that_touch_the_time_in_question() -> None:
    pieces = [(float(at), event(" a")) for at in (1, 2, 5, 6)]
    answer = Answer(0.0, [(0.5, HEAD + b"\r\n"), *pieces], 0)
    assert answer.gaps() == [1.0, 3.0, 1.0]
    assert answer.gaps(2.5, 4.0) == [3.0]
    assert answer.gaps(until=1.5) == [1.0]


def test_an_answer_with_too_few_tokens_is_not_measured() -> None:
    usage = {"completion_tokens": 2}
    short = Answer(0.0, [(1.0, HEAD + b"\r\n" + event(" a") + event(" b", usage=usage))], 3)
    with pytest.raises(Unusable, match="asked for exactly 3 tokens and got 2"):
        assert short.tokens
    exact = Answer(0.0, [(1.0, HEAD + b"\r\n" + event(" a") + event(" b", usage=usage))], 2)
    assert exact.tokens == 2


def test_errors_before_and_in_a_stream_are_said_in_the_server_s_words() -> None:
    early = Answer(0.0, [(1.0, b"HTTP/1.1 400 Bad Request\r\n\r\n" + b'{"error":"why"}')], 0)
    with pytest.raises(Refused, match=r"HTTP 400.*why"):
        assert early.texts
    late = event(" a") + b'data: {"error": {"message": "agent lost"}}\n\n'
    with pytest.raises(Refused, match="agent lost"):
        assert Answer(0.0, [(1.0, HEAD + b"\r\n" + late)], 0).texts


def test_a_connection_that_closes_without_an_answer_is_said() -> None:
    with pytest.raises(Unusable, match="no HTTP answer"):
        assert Answer(0.0, [], 0).texts
