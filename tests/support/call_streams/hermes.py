"""Streams in the format of Hermes and Qwen."""

from __future__ import annotations

from tests.support.call_streams.stream import Call, Stream, as_text

PARIS = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Paris"}}\n</tool_call>'
PARIS_CALL = Call("get_weather", '{"city": "Paris"}')
PING = '<tool_call>{"name":"ping","arguments":{}}</tool_call>'
PING_CALL = Call("ping", "{}")

STREAMS = [
    Stream("one call", PARIS, (PARIS_CALL,)),
    Stream("text before", f"Let me look.\n{PARIS}", ("Let me look.", PARIS_CALL)),
    Stream("text after", f"{PARIS}\n\nDone. ", (PARIS_CALL, "Done. ")),
    Stream("text around", f" Hm.  {PARIS} ok\n", (" Hm.", PARIS_CALL, "ok\n")),
    Stream("two calls", f"{PARIS}\n{PING}", (PARIS_CALL, PING_CALL)),
    Stream("text between", f"{PING}\nand now\n{PARIS}", (PING_CALL, "and now", PARIS_CALL)),
    Stream("compact", PING, (PING_CALL,)),
    Stream("white space behind", f"{PING}\n \n", (PING_CALL,)),
    Stream("no arguments", '<tool_call>{"name": "ping"}</tool_call>', (PING_CALL,)),
    Stream(
        "parameters instead of arguments",
        '<tool_call>{"name": "add", "parameters": {"a": 1}}</tool_call>',
        (Call("add", '{"a": 1}'),),
    ),
    Stream(
        "arguments first",
        '<tool_call>{"arguments": {"a": 1}, "name": "add"}</tool_call>',
        (Call("add", '{"a": 1}'),),
    ),
    Stream(
        "arguments as a string",
        '<tool_call>{"name": "add", "arguments": "{\\"a\\": 1}"}</tool_call>',
        (Call("add", '{"a": 1}'),),
    ),
    Stream(
        "nested arguments",
        '<tool_call>{"name": "add", "arguments": {"a": {"b": [1, {"c": []}]}}}</tool_call>x',
        (Call("add", '{"a": {"b": [1, {"c": []}]}}'), "x"),
    ),
    Stream(
        "brackets in strings",
        '<tool_call>{"name": "add", "arguments": {"a": "}]{["}}</tool_call>',
        (Call("add", '{"a": "}]{["}'),),
    ),
    Stream(
        "the closing mark in a string",
        '<tool_call>{"name": "add", "arguments": {"a": "}</tool_call>{"}}</tool_call>',
        (Call("add", '{"a": "}</tool_call>{"}'),),
    ),
    Stream(
        "quotes and backslashes in strings",
        '<tool_call>{"name": "add", "arguments": {"a": "\\"\\\\", "b": "\\\\\\""}}</tool_call>',
        (Call("add", '{"a": "\\"\\\\", "b": "\\\\\\""}'),),
    ),
    Stream(
        "other scripts",
        'Ça: <tool_call>{"name": "get_weather", "arguments": {"city": "東京 🗼"}}</tool_call>',
        ("Ça:", Call("get_weather", '{"city": "東京 🗼"}')),
    ),
    Stream(
        "cut off in the arguments",
        '<tool_call>{"name": "add", "arguments": {"a": 1, "b',
        (Call("add", '{"a": 1, "b'),),
    ),
    as_text("cut off in the head", 'Well: <tool_call>\n{"name": "add", "argu'),
    as_text("cut off behind the opening", "Well:\n<tool_call>"),
    as_text("cut off in the opening", "Well:\n<tool_ca"),
    as_text("a tool that is not on offer", f"Hm.\n{PING.replace('ping', 'pong')} "),
    as_text("no JSON", "So:\n<tool_call>\nget_weather(Paris)\n</tool_call>"),
    as_text("arguments that are no object", PING.replace("{}", "[1]")),
    as_text("broken arguments", PING.replace("{}", "{a: 1}")),
    as_text("a name that is no text", PING.replace('"ping"', "5")),
    as_text(
        "Qwen3-Coder's XML",
        "<tool_call>\n<function=add>\n<parameter=a>\n1\n</parameter>\n</function>\n</tool_call>",
    ),
    as_text("arguments first, and no end", '<tool_call>{"arguments": {"a": 1</tool_call> ok'),
    as_text(
        "arguments first, with the closing mark in a string",
        '<tool_call>{"arguments": {"a": "</tool_call>"}, "name": "add"}</tool_call>',
    ),
    Stream(
        "the last brace is missing",
        '<tool_call>{"name": "add", "arguments": {"a": 1}\n</tool_call>\nDone.',
        (Call("add", '{"a": 1}'), "Done."),
    ),
    Stream(
        "arguments that end too early",
        '<tool_call>{"name": "add", "arguments": {"a": [1</tool_call> Done.',
        (Call("add", '{"a": [1'), "Done."),
    ),
    Stream(
        "the closing mark is missing",
        PARIS.removesuffix("</tool_call>") + PING,
        (PARIS_CALL, PING_CALL),
    ),
    Stream(
        "no call, then one",
        f"{PING.replace('ping', 'pong')}\n{PING}",
        (PING.replace("ping", "pong"), PING_CALL),
    ),
    Stream("the opening twice", f"<tool_call>{PING}", ("<tool_call>", PING_CALL)),
    Stream(
        "more keys behind the arguments",
        '<tool_call>{"name": "ping", "arguments": {}, "id": {"n": "}"}}</tool_call>.',
        (PING_CALL, "."),
    ),
    Stream(
        "white space wherever it may be",
        '<tool_call>\n { "name" : "add" ,\n "arguments" : { "a" : 1 } } \n</tool_call>',
        (Call("add", '{ "a" : 1 }'),),
    ),
    Stream(
        "a type in front",
        '<tool_call>{"type": "function", "name": "add", "arguments": {"a": 1}}</tool_call>',
        (Call("add", '{"a": 1}'),),
    ),
    Stream(
        "all of it under function",
        '<tool_call>{"type":"function","function":{"name":"ping","arguments":{}}}</tool_call>',
        (PING_CALL,),
    ),
    Stream("an escaped name", PING.replace("ping", "p\\u0069ng"), (PING_CALL,)),
    as_text("markup that is no mark", "a < b, <tool>, </tool_call>, <tool_callx>"),
    as_text("nothing but text", "  Hello,\n\n you.\n"),
    as_text("nothing", ""),
]
