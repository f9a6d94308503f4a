"""The agent link's wire format: golden messages, round trips, and what garbage does."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec import Struct

from protocol import codec, prefix_chain, to_agent, to_balancer
from protocol.agent_status import AgentStatus, GpuUse, Hardware, HostUse, Issue
from protocol.chat import (
    AudioPart,
    FunctionCall,
    FunctionDefinition,
    ImagePart,
    Message,
    NamedTool,
    TextPart,
    Tool,
    ToolCall,
)
from protocol.descriptions import ModelDescription
from protocol.embeddings import Embeddings, InputError, Scores, Text, TokenIds
from protocol.errors import (
    DuplicateId,
    FrameTooDeep,
    FrameTooLarge,
    InvalidParams,
    MalformedFrame,
    ProtocolError,
    UnknownMethod,
)
from protocol.generation import (
    ContentDelta,
    GenerationRequest,
    ReasoningDelta,
    Resume,
    Timings,
    TokenLogprob,
    ToolCallDelta,
    TopLogprob,
    Usage,
)
from protocol.grammar import Grammar
from protocol.jsonrpc import ErrorObject, ErrorResponse, Notification, Request, Response, RpcCode
from protocol.models import ServedModel
from protocol.rendering import Rendered
from protocol.transfer_messages import AbortTransfer, Credit
from tests.support.link_codecs import codec_for, encoded

GOLDEN = Path(__file__).parent / "golden" / "protocol"

STATUS = AgentStatus(
    seq=7,
    capacity_version=3,
    cache_seq=5,
    slots_total=4,
    running=(1, 2),
    paused=(2,),
    queries_total=16,
    queries_running=2,
    engine_steps=1234,
    has_work=True,
    kv_cells_used=96,
    kv_cells_total=8192,
    issues=(Issue(code="engine_died", message="The engine was killed (SIGKILL); restarting."),),
    load_progress=0.25,
    host=HostUse(
        cpu_percent=12.5,
        memory_used_bytes=2**33,
        gpus=(
            GpuUse(
                name="H100",
                busy_percent=97.0,
                memory_used_bytes=2**35,
                memory_total_bytes=2**36,
                temperature_c=61.0,
                power_w=350.5,
            ),
        ),
    ),
    clock_s=1_700_000_000.25,
)
MODEL = ServedModel(
    name="demo",
    aliases=("tiny",),
    context_tokens=2048,
    trained_context_tokens=2048,
    size_bytes=9_500_000,
    parameters=2_370_000,
    architecture="llama",
    quantization="Q8_0",
    modalities=("vision",),
    embedding_dimensions=192,
    adapters=("poet",),
)

TO_AGENT: dict[str, Struct] = {
    "generate_tokens": to_agent.GenerateTokens(
        model="demo",
        messages=(
            Message(role="system", content="Be brief."),
            Message(
                role="user",
                content=(
                    TextPart(text="Which port?"),
                    ImagePart(data=b"GIF89a"),
                    AudioPart(data=b"RIFF"),
                ),
            ),
            Message(
                role="assistant",
                tool_calls=(
                    ToolCall(id="call_1", function=FunctionCall(name="port", arguments="{}")),
                ),
            ),
            Message(role="tool", content="8080", tool_call_id="call_1"),
        ),
        tools=(Tool(function=FunctionDefinition(name="port", parameters={"type": "object"})),),
        tool_choice=NamedTool(name="port"),
        parallel_tool_calls=False,
        enable_thinking=True,
        max_tokens=64,
        temperature=0.7,
        seed=42,
        stop=("\n\n",),
        logit_bias=((5, -100.0),),
        dry_multiplier=0.8,
        dry_sequence_breakers=("\n", "###"),
        xtc_probability=0.5,
        mirostat=2,
        mirostat_eta=0.25,
        top_logprobs=2,
        adapters=(("poet", 0.5),),
        priority=5,
        context_shift=True,
        prompt_logprobs=True,
        grammar=Grammar(kind="regex", text="[0-9]+", trigger="<answer>"),
        created=1_700_000_000,
        deadline_ms=60_000,
        trace_id="req_1",
        cache_scope="tenant-1",
        prefix_chain=bytes(range(32)),
        resume=Resume(token_ids=(11, 12), emitted_chars=5, sampler_state=(9.75,)),
    ),
    "cancel": to_agent.Cancel(call=1),
    "pause": to_agent.Pause(call=1),
    "continue": to_agent.Continue(call="request-123"),
    "snapshot": to_agent.Snapshot(),
    "embed": to_agent.Embed(
        model="demo",
        inputs=("Which port?", (1, 2, 3)),
        pooling="mean",
        dimensions=2,
        truncate=True,
    ),
    "rerank": to_agent.Rerank(model="demo", query="Which port?", documents=("8080", "A cat.")),
    "tokenize": to_agent.Tokenize(model="demo", text="Hello", add_special=True, with_pieces=True),
    "detokenize": to_agent.Detokenize(model="demo", token_ids=(1, 2), show_special=True),
    "render": to_agent.Render(
        model="demo",
        messages=(Message(role="user", content="Which port?"),),
        tools=(Tool(function=FunctionDefinition(name="port", parameters={"type": "object"})),),
        enable_thinking=False,
        template_arguments={"add_generation_prompt": False},
        created=1_700_000_000,
        with_prompt=False,
        with_count=True,
    ),
    "describe_model": to_agent.DescribeModel(model="demo"),
    "export_sequence": to_agent.ExportSequence(call=7, release=True),
    "import_sequence": to_agent.ImportSequence(
        tokens=1012, size_bytes=1_560_000, kv_key="cd34", cache_scope="tenant-1"
    ),
    "credit": Credit(transfer=1, bytes_taken=131072),
    "abort_transfer": AbortTransfer(transfer=1),
}
TO_BALANCER: dict[str, Struct] = {
    "register": to_balancer.Register(
        name="gpu-1:demo:0",
        epoch="5f2a",
        protocol_min=1,
        protocol_max=1,
        version="0.1.0",
        llama_cpp_version="0.3.36",
        labels={"room": "b"},
        hardware=Hardware(hostname="gpu-1", cpu="EPYC", cores=2, memory_bytes=2**34),
        model=MODEL,
        resume_key="ab12",
        kv_key="cd34",
        status=STATUS,
    ),
    "heartbeat": to_balancer.Heartbeat(
        status=STATUS, model=MODEL, resume_key="ab12", kv_key="cd34"
    ),
    "tokens": to_balancer.Tokens(
        calls=(1, 2),
        token_ids=((100,), (200, 201)),
        deltas=(
            "Hel",
            (
                ReasoningDelta("hm"),
                ContentDelta("so"),
                ToolCallDelta(index=0, id="call_1", name="port", arguments="{"),
            ),
        ),
        logprobs=((TokenLogprob(100, "Hel", -0.1, (TopLogprob(101, "He", -2.5),)),), ()),
        prefill=(to_balancer.PrefillProgress(call=3, done=128, total=900),),
        sampler_states=((), (9.75,)),
    ),
    "finished": to_balancer.Finished(
        call=1,
        finish_reason="stop",
        usage=Usage(prompt_tokens=9, completion_tokens=5, cached_tokens=2, reasoning_tokens=1),
        timings=Timings(
            template_ms=0.5,
            prefill_ms=3.25,
            decode_ms=12.5,
            encode_ms=1.5,
            draft_steps=3,
            drafted_tokens=9,
            accepted_draft_tokens=6,
        ),
        stop_sequence="\n\n",
    ),
    "failed": to_balancer.Failed(
        call=1, error=ErrorObject(code=-32006, message="SIGKILL", data={"signal": "SIGKILL"})
    ),
    "cache_changed": to_balancer.CacheChanged(
        cache_seq=5, gained=bytes(range(32)), lost=bytes(16), starts_over=True
    ),
    "issue_raised": to_balancer.IssueRaised(issue=Issue(code="slow", message="Step took 9 s.")),
    "issue_cleared": to_balancer.IssueCleared(code="slow"),
    "goodbye": to_balancer.Goodbye(reason="SIGTERM"),
    "credit": Credit(transfer=1, bytes_taken=131072),
    "abort_transfer": AbortTransfer(transfer=1),
}
RESULTS: dict[str, Struct] = {
    "generate_tokens": to_agent.Committed(prompt_tokens=12, max_tokens=64, cached_tokens=8),
    "register": to_balancer.Welcome(
        protocol_version=1, heartbeat_interval_ms=5000, heartbeat_misses=3
    ),
    "snapshot": STATUS,
    "embed": Embeddings(
        pooling="mean",
        dimensions=2,
        rows=(1, 0),
        tokens=(4, 3),
        errors=(InputError(1, -32002, "the input has 3 tokens, at most 2 can be taken"),),
        vectors=bytes.fromhex("0000803f00000000"),
    ),
    "rerank": Scores(scores=(0.5, None), tokens=(5, 6), errors=(InputError(1, -32006, "no"),)),
    "tokenize": TokenIds(token_ids=(1, 7), pieces=("<s>", "\xc3")),
    "detokenize": Text(text="Hello"),
    "render": Rendered(prompt="<|user|>Which port?", prompt_tokens=12),
    "describe_model": ModelDescription(
        chat_template="{{ messages }}",
        template_chars=14,
        bos_token="<s>",
        eos_token="</s>",
        reasoning_format="think",
        tool_format="hermes",
    ),
    "export_sequence": to_agent.ExportedSequence(
        tokens=1012, size_bytes=1_560_000, kv_key="cd34", sampler_state=(9.5,)
    ),
    "import_sequence": to_agent.ImportedSequence(tokens=1012),
}


def _golden(name: str) -> bytes:
    return (GOLDEN / f"{name}.json").read_bytes()


def test_every_method_has_a_golden_example() -> None:
    assert set(TO_AGENT) == set(to_agent.METHODS)
    assert set(TO_BALANCER) == set(to_balancer.METHODS)
    assert set(RESULTS) == to_agent.REQUESTS | to_balancer.REQUESTS


@pytest.mark.parametrize("method", [*TO_AGENT, *TO_BALANCER])
def test_a_message_is_written_as_its_golden_file_says(method: str) -> None:
    params = {**TO_AGENT, **TO_BALANCER}[method]
    assert json.loads(encoded(params, method)) == json.loads(_golden(method))


@pytest.mark.parametrize("method", [*TO_AGENT, *TO_BALANCER])
def test_a_golden_file_is_read_as_its_message(method: str) -> None:
    params = {**TO_AGENT, **TO_BALANCER}[method]
    (message,) = codec_for(method).decode(_golden(method))
    assert isinstance(message, Request | Notification)
    assert message.method == method
    assert message.params == params


@pytest.mark.parametrize("method", sorted(RESULTS))
def test_a_result_is_written_and_read_as_its_golden_file_says(method: str) -> None:
    golden = _golden(f"{method}.result")
    assert json.loads(codec.encode_result(1, RESULTS[method])) == json.loads(golden)
    (message,) = codec.BALANCER_RECEIVES.decode(golden)
    assert isinstance(message, Response)
    assert codec.decode_result(message.result, type(RESULTS[method])) == RESULTS[method]


def test_the_documented_generate_tokens_call_decodes_as_it_stands() -> None:
    (message,) = codec.AGENT_RECEIVES.decode(_golden("generate_tokens.documented"))
    assert isinstance(message, Request)
    assert message.id == "request-123"
    assert isinstance(message.params, to_agent.GenerateTokens)
    assert message.params.prompt == "Hello, world!"
    assert (message.params.max_tokens, message.params.temperature) == (100, 0.7)


def test_an_error_answer_is_written_and_read_as_its_golden_file_says() -> None:
    error = ErrorObject(code=-32000, message="4 of 4 slots are busy", data={"slots": 4})
    golden = _golden("error")
    assert json.loads(codec.encode_error(1, error)) == json.loads(golden)
    assert codec.BALANCER_RECEIVES.decode(golden) == [ErrorResponse(id=1, error=error)]


def test_an_agent_of_a_later_version_may_say_more_than_is_understood() -> None:
    register = msgspec.json.decode((GOLDEN / "register.json").read_bytes())
    register["params"]["model"]["modalities"] = ["vision", "smell"]
    register["params"]["model"]["new"] = register["params"]["new"] = {"more": [1]}
    [message] = codec.BALANCER_RECEIVES.decode(msgspec.json.encode(register))
    assert isinstance(message, Request)


def test_a_call_is_made_from_a_canonical_request_without_losing_a_field() -> None:
    whole = TO_AGENT["generate_tokens"]
    assert isinstance(whole, to_agent.GenerateTokens)
    fields = {name: getattr(whole, name) for name in GenerationRequest.__struct_fields__}
    again = to_agent.generate_tokens_call(
        GenerationRequest(**fields),
        created=whole.created,
        deadline_ms=whole.deadline_ms,
        trace_id=whole.trace_id,
        cache_scope=whole.cache_scope,
        prefix_chain=whole.prefix_chain,
        resume=whole.resume,
    )
    assert again == whole


def test_an_error_without_a_readable_id_has_none() -> None:
    error = ErrorObject(code=-32700, message="not JSON")
    frame = codec.encode_error(None, error)
    assert codec.AGENT_RECEIVES.decode(frame) == [ErrorResponse(id=None, error=error)]
    without = b'{"jsonrpc":"2.0","error":{"code":1,"message":"m"}}'
    assert codec.AGENT_RECEIVES.decode(without) == [
        ErrorResponse(id=None, error=ErrorObject(code=1, message="m"))
    ]


def test_messages_of_a_batch_are_judged_one_by_one() -> None:
    good = codec.encode_notification(to_agent.Cancel(call=1))
    frame = b"[" + good + b',{"jsonrpc":"2.0","method":"nonsense","id":5},3,' + good + b"]"
    first, unknown, scalar, last = codec.AGENT_RECEIVES.decode(frame)
    assert isinstance(first, Notification)
    assert isinstance(last, Notification)
    assert isinstance(unknown, UnknownMethod)
    assert unknown.call_id == 5
    assert isinstance(scalar, MalformedFrame)


def test_a_second_call_with_the_same_id_in_a_batch_is_refused_and_the_first_kept() -> None:
    call = codec.encode_request(9, to_agent.GenerateTokens(prompt="a"))
    first, second = codec.AGENT_RECEIVES.decode(b"[" + call + b"," + call + b"]")
    assert isinstance(first, Request)
    assert isinstance(second, DuplicateId)
    assert second.call_id == 9


def test_calls_with_different_ids_in_a_batch_are_both_kept() -> None:
    messages = [codec.encode_request(n, to_agent.GenerateTokens(prompt="a")) for n in (1, 2)]
    (frame,) = codec.frames(messages)
    decoded = codec.AGENT_RECEIVES.decode(frame)
    assert [message.id for message in decoded if isinstance(message, Request)] == [1, 2]


@pytest.mark.parametrize(
    ("frame", "error", "says"),
    [
        (b"", MalformedFrame, "truncated"),
        (b"{", MalformedFrame, "truncated"),
        (b'"text"', MalformedFrame, "object"),
        (b"\xff\xfe", MalformedFrame, ""),
        (b"[]", MalformedFrame, "1..4096"),
        (b"[" + b"0," * 5000 + b"0]", MalformedFrame, "1..4096"),
        (b"[1,", MalformedFrame, "truncated"),
        ("\ud800", MalformedFrame, "Unicode"),
        (b"{}", MalformedFrame, "jsonrpc"),
        (b'{"jsonrpc":"1.0","method":"cancel"}', MalformedFrame, "jsonrpc"),
        (b'{"jsonrpc":"2.0"}', MalformedFrame, "`method`, `result` or `error`"),
        (b'{"jsonrpc":"2.0","result":1}', MalformedFrame, "`id`"),
        (b'{"jsonrpc":"2.0","result":1,"id":null}', MalformedFrame, "`id`"),
        (b'{"jsonrpc":"2.0","result":1,"id":[1]}', MalformedFrame, "id"),
        (b'{"jsonrpc":"2.0","result":1,"id":"' + b"x" * 200 + b'"}', MalformedFrame, "128"),
        (b'{"jsonrpc":"2.0","method":"nonsense"}', UnknownMethod, "nonsense"),
        (b'{"jsonrpc":"2.0","method":"cancel","params":{}}', InvalidParams, "call"),
        (b'{"jsonrpc":"2.0","method":"cancel"}', InvalidParams, "call"),
        (b'{"jsonrpc":"2.0","method":"cancel","params":[1]}', InvalidParams, "object"),
        (b'{"jsonrpc":"2.0","method":"cancel","params":{"call":1},"id":1}', MalformedFrame, "no"),
        (b'{"jsonrpc":"2.0","method":"snapshot","params":{}}', MalformedFrame, "needs"),
        (
            b'{"jsonrpc":"2.0","method":"generate_tokens","id":1,"params":{"temperature":-9}}',
            InvalidParams,
            "temperature",
        ),
        (b"[" * 600, FrameTooDeep, "576"),
        (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, FrameTooDeep, "576"),
        (b" " * (codec.MAX_FRAME_BYTES + 1), FrameTooLarge, "1048576"),
    ],
)
def test_garbage_becomes_a_typed_error_that_names_what_is_wrong(
    frame: bytes | str, error: type[ProtocolError], says: str
) -> None:
    problem = _only_problem(codec.AGENT_RECEIVES, frame)
    assert type(problem) is error
    assert says in str(problem)
    assert problem.to_error_object().code == int(error.code)


def _only_problem(receiver: codec.Codec, frame: bytes | str) -> ProtocolError:
    try:
        (item,) = receiver.decode(frame)
    except ProtocolError as error:
        return error
    assert isinstance(item, ProtocolError)
    return item


def test_a_request_as_deep_as_http_lets_in_reaches_the_agent_and_spares_its_neighbours() -> None:
    """The link allowed 64 levels, as HTTP did, but its envelope is around a body's."""
    nested: dict[str, Any] = {}
    for _ in range(510):
        nested = {"a": nested}
    deep = codec.encode_request(1, to_agent.GenerateTokens(prompt="hi", template_arguments=nested))
    (frame,) = codec.frames([deep, codec.encode_notification(to_agent.Cancel(call=2))])
    request, cancel = codec.AGENT_RECEIVES.decode(frame)
    assert isinstance(request, Request)
    assert isinstance(cancel, Notification)


