"""A generation's output, vectors and errors in Ollama's shapes, and the names of models."""

from __future__ import annotations

import asyncio
import json
import struct
from typing import Any

import msgspec
import pytest
from msgspec import structs

from balancer.dispatch.embedding_batch import Embedded
from balancer.dispatch.sink import Outcome
from balancer.errors import InvalidRequest, ModelNotFound, ModelUnavailable, QueueTimeout
from balancer.fleet.roster import Roster
from balancer.http.call_arguments import MAX_ARGUMENT_DEPTH
from balancer.http.ollama.answer import (
    MESSAGE,
    RESPONSE,
    AnswerLines,
    GatheredAnswer,
    Shape,
    loaded_answer,
    whole_answer,
)
from balancer.http.ollama.embedding_answer import embed_pieces, one_vector
from balancer.http.ollama.errors import LINES
from balancer.http.ollama.names import served_model, served_name, tagged
from balancer.http.shape import AnswerHead
from balancer.http.vectors import PIECE_FLOATS
from balancer.observability.metrics import Metrics
from balancer.settings import LiveSettings, Settings
from protocol.generation import (
    ContentDelta,
    FinishReason,
    ReasoningDelta,
    StepDelta,
    Timings,
    TokenLogprob,
    ToolCallDelta,
    TopLogprob,
    Usage,
)
from tests.support.memory_agent import MemoryAgent
from tests.support.virtual_time import in_virtual_time

HEAD = AnswerHead(id="1", created=1_700_000_000, model="demo", request_id="req_1")
COMMON = {"model": "demo:latest", "created_at": "2023-11-14T22:13:20Z"}
OUTCOME = Outcome(
    finish_reason="stop",
    stop_sequence=None,
    usage=Usage(prompt_tokens=7, completion_tokens=4, cached_tokens=2),
    timings=Timings(prefill_ms=1.5, decode_ms=3.0),
    agent="one",
    attempts=1,
    queue_ms=0.25,
    ttft_ms=2.0,
    total_ms=6.0,
)
DURATIONS = {
    "total_duration": 6_000_000,
    "load_duration": 250_000,
    "prompt_eval_count": 7,
    "prompt_eval_duration": 1_500_000,
    "eval_count": 4,
    "eval_duration": 3_000_000,
}
DONE = {"done": True, "done_reason": "stop", **DURATIONS}
TEXT: list[StepDelta] = ['Hel"lo\n', "", " wörld €"]
TYPED: list[StepDelta] = [
    (ReasoningDelta("hm"), ReasoningDelta(""), ContentDelta("So:")),
    (ToolCallDelta(0, "c1", "look", '{"a":'),),
    (ToolCallDelta(0, arguments=" [1,\n 2]}"), ToolCallDelta(1, "c2", "see")),
    "done",
    (ToolCallDelta(2, "c3", "look", '{"b": 1'),),
]
CALLS = [
    {"function": {"name": "look", "arguments": {"a": [1, 2]}}},
    {"function": {"name": "see", "arguments": {}}},
    {"function": {"name": "look", "arguments": {"partial_json": '{"b": 1'}}},
]


def lines(
    deltas: list[StepDelta], outcome: Outcome = OUTCOME, *, shape: Shape = MESSAGE
) -> list[dict[str, Any]]:
    """Each line of a stream, all of which have what they have in common."""
    chunks = AnswerLines(HEAD, shape=shape, model="demo:latest")
    stream = chunks.opening() + b"".join(chunks.tokens(delta, ()) for delta in deltas)
    stream += chunks.ended(outcome) + chunks.closing(outcome, outcome)
    assert stream.endswith(b"\n")
    found = [json.loads(line) for line in stream.splitlines()]
    return [{name: line[name] for name in line if name not in COMMON} for line in found]


def whole(
    deltas: list[StepDelta], outcome: Outcome = OUTCOME, *, shape: Shape = MESSAGE
) -> dict[str, Any]:
    answer = GatheredAnswer(shape=shape)
    for delta in deltas:
        answer.take(delta, ())
    choice = msgspec.Raw(msgspec.json.encode(answer.choice(0, outcome)))
    body: dict[str, Any] = json.loads(whole_answer(HEAD, [choice], outcome, model="demo:latest"))
    assert {name: body.pop(name) for name in COMMON} == COMMON
    return body


def message(text: str, **more: Any) -> dict[str, Any]:
    return {"message": {"role": "assistant", "content": text, **more}}


