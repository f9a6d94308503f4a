"""A generation's output as a response: events of a stream and one body tell the same."""

from __future__ import annotations

import json
from typing import Any

import pytest
from msgspec import structs
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from balancer.dispatch.sink import Outcome
from balancer.errors import LimitExceeded, UpstreamFailed
from balancer.http.responses.answer import (
    GatheredResponse,
    ResponseEvents,
    form_of,
    whole_response,
)
from balancer.http.responses.draft import Draft
from balancer.http.responses.schema import ResponseRequest
from balancer.http.responses.translate import repeated_fields
from balancer.http.shape import AnswerHead
from protocol.generation import (
    ContentDelta,
    ReasoningDelta,
    StepDelta,
    Timings,
    TokenLogprob,
    ToolCallDelta,
    TopLogprob,
    Usage,
)

HEAD = AnswerHead(id="resp_1", created=1, model="demo", request_id="req_1", prompt_tokens=7)
OUTCOME = Outcome(
    finish_reason="stop",
    stop_sequence=None,
    usage=Usage(prompt_tokens=7, completion_tokens=4, cached_tokens=2, reasoning_tokens=1),
    timings=Timings(),
    agent="one",
    attempts=1,
    queue_ms=0.0,
    ttft_ms=1.0,
    total_ms=2000.0,
)
LENGTH = structs.replace(OUTCOME, finish_reason="length")
_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)
_RESPONSE: TypeAdapter[Any] = TypeAdapter(Response)

TEXT: list[StepDelta] = ['Hel"lo\n', "", " wörld €"]
TYPED: list[StepDelta] = [
    (ReasoningDelta("h"),),
    (ReasoningDelta("m"), ContentDelta("So:")),
    (ToolCallDelta(0, "c1", "look", '{"a":'),),
    (ToolCallDelta(0, arguments="1}"), ToolCallDelta(1, "c2", "see")),
    "done",
]
NOTHING: list[StepDelta] = ["", (ReasoningDelta(""), ContentDelta(""))]
SUFFIX = "1"


def new_draft(**fields: Any) -> Draft:
    return Draft(suffix=SUFFIX, repeated=repeated_fields(ResponseRequest(input="hi", **fields)))


def parsed(stream: bytes) -> list[dict[str, Any]]:
    """The data of each event, strictly OpenAI's; its name is that of its type, its number the next
    one."""
    found: list[dict[str, Any]] = []
    for event in stream.decode().split("\n\n")[:-1]:
        name, data = event.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == "event: " + found[-1]["type"]
        assert found[-1]["sequence_number"] == len(found) - 1
        _EVENT.validate_python(found[-1], strict=True)
    return found


def events(
    deltas: list[StepDelta],
    outcome: Outcome = OUTCOME,
    logprobs: list[tuple[TokenLogprob, ...]] | None = None,
) -> list[dict[str, Any]]:
    chunks = ResponseEvents(HEAD, draft=new_draft())
    stream = chunks.opening()
    for step, delta in enumerate(deltas):
        stream += chunks.tokens(delta, logprobs[step] if logprobs else ())
    return parsed(stream + chunks.closing(outcome, outcome))


def gathered(
    deltas: list[StepDelta],
    outcome: Outcome = OUTCOME,
    logprobs: list[tuple[TokenLogprob, ...]] | None = None,
) -> Any:
    draft = new_draft()
    response = GatheredResponse(draft=draft)
    for step, delta in enumerate(deltas):
        response.take(delta, logprobs[step] if logprobs else ())
    body = json.loads(whole_response(HEAD, [], outcome, draft=draft))
    _RESPONSE.validate_python(body, strict=True)
    return body


def types(stream: list[dict[str, Any]]) -> list[str]:
    return [event["type"].removeprefix("response.") for event in stream]


