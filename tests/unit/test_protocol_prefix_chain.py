"""Prefix chains: equal beginnings have equal hashes, and nothing else has."""

from __future__ import annotations

import json
from hashlib import blake2b
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from protocol import codec, to_agent
from protocol.chat import (
    AudioPart,
    FunctionCall,
    FunctionDefinition,
    ImagePart,
    Message,
    Part,
    TextPart,
    Tool,
    ToolCall,
)
from protocol.generation import GenerationRequest
from protocol.jsonrpc import Request
from protocol.prefix_chain import (
    BLOCK_BYTES,
    HASH_BYTES,
    MAX_BLOCKS,
    PrefixChain,
    prefix_chain,
    unpacked,
)

TOOL = Tool(function=FunctionDefinition(name="port", parameters={"type": "object"}))
CHAT = GenerationRequest(
    messages=(
        Message(role="system", content="Be brief."),
        Message(role="user", content="Which port? " + "x" * 600),
        Message(
            role="assistant",
            reasoning_content="hm",
            tool_calls=(
                ToolCall(id="c1", function=FunctionCall(name="port", arguments='{"a": [1, 2]}')),
            ),
        ),
        Message(role="tool", content="8080", tool_call_id="c1"),
    ),
    tools=(TOOL,),
    enable_thinking=True,
    template_arguments={"style": "short"},
)


def chat(*messages: Message, **more: Any) -> GenerationRequest:
    return GenerationRequest(messages=messages, **more)


def said(text: str) -> Message:
    return Message(role="user", content=text)


def blocks(request: GenerationRequest, scope: str = "") -> list[bytes]:
    return PrefixChain.of(request, cache_scope=scope).blocks


def test_an_image_counts_by_what_is_in_its_file_and_as_what() -> None:
    def shown(*parts: Part) -> bytes:
        return prefix_chain(chat(Message(role="user", content=parts)), cache_scope="")

    text, cat = TextPart(text="a"), ImagePart(data=b"cat")
    others: list[tuple[Part, ...]] = [
        (text, ImagePart(data=b"dog")),
        (text, AudioPart(data=b"cat")),
        (cat, text),
        (text,),
    ]
    assert shown(text, cat) == shown(text, ImagePart(data=b"cat"))
    assert len({shown(text, cat), *(shown(*parts) for parts in others)}) == 5


GOLDEN = [
    "0810bde2068c553b7c1ee1f0283dfef6",
    "ca96d7a2273ba7ea2996c543c2464f21",
    "d8c748fb6c2aca94750dde66711c41c8",
    "98ba357fa33233b991bb67b60b3014e3",
    "289812b5a2182139fba81c4bd3d32e21",
    "b96222ee35fe4d816f467985ce60aab5",
]
# --- the definition, by hand ---


def _by_hand(person: bytes, scope: str, *pieces: bytes) -> list[bytes]:
    last = blake2b(scope.encode(), digest_size=16, person=person).digest()
    hashes = []
    for piece in pieces:
        last = blake2b(last + piece, digest_size=16).digest()
        hashes.append(last)
    return hashes


def test_a_chat_is_hashed_as_the_definition_says() -> None:
    user = b"user\xff\xff\xff\xffWhich port? " + b"x" * 600 + b"\xfe"
    assert blocks(CHAT, "tenant") == _by_hand(
        b"paddler chat 1",
        "tenant",
        b'[true,{"style":"short"},[{"type":"function","function":'
        b'{"name":"port","parameters":{"type":"object"}}}]]\xfe',
        b"system\xff\xff\xff\xffBe brief.\xfe",
        user[:512],
        user[512:],
        b'assistant\xff\xff\xffhm\xff\xffc1\xffport\xff{"a":[1,2]}\xfe',
        b"tool\xff\xffc1\xff\xff8080\xfe",
    )


def test_adapters_are_part_of_the_root() -> None:
    last = blake2b(
        b's\xff[["poet",0.5],["tutor",1.0]]', digest_size=16, person=b"paddler text 1"
    ).digest()
    expected = blake2b(last + b"x" * 512, digest_size=16).digest()
    request = GenerationRequest(prompt="x" * 512, adapters=(("poet", 0.5), ("tutor", 1)))
    assert blocks(request, "s") == [expected]


ADAPTERS = st.dictionaries(
    st.sampled_from(["poet", "tutor", "clerk"]), st.sampled_from([-1.0, 0.0, 0.5, 1.0])
)


