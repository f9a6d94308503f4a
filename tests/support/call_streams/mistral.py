"""Streams in Mistral's formats, lists and names."""

from __future__ import annotations

from tests.support.call_streams.stream import Call, Stream, as_text

ADD = '{"name": "add", "arguments": {"a": 1}}'
ADD_CALL = Call("add", '{"a": 1}')
PING_CALL = Call("ping", "{}")

STREAMS = [
    Stream("a list of one", f"[TOOL_CALLS][{ADD}]", (ADD_CALL,)),
    Stream("white space in the list", f"[TOOL_CALLS] [ {ADD} ]\n", (ADD_CALL,)),
    Stream(
        "a list of two",
        f'[TOOL_CALLS][{ADD}, {{"name": "ping", "arguments": {{}}}}]',
        (ADD_CALL, PING_CALL),
    ),
    Stream(
        "a list of three over lines",
        f"[TOOL_CALLS] [\n{ADD},\n{ADD},\n{ADD}\n]",
        (ADD_CALL, ADD_CALL, ADD_CALL),
    ),
    Stream(
        "text around the list",
        f"I add. [TOOL_CALLS][{ADD}] Done, [1].",
        ("I add.", ADD_CALL, "Done, [1]."),
    ),
    Stream(
        "ids behind the arguments",
        '[TOOL_CALLS][{"name": "ping", "arguments": {}, "id": "abcdefgh1"}, '
        '{"name": "ping", "arguments": {}, "id": "abcdefgh2"}]',
        (PING_CALL, PING_CALL),
    ),
    Stream(
        "brackets in strings",
        '[TOOL_CALLS][{"name": "add", "arguments": {"a": "}]", "b": ["{"]}}]',
        (Call("add", '{"a": "}]", "b": ["{"]}'),),
    ),
    Stream(
        "arguments as a string",
        '[TOOL_CALLS][{"name": "add", "arguments": "{\\"a\\": 1}"}]',
        (ADD_CALL,),
    ),
    Stream(
        "the arguments first",
        '[TOOL_CALLS][{"arguments": {"a": 1}, "name": "add"}, {"name": "ping"}]',
        (ADD_CALL, PING_CALL),
    ),
    Stream("one object and no list", f"[TOOL_CALLS]{ADD}", (ADD_CALL,)),
    Stream("two lists", f"[TOOL_CALLS][{ADD}][TOOL_CALLS][{ADD}]", (ADD_CALL, ADD_CALL)),
    Stream("a list that never ends", f"[TOOL_CALLS][{ADD}", (ADD_CALL,)),
    Stream("a list cut off at its comma", f"[TOOL_CALLS][{ADD}, ", (ADD_CALL,)),
    Stream(
        "cut off in the arguments",
        '[TOOL_CALLS][{"name": "add", "arguments": {"a": "x',
        (Call("add", '{"a": "x'),),
    ),
    Stream(
        "a second one that is not on offer",
        f'[TOOL_CALLS][{ADD}, {{"name": "sub", "arguments": {{}}}}]',
        (ADD_CALL, '{"name": "sub", "arguments": {}}]'),
    ),
    as_text("one that is not on offer", '[TOOL_CALLS][{"name": "sub", "arguments": {"a": 1}}]'),
    as_text("an empty list", "Hm. [TOOL_CALLS][]"),
    as_text("a list of something else", "[TOOL_CALLS] [1, 2]"),
    as_text("broken JSON", '[TOOL_CALLS][{"name": "add", "arguments": {a: 1}}]'),
    as_text("cut off in the head", '[TOOL_CALLS][{"name": "ad'),
    as_text("cut off in the opening", "Well [TOOL_CALL"),
    as_text("the opening alone", "Well \n[TOOL_CALLS]"),
    as_text("text behind the opening", "[TOOL_CALLS] I will call add{} now"),
    Stream("a name", '[TOOL_CALLS]add[ARGS]{"a": 1}', (ADD_CALL,)),
    Stream("a name without a mark behind it", '[TOOL_CALLS]add{"a": 1}', (ADD_CALL,)),
    Stream("a name with an id", '[TOOL_CALLS]add[CALL_ID]a1B2c3D4e[ARGS]{"a": 1}', (ADD_CALL,)),
    Stream("white space around the name", '[TOOL_CALLS] add [ARGS] {"a": 1} ', (ADD_CALL,)),
    Stream(
        "two names",
        '[TOOL_CALLS]add[ARGS]{"a": 1}[TOOL_CALLS]ping[ARGS]{}',
        (ADD_CALL, PING_CALL),
    ),
    Stream(
        "text around names",
        'Now:\n[TOOL_CALLS]ping{}\nthen\n[TOOL_CALLS]add{"a": 1}, and that is all',
        ("Now:", PING_CALL, "then", ADD_CALL, ", and that is all"),
    ),
    Stream(
        "nested arguments of a name",
        '[TOOL_CALLS]add[ARGS]{"a": {"b": [{"c": "}"}]}}.',
        (Call("add", '{"a": {"b": [{"c": "}"}]}}'), "."),
    ),
    Stream(
        "a name cut off in the arguments",
        '[TOOL_CALLS]get_weather[ARGS]{"city": "Pa',
        (Call("get_weather", '{"city": "Pa'),),
    ),
    as_text("a name that is not on offer", 'So: [TOOL_CALLS]sub[ARGS]{"a": 1} ok'),
    as_text("a name cut off", "So: [TOOL_CALLS]get_wea"),
    as_text("a name without arguments", "[TOOL_CALLS]ping[ARGS]"),
    Stream(
        "no call, then one",
        "[TOOL_CALLS]pong{}[TOOL_CALLS]ping{}",
        ("[TOOL_CALLS]pong{}", PING_CALL),
    ),
    Stream(
        "the opening twice",
        "[TOOL_CALLS][TOOL_CALLS]ping{}",
        ("[TOOL_CALLS]", PING_CALL),
    ),
    as_text("brackets that are no mark", "a[0] = [TOOLS], [TOOL_CALLS, [ARGS]{}"),
    as_text("nothing but text", "Hello [you]!\n"),
]