def assembled(stream: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The output that a client makes of a stream's deltas alone."""
    items: list[dict[str, Any]] = []
    for event in stream:
        match event["type"].removeprefix("response."):
            case "output_item.added":
                assert event["output_index"] == len(items)
                items.append(event["item"])
            case "content_part.added":
                assert event["content_index"] == len(items[-1]["content"])
                items[-1]["content"].append(event["part"])
            case "output_text.delta":
                assert event["item_id"] == items[-1]["id"]
                items[-1]["content"][0]["text"] += event["delta"]
                items[-1]["content"][0]["logprobs"] += event["logprobs"]
            case "reasoning_text.delta":
                items[-1]["content"][0]["text"] += event["delta"]
            case "function_call_arguments.delta":
                items[-1]["arguments"] += event["delta"]
            case "output_item.done":
                items[-1]["status"] = event["item"]["status"]
                assert items[-1] == event["item"]
    return items


def test_a_stream_of_text_is_one_message_between_a_beginning_and_an_end() -> None:
    stream = events(TEXT)
    assert types(stream) == [
        "created",
        "in_progress",
        "output_item.added",
        "content_part.added",
        "output_text.delta",
        "output_text.delta",
        "output_text.done",
        "content_part.done",
        "output_item.done",
        "completed",
    ]
    begun = stream[0]["response"]
    assert (begun["id"], begun["status"], begun["output"]) == ("resp_1", "in_progress", [])
    assert [event["delta"] for event in stream[4:6]] == ['Hel"lo\n', " wörld €"]
    assert stream[6]["text"] == 'Hel"lo\n wörld €'


@pytest.mark.parametrize("deltas", [TEXT, TYPED, NOTHING, []], ids=["text", "typed", "no", "none"])
@pytest.mark.parametrize("outcome", [OUTCOME, LENGTH], ids=["complete", "incomplete"])
def test_a_stream_ends_with_the_same_response_in_one_piece(
    deltas: list[StepDelta], outcome: Outcome
) -> None:
    stream, body = events(deltas, outcome), gathered(deltas, outcome)
    assert stream[-1]["response"] == body
    assert assembled(stream) == body["output"]


def test_thoughts_text_and_calls_are_items_in_their_order() -> None:
    output = gathered(TYPED)["output"]
    assert [item["type"] for item in output] == [
        "reasoning",
        "message",
        "function_call",
        "function_call",
        "message",
    ]
    thought, text, call, empty_call, _ = output
    assert thought["summary"] == []
    assert thought["content"] == [{"type": "reasoning_text", "text": "hm"}]
    assert text["content"][0]["text"] == "So:"
    assert (call["call_id"], call["name"], call["arguments"]) == ("c1", "look", '{"a":1}')
    assert (empty_call["call_id"], empty_call["arguments"]) == ("c2", "")
    assert len({item["id"] for item in output}) == 5


def test_a_response_has_every_field_of_openais_and_ours() -> None:
    body = gathered(TEXT)
    assert {field.alias or name for name, field in Response.model_fields.items()} <= set(body)
    assert (body["object"], body["created_at"], body["completed_at"]) == ("response", 1, 3)
    assert body["usage"] == {
        "input_tokens": 7,
        "input_tokens_details": {"cached_tokens": 2, "cache_write_tokens": 0},
        "output_tokens": 4,
        "output_tokens_details": {"reasoning_tokens": 1},
        "total_tokens": 11,
    }
    assert body["performance"]["cached_prompt_tokens"] == 2
    assert body["_proxy_info"]["request_id"] == "req_1"


@pytest.mark.parametrize(
    ("finish_reason", "status", "details"),
    [
        ("stop", "completed", None),
        ("tool_calls", "completed", None),
        ("length", "incomplete", {"reason": "max_output_tokens"}),
        ("content_filter", "incomplete", {"reason": "content_filter"}),
        ("cancelled", "incomplete", None),
    ],
)
def test_why_it_stopped_is_its_status(finish_reason: Any, status: str, details: Any) -> None:
    outcome = structs.replace(OUTCOME, finish_reason=finish_reason)
    body, stream = gathered(TYPED, outcome), events(TYPED, outcome)
    assert (body["status"], body["incomplete_details"]) == (status, details)
    assert stream[-1]["type"] == f"response.{status}"
    assert [item["status"] for item in body["output"]] == ["completed"] * 4 + [status]


def test_a_call_without_an_id_gets_one_that_stays() -> None:
    deltas: list[StepDelta] = [(ToolCallDelta(0, name="look"),), (ToolCallDelta(0, arguments="{"),)]
    (call,) = gathered(deltas)["output"]
    assert call["call_id"]
    assert assembled(events(deltas)) == [call]


# --- log probabilities ---


def logprob(text: str) -> tuple[TokenLogprob, ...]:
    return (TokenLogprob(1, text, -0.5, (TopLogprob(1, text, -0.5), TopLogprob(2, "x", -2.0))),)


def tokens_of(parts: Any) -> list[str]:
    return [entry["token"] for entry in parts["logprobs"]]


@pytest.mark.parametrize(
    ("deltas", "tokens"),
    [
        (["a", "b"], ["0", "1"]),
        (["", "ab"], ["0", "1"]),
        (["a", "", "b"], ["0", "1", "2"]),
        (["a", ""], ["0", "1"]),
        ([(), "a"], ["0", "1"]),
        (["", (ReasoningDelta("hm"),), "a"], ["2"]),
        ([(ReasoningDelta("hm"), ContentDelta("a"))], ["0"]),
    ],
)
def test_log_probabilities_belong_to_the_message(
    deltas: list[StepDelta], tokens: list[str]
) -> None:
    given = [logprob(str(step)) for step in range(len(deltas))]
    body, stream = gathered(deltas, logprobs=given), events(deltas, logprobs=given)
    part = body["output"][-1]["content"][0]
    assert tokens_of(part) == tokens
    assert part["logprobs"][0]["top_logprobs"][1]["token"] == "x"
    assert assembled(stream) == body["output"]
    (done,) = [event for event in stream if event["type"] == "response.output_text.done"]
    assert tokens_of(done) == tokens


# --- what ends badly, and what is not stored ---


def test_a_failure_is_told_with_the_output_so_far() -> None:
    draft = new_draft()
    chunks = ResponseEvents(HEAD, draft=draft)
    stream = chunks.opening() + chunks.tokens("Hel", ())
    failure = form_of(draft).error_event(UpstreamFailed("it broke"), "req_1")
    *_, error, failed = parsed(stream + failure)
    assert (error["type"], error["code"], error["message"]) == (
        "error",
        "upstream_failed",
        "it broke",
    )
    assert failed["type"] == "response.failed"
    response = failed["response"]
    assert (response["status"], response["store"]) == ("failed", False)
    assert response["error"] == {"code": "server_error", "message": "it broke"}
    (item,) = response["output"]
    assert (item["status"], item["content"][0]["text"]) == ("incomplete", "Hel")


def test_a_failure_before_the_beginning_is_told_alone() -> None:
    (error,) = parsed(form_of(new_draft()).error_event(LimitExceeded("later"), "req_1"))
    assert (error["type"], error["code"]) == ("error", "token_limit_exceeded")


def test_what_could_not_be_stored_says_so() -> None:
    draft = new_draft()
    chunks = ResponseEvents(HEAD, draft=draft)
    stream = chunks.opening() + chunks.tokens("Hi", ())
    draft.finish(HEAD, OUTCOME)
    draft.finish(HEAD, OUTCOME, is_stored=False)
    first, *_, last = parsed(stream + chunks.closing(OUTCOME, OUTCOME))
    assert (first["response"]["store"], last["response"]["store"]) == (True, False)


def test_what_was_not_to_be_stored_is_not() -> None:
    draft = new_draft(store=False)
    assert json.loads(draft.finish(HEAD, OUTCOME))["store"] is False