@given(one=ADAPTERS, other=ADAPTERS)
def test_only_requests_of_the_same_adapters_begin_alike(
    one: dict[str, float], other: dict[str, float]
) -> None:
    def begun(adapters: dict[str, float]) -> list[bytes]:
        return blocks(chat(said("the same"), adapters=tuple(adapters.items())))

    in_force = [{name: scale for name, scale in each.items() if scale} for each in (one, other)]
    assert (begun(one) == begun(other)) == (in_force[0] == in_force[1])
    assert set(begun(one)).isdisjoint(begun(other)) == (in_force[0] != in_force[1])


def test_a_prompt_is_hashed_in_whole_blocks_only() -> None:
    data = ("é" * 600).encode()
    assert blocks(GenerationRequest(prompt="é" * 600)) == _by_hand(
        b"paddler text 1", "", data[:512], data[512:1024]
    )
    assert blocks(GenerationRequest(prompt="short")) == []


def test_what_has_a_suffix_is_hashed_with_it_behind_the_prompt() -> None:
    data = b"x" * 700 + b"\xff" + b"y" * 400
    request = GenerationRequest(prompt="x" * 700, suffix="y" * 400)
    assert blocks(request) == _by_hand(b"paddler infill 1", "", data[:512], data[512:1024])


def test_token_ids_are_hashed_as_little_endian_numbers() -> None:
    ids = tuple(range(300))
    data = b"".join(number.to_bytes(4, "little") for number in ids)
    assert blocks(GenerationRequest(prompt=ids)) == _by_hand(
        b"paddler ids 1", "", data[:512], data[512:1024]
    )


def test_hashes_stay_what_they_are() -> None:
    """Another value here means that balancers and agents of two versions share nothing."""
    assert [block.hex() for block in blocks(CHAT, "tenant")] == GOLDEN


# --- properties ---

_texts = st.text(max_size=40) | st.text(min_size=1, max_size=30).map(lambda text: text * 60)
_valid = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.text(
    st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30
).map(lambda text: text * 60)
_calls = st.builds(
    ToolCall,
    id=_valid,
    function=st.builds(
        FunctionCall,
        name=_valid,
        arguments=_valid
        | st.dictionaries(_valid, st.integers(-(2**53), 2**53) | _valid, max_size=3).map(
            json.dumps
        ),
    ),
)
_messages = st.builds(
    Message,
    role=st.sampled_from(["system", "user", "assistant", "tool"]),
    content=st.none() | _valid | st.lists(st.builds(TextPart, text=_valid), max_size=3).map(tuple),
    name=st.none() | _valid,
    tool_call_id=st.none() | _valid,
    reasoning_content=st.none() | _valid,
    tool_calls=st.lists(_calls, max_size=2).map(tuple),
)
_conversations = st.lists(_messages, min_size=1, max_size=5).map(tuple)
_surroundings = st.fixed_dictionaries(
    {},
    optional={
        "tools": st.just((TOOL,)),
        "enable_thinking": st.booleans(),
        "template_arguments": st.dictionaries(_valid, _valid, max_size=2),
    },
)


@given(_conversations, _conversations, _surroundings)
def test_a_conversation_that_goes_on_goes_on_with_its_chain(
    first: tuple[Message, ...], more: tuple[Message, ...], around: dict[str, Any]
) -> None:
    earlier = blocks(chat(*first, **around))
    later = blocks(chat(*first, *more, **around))
    assert later[: len(earlier)] == earlier
    assert len(later) > len(earlier)


@given(_conversations, _messages, _surroundings)
def test_an_answer_that_is_sent_back_is_in_the_chain_already(
    messages: tuple[Message, ...], answer: Message, around: dict[str, Any]
) -> None:
    chain = PrefixChain.of(chat(*messages, **around), cache_scope="s")
    chain.append_answer(answer)
    following = PrefixChain.of(chat(*messages, answer, **around), cache_scope="s")
    assert chain.blocks == following.blocks
    assert chain.ends == following.ends
    assert chain.size_bytes == following.size_bytes


