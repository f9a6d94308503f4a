"""Streams in the format of Granite 3."""

from __future__ import annotations

from tests.support.call_streams.stream import Call, Stream, as_text

ADD = '{"name": "add", "arguments": {"a": 1}}'
ADD_CALL = Call("add", '{"a": 1}')
PING = '{"name": "ping", "arguments": {}}'
PING_CALL = Call("ping", "{}")

STREAMS = [
    Stream("a list of one", f"<|tool_call|>[{ADD}]", (ADD_CALL,)),
    Stream("the plain opening", f"<tool_call>[{ADD}]", (ADD_CALL,)),
    Stream("the plain opening, closed", f"<tool_call>[{ADD}]</tool_call>", (ADD_CALL,)),
    Stream("white space", f"<|tool_call|> [ {ADD} ] \n", (ADD_CALL,)),
    Stream("a list of two", f"<|tool_call|>[{ADD}, {PING}]", (ADD_CALL, PING_CALL)),
    Stream("over lines", f"<|tool_call|>\n[\n  {PING},\n  {ADD}\n]\n", (PING_CALL, ADD_CALL)),
    Stream("no list", f"<|tool_call|>{ADD}", (ADD_CALL,)),
    Stream("text before", f"I will add.\n<|tool_call|>[{ADD}]", ("I will add.", ADD_CALL)),
    Stream("text behind", f"<|tool_call|>[{ADD}]\n\nDone.", (ADD_CALL, "Done.")),
    Stream("text with a comma behind", f"<|tool_call|>[{ADD}], done", (ADD_CALL, ", done")),
    Stream("two openings", f"<|tool_call|>[{ADD}]<tool_call>[{PING}]", (ADD_CALL, PING_CALL)),
    Stream(
        "text between openings",
        f"<|tool_call|>[{ADD}] and <|tool_call|>[{PING}]",
        (ADD_CALL, "and", PING_CALL),
    ),
    Stream(
        "parameters instead of arguments",
        '<|tool_call|>[{"name": "add", "parameters": {"a": 1}}]',
        (ADD_CALL,),
    ),
    Stream("no arguments", '<|tool_call|>[{"name": "ping"}]', (PING_CALL,)),
    Stream(
        "the arguments first",
        '<|tool_call|>[{"arguments": {"a": 1}, "name": "add"}]',
        (ADD_CALL,),
    ),
    Stream(
        "arguments as a string",
        '<|tool_call|>[{"name": "add", "arguments": "{\\"a\\": 1}"}]',
        (ADD_CALL,),
    ),
    Stream(
        "brackets in strings",
        '<|tool_call|>[{"name": "add", "arguments": {"a": "]}", "b": "[{"}}]',
        (Call("add", '{"a": "]}", "b": "[{"}'),),
    ),
    Stream(
        "openings in strings",
        '<|tool_call|>[{"name": "add", "arguments": {"a": "<|tool_call|>["}}]',
        (Call("add", '{"a": "<|tool_call|>["}'),),
    ),
    Stream(
        "other scripts",
        '<|tool_call|>[{"name": "get_weather", "arguments": {"city": "Zürich 🏔"}}]',
        (Call("get_weather", '{"city": "Zürich 🏔"}'),),
    ),
    Stream(
        "more keys",
        '<|tool_call|>[{"name": "ping", "arguments": {}, "type": "function"}]',
        (PING_CALL,),
    ),
    Stream("never ends", f"<|tool_call|>[{ADD}, {PING}", (ADD_CALL, PING_CALL)),
    Stream(
        "cut off in the second",
        f'<|tool_call|>[{PING}, {{"name": "add", "arguments": {{"a": 1',
        (PING_CALL, Call("add", '{"a": 1')),
    ),
    Stream(
        "cut off in the second head",
        f'<|tool_call|>[{PING}, {{"name": "ad',
        (PING_CALL, '{"name": "ad'),
    ),
    Stream(
        "a second one that is not on offer",
        f'<|tool_call|>[{PING}, {{"name": "sub", "arguments": {{}}}}]',
        (PING_CALL, '{"name": "sub", "arguments": {}}]'),
    ),
    Stream(
        "not on offer, then one that is",
        f'<|tool_call|>[{{"name": "sub"}}]\n<|tool_call|>[{PING}]',
        ('<|tool_call|>[{"name": "sub"}]', PING_CALL),
    ),
    as_text("not on offer", 'Hm. <|tool_call|>[{"name": "sub", "arguments": {}}]'),
    as_text("a list of something else", '<|tool_call|>["add"]'),
    as_text("an empty list", "<|tool_call|>[]"),
    as_text("no JSON", "<|tool_call|>add(a=1)"),
    as_text("broken JSON", '<|tool_call|>[{"name": "add", "arguments": {a: 1}}]'),
    as_text("arguments that are no object", '<|tool_call|>[{"name": "add", "arguments": [1]}]'),
    as_text("cut off in the head", '<|tool_call|>[{"name": "add", "argum'),
    as_text("cut off in the opening", "Hm. <|tool_cal"),
    as_text("the opening alone", "Hm.\n\n<|tool_call|>"),
    as_text("markup that is no mark", "a <|b|> <tool> |> <|tool|>"),
    as_text("nothing but text", "\n Hello.\n"),
]
