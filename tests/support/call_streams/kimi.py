"""Streams in the format of Kimi-K2: sections of numbered calls."""

from __future__ import annotations

from tests.support.call_streams.stream import Call, Stream, as_text

BEGIN = "<|tool_calls_section_begin|>"
END = "<|tool_calls_section_end|>"


def call(name: str, arguments: str = "{}") -> str:
    """A call as the template shows it."""
    return f"<|tool_call_begin|>{name}<|tool_call_argument_begin|>{arguments}<|tool_call_end|>"


ADD = call("functions.add:0", '{"a": 1}')
ADD_CALL = Call("add", '{"a": 1}')
PING = call("functions.ping:1")
PING_CALL = Call("ping", "{}")

STREAMS = [
    Stream("one call", f"{BEGIN}{ADD}{END}", (ADD_CALL,)),
    Stream("two calls", f"{BEGIN}{ADD}{PING}{END}", (ADD_CALL, PING_CALL)),
    Stream("a line between", f"{BEGIN}\n{ADD}\n{PING}\n{END}", (ADD_CALL, PING_CALL)),
    Stream("no section", ADD, (ADD_CALL,)),
    Stream("no section around two", f"{ADD}{PING}", (ADD_CALL, PING_CALL)),
    Stream("text before", f"I will add.\n\n{BEGIN}{ADD}{END}", ("I will add.", ADD_CALL)),
    Stream("text behind", f"{BEGIN}{ADD}{END}\nDone.", (ADD_CALL, "Done.")),
    Stream(
        "text between sections",
        f"{BEGIN}{PING}{END} and {BEGIN}{ADD}{END}",
        (PING_CALL, "and", ADD_CALL),
    ),
    Stream("no number", f"{BEGIN}{call('functions.ping')}{END}", (PING_CALL,)),
    Stream("a long number", f"{BEGIN}{call('functions.ping:1024')}{END}", (PING_CALL,)),
    Stream("a colon alone", f"{BEGIN}{call('functions.ping:')}{END}", (PING_CALL,)),
    Stream("the bare name", f"{BEGIN}{call('ping:0')}{END}", (PING_CALL,)),
    Stream(
        "white space around marks",
        f"{BEGIN} {call(' functions.ping:0 ', ' {} ')} {END} ",
        (PING_CALL,),
    ),
    Stream("never ends", f"{BEGIN}{ADD.removesuffix('<|tool_call_end|>')}", (ADD_CALL,)),
    Stream("ends without the section's mark", f"{BEGIN}{PING}", (PING_CALL,)),
    Stream(
        "cut off in the arguments",
        BEGIN + call("functions.get_weather:0", '{"city": "Pa').partition("<|tool_call_end")[0],
        (Call("get_weather", '{"city": "Pa'),),
    ),
    Stream(
        "nested arguments",
        BEGIN + call("functions.add:0", '{"a": {"b": [1, {}]}}') + END,
        (Call("add", '{"a": {"b": [1, {}]}}'),),
    ),
    Stream(
        "marks in strings",
        BEGIN + call("functions.add:0", '{"a": "<|tool_call_end|>}"}') + END,
        (Call("add", '{"a": "<|tool_call_end|>}"}'),),
    ),
    Stream(
        "arguments that end too early",
        BEGIN + call("functions.add:0", '{"a": ') + END + "ok",
        (Call("add", '{"a": '), "ok"),
    ),
    Stream(
        "other scripts",
        BEGIN + call("functions.get_weather:0", '{"city": "北京｜"}') + END,
        (Call("get_weather", '{"city": "北京｜"}'),),
    ),
    Stream(
        "not on offer, then one that is",
        f"{BEGIN}{call('functions.sub:0')}{PING}{END}",
        (f"{BEGIN}{call('functions.sub:0')}", PING_CALL),
    ),
    Stream("the opening twice", f"{BEGIN}{BEGIN}{PING}{END}", (BEGIN, PING_CALL)),
    as_text("not on offer", f"Hm. {BEGIN}{call('functions.sub:0')}{END}"),
    as_text("another module's", f"{BEGIN}{call('browser.ping:0')}{END}"),
    as_text("no arguments", BEGIN + call("functions.ping:0", "") + END),
    as_text("arguments that are no object", BEGIN + call("functions.add:0", "[1]") + END),
    as_text("no marks inside", f"{BEGIN}call add with 1{END}"),
    as_text("no mark before the arguments", f"{BEGIN}<|tool_call_begin|>functions.ping:0{{}}{END}"),
    as_text("cut off in the name", f"{BEGIN}<|tool_call_begin|>functions.get_we"),
    as_text("cut off in the opening", "Hm. <|tool_calls_sec"),
    as_text("the opening alone", f"Hm.\n{BEGIN}"),
    as_text("marks that open nothing", f"{END} <|tool_call_end|> <|tool|>"),
    as_text("nothing but text", "Hello | <you>.\n"),
]