@given(_valid, _valid, _valid)
def test_a_prompt_with_its_answer_and_more_goes_on_with_its_chain(
    prompt: str, answer: str, more: str
) -> None:
    chain = PrefixChain.of(GenerationRequest(prompt=prompt), cache_scope="")
    chain.append_answer(Message(role="assistant", content=answer))
    exact = PrefixChain.of(GenerationRequest(prompt=prompt + answer), cache_scope="")
    assert (chain.blocks, chain.ends, chain.size_bytes) == (
        exact.blocks,
        exact.ends,
        exact.size_bytes,
    )
    following = blocks(GenerationRequest(prompt=prompt + answer + more))
    assert following[: len(chain.blocks)] == chain.blocks


@given(_conversations, _valid, _valid)
def test_scopes_share_nothing(messages: tuple[Message, ...], one: str, other: str) -> None:
    shared = set(blocks(chat(*messages), one)) & set(blocks(chat(*messages), other))
    assert bool(shared) == (one == other)


def test_kinds_of_text_share_nothing() -> None:
    text = "a" * 4096
    ids = tuple(int.from_bytes(b"aaaa", "little") for _ in range(1024))
    kinds = [
        GenerationRequest(prompt=text),
        GenerationRequest(prompt=ids),
        GenerationRequest(prompt=text, suffix=""),
        chat(said(text)),
    ]
    hashes = [block for request in kinds for block in blocks(request)]
    assert len(set(hashes)) == len(hashes)


@given(_conversations, _conversations)
def test_different_conversations_have_different_chains(
    one: tuple[Message, ...], other: tuple[Message, ...]
) -> None:
    alike = [_as_shown(message) for message in one] == [_as_shown(message) for message in other]
    assert (blocks(chat(*one)) == blocks(chat(*other))) == alike


def _as_shown(message: Message) -> tuple[Any, ...]:
    content = message.content
    if isinstance(content, tuple):
        content = "".join(part.text for part in content if isinstance(part, TextPart))
    return (
        message.role,
        content or "",
        message.name or "",
        message.tool_call_id or "",
        message.reasoning_content or "",
        [(call.id, call.function.name, _object(call)) for call in message.tool_calls],
    )


def _object(call: ToolCall) -> Any:
    try:
        value = json.loads(call.function.arguments)
    except ValueError:
        return call.function.arguments
    return list(value.items()) if isinstance(value, dict) else call.function.arguments


@given(st.integers(1, 40), st.integers(0, 39), st.characters(exclude_categories=["Cs"]))
def test_a_change_in_the_middle_leaves_the_blocks_before_it(
    count: int, changed: int, character: str
) -> None:
    messages = [said(f"message {number}") for number in range(count)]
    changed %= count
    other = [*messages]
    other[changed] = said(f"message {changed}!" + character)
    before, after = blocks(chat(*messages)), blocks(chat(*other))
    assert before[:changed] == after[:changed]
    assert not set(before[changed:]) & set(after[changed:])


def test_two_questions_about_one_document_share_its_blocks() -> None:
    document = "".join(f"line {number}\n" for number in range(500))
    one, other = blocks(chat(said(document + "Who?"))), blocks(chat(said(document + "Where?")))
    assert one[:-1] == other[:-1]
    assert one[-1] != other[-1]
    assert len(one) > len(document) // BLOCK_BYTES


def test_what_templates_show_alike_is_alike() -> None:
    parts = chat(Message(role="user", content=(TextPart(text="Hel"), TextPart(text="lo"))))
    assert blocks(parts) == blocks(chat(said("Hello")))
    assert blocks(chat(Message(role="assistant", content=""))) == blocks(
        chat(Message(role="assistant"))
    )


def test_arguments_are_alike_however_they_are_spaced_but_only_as_an_object() -> None:
    def called(arguments: str) -> list[bytes]:
        function = FunctionCall(name="f", arguments=arguments)
        return blocks(chat(Message(role="assistant", tool_calls=(ToolCall(function=function),))))

    assert called('{"a":"\u00e9"}') == called('{ "a" : "\\u00e9" }')
    assert called('{"a":1}') != called('{"a":2}')
    assert called("[1,2]") != called("[1, 2]")
    assert called('{"a":') != called('{"a": ')
    assert len(called("[" * 100_000)) > 100  # too deep to be read: as it stands


def test_tools_and_template_arguments_are_part_of_the_text() -> None:
    plain = blocks(chat(said("Hi")))
    for around in (
        {"tools": (TOOL,)},
        {"enable_thinking": False},
        {"template_arguments": {"a": 1}},
    ):
        assert not set(plain) & set(blocks(chat(said("Hi"), **around)))