def assembled(stream: list[dict[str, Any]]) -> dict[str, Any]:
    """What a client makes of the lines of a chat."""
    *_, last = stream
    told: dict[str, Any] = {"role": "assistant", "content": ""}
    for line in stream:
        part = line["message"]
        told["content"] += part["content"]
        if "thinking" in part:
            told["thinking"] = told.get("thinking", "") + part["thinking"]
        if "tool_calls" in part:
            told["tool_calls"] = told.get("tool_calls", []) + part["tool_calls"]
    return {**last, "message": told}


def test_a_chat_s_stream_is_a_line_a_step_and_one_that_is_done() -> None:
    assert lines(TEXT) == [
        {**message('Hel"lo\n'), "done": False},
        {**message(" wörld €"), "done": False},
        {**message(""), **DONE},
    ]


def test_a_prompt_s_stream_has_responses_instead_of_messages() -> None:
    deltas: list[StepDelta] = [(ReasoningDelta("hm"),), "So"]
    assert lines(deltas, shape=RESPONSE) == [
        {"response": "", "thinking": "hm", "done": False},
        {"response": "So", "done": False},
        {"response": "", **DONE},
    ]
    assert whole(deltas, shape=RESPONSE) == {"response": "So", "thinking": "hm", **DONE}


def test_calls_come_whole_as_soon_as_something_follows_them() -> None:
    assert lines(TYPED) == [
        {**message("", thinking="hm"), "done": False},
        {**message("So:"), "done": False},
        {**message("", tool_calls=CALLS[:1]), "done": False},
        {**message("", tool_calls=CALLS[1:2]), "done": False},
        {**message("done"), "done": False},
        {**message("", tool_calls=CALLS[2:]), "done": False},
        {**message(""), **DONE},
    ]


def test_log_probabilities_stand_beside_the_text_that_came_with_them() -> None:
    top = TopLogprob(2, "X", -0.5)
    steps: list[StepDelta] = ["a", "", (ToolCallDelta(0, "c1", "see", "{}"),), "b"]
    entry = TokenLogprob(1, "x", -1.5, (top,))
    chunks = AnswerLines(HEAD, shape=MESSAGE, model="demo:latest")
    answer = GatheredAnswer(shape=RESPONSE)
    found = []
    for delta in steps:
        answer.take(delta, (entry,))
        found += [json.loads(line) for line in chunks.tokens(delta, (entry,)).splitlines()]
    bytes_of = {"x": [120], "X": [88]}
    shown = {
        "token": "x",
        "logprob": -1.5,
        "bytes": bytes_of["x"],
        "top_logprobs": [{"token": "X", "logprob": -0.5, "bytes": bytes_of["X"]}],
    }
    assert [line.get("logprobs") for line in found] == [[shown]] * 3 + [None, [shown]]
    assert [line["message"]["content"] for line in found] == ["a", "", "", "", "b"]
    assert "tool_calls" in found[3]["message"]
    body = json.loads(msgspec.json.encode(answer.choice(0, OUTCOME)))
    assert (body["response"], body["logprobs"], body["done"]) == ("ab", [shown] * 4, True)


@pytest.mark.parametrize("deltas", [TEXT, TYPED, []])
def test_a_stream_holds_what_the_same_answer_holds_in_one_piece(deltas: list[StepDelta]) -> None:
    assert assembled(lines(deltas)) == whole(deltas)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("", {}),
        ("[1]", {"partial_json": "[1]"}),
        ("{" * 99, {"partial_json": "{" * 99}),
        (
            '{"a":' + "[" * MAX_ARGUMENT_DEPTH + "]" * MAX_ARGUMENT_DEPTH + "}",
            {"partial_json": '{"a":' + "[" * MAX_ARGUMENT_DEPTH + "]" * MAX_ARGUMENT_DEPTH + "}"},
        ),
    ],
)
def test_arguments_are_an_object_whatever_the_model_wrote(text: str, shown: Any) -> None:
    told = whole([(ToolCallDelta(0, "c1", "look", text),)])
    assert told["message"]["tool_calls"][0]["function"]["arguments"] == shown


@pytest.mark.parametrize(
    ("reason", "shown"), [("stop", "stop"), ("length", "length"), ("tool_calls", "stop")]
)
def test_why_it_is_done_is_said_in_their_words(reason: FinishReason, shown: str) -> None:
    outcome = structs.replace(OUTCOME, finish_reason=reason)
    assert lines(TEXT, outcome)[-1]["done_reason"] == shown
    assert whole(TEXT, outcome)["done_reason"] == shown


