"""Streams in the format of GLM-4.5 and later: a name, then pairs of keys and values."""

from __future__ import annotations

from tests.support.call_streams.stream import Call, Stream, as_text


def call(name: str, *arguments: tuple[str, str]) -> str:
    """As the template shows it."""
    pairs = "".join(
        f"<arg_key>{key}</arg_key>\n<arg_value>{value}</arg_value>\n" for key, value in arguments
    )
    return f"<tool_call>{name}\n{pairs}</tool_call>"


PARIS = call("get_weather", ("city", "Paris"))
PARIS_CALL = Call("get_weather", '{"city": "Paris"}')
PING = call("ping")
PING_CALL = Call("ping", "{}")

STREAMS = [
    Stream("one call", PARIS, (PARIS_CALL,)),
    Stream("text before", f"Let me look.\n{PARIS}", ("Let me look.", PARIS_CALL)),
    Stream("text behind", f"{PARIS}\n\nDone. ", (PARIS_CALL, "Done. ")),
    Stream("text around", f" Hm.  {PARIS} ok\n", (" Hm.", PARIS_CALL, "ok\n")),
    Stream("two calls", f"{PARIS}\n{PING}", (PARIS_CALL, PING_CALL)),
    Stream("two calls without a line between", f"{PARIS}{PING}", (PARIS_CALL, PING_CALL)),
    Stream("text between", f"{PING}\nand now\n{PARIS}", (PING_CALL, "and now", PARIS_CALL)),
    Stream("no arguments", PING, (PING_CALL,)),
    Stream("no arguments and no line", "<tool_call>ping</tool_call>", (PING_CALL,)),
    Stream("no lines at all", PARIS.replace("\n", ""), (PARIS_CALL,)),
    Stream("white space behind the name", PING.replace("ping", "ping \t"), (PING_CALL,)),
    Stream("a line before the name", PING.replace("ping", "\nping"), (PING_CALL,)),
    Stream(
        "several arguments",
        call("get_weather", ("city", "Łódź"), ("days", "3"), ("unit", "C")),
        (Call("get_weather", '{"city": "Łódź", "days": 3, "unit": "C"}'),),
    ),
    Stream(
        "a string that looks like JSON",
        call("get_weather", ("city", "[1]")),
        (Call("get_weather", '{"city": "[1]"}'),),
    ),
    Stream(
        "numbers, a list and a boolean",
        call("add", ("a", "1"), ("b", "[1, 2]"), ("exact", "true")),
        (Call("add", '{"a": 1, "b": [1, 2], "exact": true}'),),
    ),
    Stream(
        "a string or nothing",
        call("add", ("note", "null")),
        (Call("add", '{"note": null}'),),
    ),
    Stream(
        "a choice of strings that is a letter",
        call("get_weather", ("unit", "F")),
        (Call("get_weather", '{"unit": "F"}'),),
    ),
    Stream(
        "what does not fit is a string", call("add", ("b", "1, 2")), (Call("add", '{"b": "1, 2"}'),)
    ),
    Stream(
        "an argument that nobody declared",
        call("ping", ("x", '{"y": 1}'), ("z", "one two")),
        (Call("ping", '{"x": {"y": 1}, "z": "one two"}'),),
    ),
    Stream(
        "lines and marks in a string",
        call("write_file", ("path", "a"), ("content", '\n<arg_value>\n"</arg_val\\"\n')),
        (
            Call(
                "write_file", '{"path": "a", "content": "\\n<arg_value>\\n\\"</arg_val\\\\\\"\\n"}'
            ),
        ),
    ),
    Stream(
        "an empty string", call("write_file", ("path", "")), (Call("write_file", '{"path": ""}'),)
    ),
    Stream("white space around JSON", call("add", ("a", " 1\n")), (Call("add", '{"a": 1}'),)),
    Stream(
        "white space around strings",
        call("get_weather", ("city", " Paris ")),
        (Call("get_weather", '{"city": " Paris "}'),),
    ),
    Stream(
        "text among the arguments",
        PARIS.replace("<arg_key>", "with <b> <arg_key>"),
        (PARIS_CALL,),
    ),
    Stream(
        "the next call begins too early",
        f"{PARIS.removesuffix('</tool_call>')}{PING}",
        (PARIS_CALL, PING_CALL),
    ),
    Stream(
        "cut off in a string", PARIS.partition("ris")[0], (Call("get_weather", '{"city": "Pa'),)
    ),
    Stream(
        "cut off in a number", call("add", ("a", "12")).partition("2")[0], (Call("add", '{"a": '),)
    ),
    Stream("cut off in a key", PARIS.partition("ty")[0], (Call("get_weather", "{"),)),
    Stream(
        "cut off behind a value",
        PARIS.partition("\n</t")[0],
        (Call("get_weather", '{"city": "Paris"'),),
    ),
    Stream("not on offer, then one that is", f"{call('sub')}{PING}", (call("sub"), PING_CALL)),
    Stream("the opening twice", f"<tool_call>{PING}", ("<tool_call>", PING_CALL)),
    as_text("not on offer", f"Hm. {call('sub', ('a', '1'))}"),
    as_text("JSON in the tags", '<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>'),
    as_text("cut off in the name", "<tool_call>get_we"),
    as_text("cut off in the opening", "Hm. <tool_ca"),
    as_text("no name", "<tool_call><arg_key>a</arg_key></tool_call>"),
    as_text("two words for a name", "<tool_call>get weather\n</tool_call>"),
    as_text("marks that open nothing", "</tool_call> <arg_key>a</arg_key>"),
    as_text("nothing but text", "a < b, <tool> is a tag.\n"),
]