def test_sampling_and_the_model_s_name_are_not() -> None:
    other = chat(said("Hi"), model="demo", temperature=0.0, max_tokens=1, seed=5, stop=("x",))
    assert blocks(other) == blocks(chat(said("Hi")))


# --- bounds ---


def test_a_chain_ends_at_4096_blocks_and_still_knows_how_long_the_text_is() -> None:
    long = chat(*[said(f"{number}") for number in range(MAX_BLOCKS + 10)])
    chain = PrefixChain.of(long, cache_scope="")
    assert len(chain.blocks) == len(chain.ends) == MAX_BLOCKS
    assert chain.size_bytes > chain.ends[-1]
    before = list(chain.blocks)
    chain.append_answer(said("more"))
    assert chain.blocks == before
    assert blocks(chat(said("x" * BLOCK_BYTES * (MAX_BLOCKS + 5)))) == blocks(
        chat(said("x" * BLOCK_BYTES * (MAX_BLOCKS + 9)))
    )


def test_an_answer_is_cut_where_the_chain_is_full() -> None:
    almost = chat(*[said("x") for _ in range(MAX_BLOCKS - 2)])
    chain = PrefixChain.of(almost, cache_scope="")
    chain.append_answer(Message(role="assistant", content="y" * 10 * BLOCK_BYTES))
    assert len(chain.blocks) == MAX_BLOCKS


@pytest.mark.parametrize(
    "request_", [{"prompt": tuple(range(200))}, {"prompt": "x" * 700, "suffix": "y"}]
)
def test_token_ids_and_what_has_a_suffix_get_no_answer_appended(request_: dict[str, Any]) -> None:
    chain = PrefixChain.of(GenerationRequest(**request_), cache_scope="")
    before = (list(chain.blocks), chain.size_bytes)
    chain.append_answer(Message(role="assistant", content="x" * 2000))
    assert (chain.blocks, chain.size_bytes) == before


def test_a_request_without_text_has_no_blocks() -> None:
    assert prefix_chain(GenerationRequest(), cache_scope="") == b""
    assert prefix_chain(GenerationRequest(prompt=""), cache_scope="") == b""
    assert prefix_chain(chat(), cache_scope="") == b""


@given(_texts, _texts)
def test_no_text_makes_it_raise(content: str, name: str) -> None:
    packed = prefix_chain(chat(Message(role="user", content=content, name=name)), cache_scope="")
    assert len(packed) % HASH_BYTES == 0
    prefix_chain(GenerationRequest(prompt=content), cache_scope="")


def test_text_that_is_no_unicode_has_no_chain() -> None:
    assert prefix_chain(chat(said("\ud800")), cache_scope="") == b""
    assert prefix_chain(GenerationRequest(prompt="\ud800"), cache_scope="") == b""
    assert prefix_chain(chat(said("a"), template_arguments={"a": "\ud800"}), cache_scope="") == b""


# --- both sides ---


@given(_conversations, _surroundings)
@settings(max_examples=50)
def test_an_agent_computes_what_the_balancer_computed(
    messages: tuple[Message, ...], around: dict[str, Any]
) -> None:
    request = chat(*messages, **around)
    packed = prefix_chain(request, cache_scope="s")
    sent = codec.encode_request(
        1,
        to_agent.generate_tokens_call(
            request,
            created=0,
            deadline_ms=None,
            trace_id="",
            cache_scope="s",
            prefix_chain=packed,
        ),
    )
    (message,) = codec.AGENT_RECEIVES.decode(sent)
    assert isinstance(message, Request)
    call = message.params
    assert isinstance(call, to_agent.GenerateTokens)
    assert call.prefix_chain == packed
    assert prefix_chain(call, cache_scope=call.cache_scope) == packed


def test_known_hashes_are_taken_as_they_are_and_missing_ones_computed() -> None:
    computed = PrefixChain.of(CHAT, cache_scope="")
    for known in (computed.packed, computed.packed[: 2 * HASH_BYTES + 5], b""):
        chain = PrefixChain.of(CHAT, cache_scope="", known=known)
        assert (chain.blocks, chain.ends) == (computed.blocks, computed.ends)
    strange = bytes(range(HASH_BYTES))
    assert PrefixChain.of(CHAT, cache_scope="", known=strange).blocks[0] == strange


def test_packing_can_be_undone() -> None:
    chain = PrefixChain.of(CHAT, cache_scope="")
    assert list(unpacked(chain.packed)) == chain.blocks
    assert list(unpacked(b"")) == []