@pytest.mark.parametrize(
    ("changes", "prompt_ns", "answer_ns"),
    [
        ({"attempts": 2}, 1_750_000, 4_000_000),
        ({"timings": Timings()}, 1_750_000, 4_000_000),
        ({"timings": Timings(), "ttft_ms": 0.0}, 5_750_000, 0),
        ({"timings": Timings(), "queue_ms": 9.0}, 0, 4_000_000),
    ],
)
def test_what_no_one_agent_measured_is_parted_at_the_first_token(
    changes: dict[str, Any], prompt_ns: int, answer_ns: int
) -> None:
    done = lines(TEXT, structs.replace(OUTCOME, **changes))[-1]
    assert (done["prompt_eval_duration"], done["eval_duration"]) == (prompt_ns, answer_ns)


def test_a_request_without_a_prompt_is_told_that_the_model_is_loaded() -> None:
    chat = json.loads(loaded_answer("demo:latest", HEAD.created, shape=MESSAGE))
    assert chat == {**COMMON, **message(""), "done": True, "done_reason": "load"}
    prompt = json.loads(loaded_answer("demo:latest", HEAD.created, shape=RESPONSE))
    assert prompt == {**COMMON, "response": "", "done": True, "done_reason": "load"}


def test_a_bad_end_is_a_line_with_its_text_and_our_own_object() -> None:
    assert LINES.comment == b""
    line = LINES.error_event(QueueTimeout("too long", retry_after_s=3), "req_1")
    assert line.endswith(b"\n")
    body = json.loads(line)
    assert body["error"] == "too long"
    assert body["detail"]["code"] == "queue_timeout"
    assert body["detail"]["request_id"] == "req_1"


# --- vectors ---


def embedded(*vectors: tuple[float, ...]) -> Embedded:
    return Embedded(
        model="demo",
        vectors=tuple(struct.pack(f"<{len(vector)}f", *vector) for vector in vectors),
        prompt_tokens=5,
        agents=("one",),
        attempts=1,
        queue_ms=0.5,
        total_ms=1.0,
    )


def test_vectors_have_ollama_s_shape() -> None:
    found = embedded((1.0, -0.5), (0.25, 2.0))
    assert json.loads(b"".join(embed_pieces(found, model='the "model"'))) == {
        "model": 'the "model"',
        "embeddings": [[1.0, -0.5], [0.25, 2.0]],
        "total_duration": 1_000_000,
        "load_duration": 500_000,
        "prompt_eval_count": 5,
    }
    assert json.loads(one_vector(embedded((1.0, -0.5)))) == {"embedding": [1.0, -0.5]}


def test_many_vectors_are_written_in_pieces() -> None:
    half = (0.5,) * (PIECE_FLOATS // 2)
    pieces = list(embed_pieces(embedded(*[half] * 7), model=None))
    assert len(pieces) == 4
    body = json.loads(b"".join(pieces))
    assert (body["model"], len(body["embeddings"])) == ("demo", 7)


# --- names ---


def roster_with(*names: str) -> Roster:
    now = asyncio.get_running_loop().time
    roster = Roster(settings=LiveSettings(Settings()), metrics=Metrics(), now=now)
    for name in names:
        MemoryAgent(roster, name.replace("/", "-"), model=name).register()
    return roster


@in_virtual_time
async def test_the_default_tag_is_added_or_left_out_where_the_model_is_served_so() -> None:
    roster = roster_with("demo", "other:latest", "exact:8b")
    names = {
        "demo": "demo",
        "demo:latest": "demo",
        "other": "other:latest",
        "other:latest": "other:latest",
        "exact:8b": "exact:8b",
        "nobody:latest": "nobody",
        "nobody": "nobody",
        "exact": "exact",
        None: "",
    }
    assert {given: served_name(given, roster) for given in names} == names
    assert [tagged("demo"), tagged("exact:8b")] == ["demo:latest", "exact:8b"]
    assert served_model("demo:latest", roster).name == "demo"


@in_virtual_time
async def test_a_model_that_is_not_there_is_missing_unknown_or_gone_for_now() -> None:
    roster = roster_with()
    agent = MemoryAgent(roster, model="gone").register()
    agent.die()
    for given, kind in (
        (None, InvalidRequest),
        ("nobody", ModelNotFound),
        ("gone:latest", ModelUnavailable),
    ):
        with pytest.raises(kind):
            served_model(given, roster)