def test_arrays_of_a_step_must_be_parallel() -> None:
    short = b'{"calls":[1],"token_ids":[],"deltas":["a"]}'
    uneven = b'{"calls":[1],"token_ids":[[1]],"deltas":["a"],"logprobs":[[],[]]}'
    states = b'{"calls":[1],"token_ids":[[1]],"deltas":["a"],"sampler_states":[[1.5],[]]}'
    for params in (short, uneven, states):
        frame = b'{"jsonrpc":"2.0","method":"tokens","params":' + params + b"}"
        problem = _only_problem(codec.BALANCER_RECEIVES, frame)
        assert isinstance(problem, InvalidParams)
        assert any(part in str(problem) for part in ("logprobs", "equal length", "sampler_states"))


def test_cached_blocks_must_be_whole_and_no_more_than_a_chain_has() -> None:
    for blocks, says in (("A" * 20, "16 bytes"), ("A" * 4 * 32768, "65536"), ("-", "base64")):
        params = b'{"cache_seq":1,"gained":"' + blocks.encode() + b'"}'
        frame = b'{"jsonrpc":"2.0","method":"cache_changed","params":' + params + b"}"
        problem = _only_problem(codec.BALANCER_RECEIVES, frame)
        assert isinstance(problem, InvalidParams)
        assert says in str(problem)


