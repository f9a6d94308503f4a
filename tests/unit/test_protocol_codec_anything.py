"""The agent link's wire format under generated messages and bytes: nothing but a protocol error."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from protocol import codec, to_agent, to_balancer
from protocol.chat import (
    Message,
    TextPart,
)
from protocol.errors import (
    ProtocolError,
)
from protocol.generation import (
    MAX_TEMPERATURE,
    ContentDelta,
    ReasoningDelta,
    Resume,
    ToolCallDelta,
    Usage,
)
from protocol.jsonrpc import ErrorObject, ErrorResponse, Notification, Request, Response
from tests.support.link_codecs import codec_for, encoded

GOLDEN = Path(__file__).parent / "golden" / "protocol"
_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


def _json_strategy() -> st.SearchStrategy[Any]:
    scalars = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | _text
    return st.recursive(
        scalars,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_text, inner, max_size=4),
        max_leaves=12,
    )


_calls = st.integers(0, 2**31) | st.text("abc-123", min_size=1, max_size=20)
_ids = st.lists(st.integers(0, 2**31 - 1), max_size=6).map(tuple)
_counts = st.integers(0, 2**31 - 1)
_usages = st.builds(Usage, prompt_tokens=_counts, completion_tokens=_counts)
_messages = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    content=st.none() | _text | st.lists(st.builds(TextPart, text=_text), max_size=3).map(tuple),
)
_deltas = _text | st.lists(
    st.one_of(
        st.builds(ContentDelta, _text),
        st.builds(ReasoningDelta, _text),
        st.builds(ToolCallDelta, st.integers(0, 9), _text, _text, _text),
    ),
    max_size=3,
).map(tuple)


@st.composite
def _tokens(draw: st.DrawFn) -> to_balancer.Tokens:
    count = draw(st.integers(0, 4))

    def parallel(values: st.SearchStrategy[Any]) -> tuple[Any, ...]:
        return tuple(draw(values) for _ in range(count))

    return to_balancer.Tokens(
        calls=parallel(_calls), token_ids=parallel(_ids), deltas=parallel(_deltas)
    )


_any_params: st.SearchStrategy[Struct] = st.one_of(
    st.builds(
        to_agent.GenerateTokens,
        messages=st.none() | st.lists(_messages, max_size=4).map(tuple),
        prompt=st.none() | _text | _ids,
        template_arguments=st.dictionaries(_text, _json_strategy(), max_size=3),
        temperature=st.floats(0, MAX_TEMPERATURE, allow_nan=False),
        seed=st.integers(0, 2**63 - 1),
        resume=st.none() | st.builds(Resume, token_ids=_ids, emitted_chars=st.integers(0, 99)),
    ),
    st.builds(to_agent.Cancel, call=_calls),
    st.builds(to_agent.Pause, call=_calls),
    st.builds(to_agent.Continue, call=_calls),
    st.builds(
        to_balancer.Finished,
        call=_calls,
        finish_reason=st.sampled_from(["stop", "length", "tool_calls", "cancelled"]),
        usage=_usages,
        stop_sequence=st.none() | _text,
    ),
    st.builds(
        to_balancer.Failed,
        call=_calls,
        error=st.builds(
            ErrorObject,
            code=st.integers(-32768, -32000),
            message=_text,
            data=st.dictionaries(_text, _json_strategy(), max_size=3),
        ),
    ),
    st.builds(to_balancer.Goodbye, reason=_text),
    _tokens(),
)


@given(_any_params)
def test_any_message_survives_encoding_and_decoding(params: Struct) -> None:
    method = next(
        name
        for name, type_ in {**to_agent.METHODS, **to_balancer.METHODS}.items()
        if type_ is type(params)
    )
    (message,) = codec_for(method).decode(encoded(params, method))
    assert isinstance(message, Request | Notification), message
    assert message.params == params


@given(st.binary(max_size=300))
def test_no_bytes_raise_anything_but_a_protocol_error(data: bytes) -> None:
    _decode_whatever_comes(data)


@given(_json_strategy(), st.sampled_from([*to_agent.METHODS, *to_balancer.METHODS, "x"]))
@settings(max_examples=300)
def test_no_json_raises_anything_but_a_protocol_error(params: Any, method: str) -> None:
    envelope = {"jsonrpc": "2.0", "method": method, "params": params, "id": 1}
    _decode_whatever_comes(json.dumps(envelope).encode())
    _decode_whatever_comes(json.dumps([envelope, params]).encode())


@given(st.sampled_from(sorted(GOLDEN.glob("*.json"))), st.data())
def test_no_damaged_message_raises_anything_but_a_protocol_error(
    path: Path, data: st.DataObject
) -> None:
    whole = bytearray(path.read_bytes())
    cut = data.draw(st.integers(0, len(whole)))
    where = data.draw(st.integers(0, len(whole) - 1))
    whole[where] = data.draw(st.integers(0, 255))
    _decode_whatever_comes(bytes(whole[:cut]))
    _decode_whatever_comes(bytes(whole))


def _decode_whatever_comes(data: bytes) -> None:
    for receiver in (codec.AGENT_RECEIVES, codec.BALANCER_RECEIVES):
        try:
            items = receiver.decode(data)
        except ProtocolError:
            continue
        for item in items:
            assert isinstance(
                item, Request | Notification | Response | ErrorResponse | ProtocolError
            )