def test_a_change_of_the_cache_and_a_chain_of_full_size_fit_a_text_frame() -> None:
    full = bytes(prefix_chain.MAX_BLOCKS * prefix_chain.HASH_BYTES)
    changed = to_balancer.CacheChanged(cache_seq=1, gained=full, lost=full)
    assert len(codec.encode_notification(changed)) < codec.MAX_TEXT_FRAME_BYTES
    call = to_agent.GenerateTokens(prompt="a", prefix_chain=full)
    assert len(codec.encode_request(1, call)) < codec.MAX_TEXT_FRAME_BYTES


def test_a_result_of_the_wrong_shape_is_a_typed_error() -> None:
    with pytest.raises(InvalidParams, match="prompt_tokens"):
        codec.decode_result(b"{}", to_agent.Committed)


def test_messages_are_packed_in_order_into_frames_that_fit() -> None:
    cancels = [codec.encode_notification(to_agent.Cancel(call="x" * 100)) for _ in range(9000)]
    packed = list(codec.frames(cancels))
    assert all(len(frame) <= codec.MAX_TEXT_FRAME_BYTES + 2 for frame in packed)
    assert sum(len(codec.AGENT_RECEIVES.decode(frame)) for frame in packed) == 9000
    assert list(codec.frames([])) == []


def test_a_message_too_big_for_any_frame_is_refused_by_the_sender() -> None:
    with pytest.raises(FrameTooLarge, match="no text frame"):
        list(codec.frames([b"x" * (codec.MAX_TEXT_FRAME_BYTES + 1)]))


def test_a_message_that_came_in_pieces_may_be_bigger_than_a_frame() -> None:
    call = codec.encode_request(1, to_agent.GenerateTokens(prompt="a" * codec.MAX_FRAME_BYTES))
    with pytest.raises(FrameTooLarge):
        codec.AGENT_RECEIVES.decode(call)
    (message,) = codec.AGENT_RECEIVES.decode(call, max_bytes=2 * codec.MAX_FRAME_BYTES)
    assert isinstance(message, Request)


def test_codes_are_json_rpc_s_own() -> None:
    assert [code.value for code in RpcCode] == [-32700, -32600, -32601, -32602, -32603]
