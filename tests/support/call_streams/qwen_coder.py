"""Streams in the format of Qwen3-Coder: a tag for the function, one for each parameter."""

from __future__ import annotations

from tests.support.call_streams.stream import Call, Stream, as_text


def call(name: str, *parameters: tuple[str, str]) -> str:
    """As the template shows it."""
    lines = "".join(f"<parameter={key}>\n{value}\n</parameter>\n" for key, value in parameters)
    return f"<tool_call>\n<function={name}>\n{lines}</function>\n</tool_call>"


PARIS = call("get_weather", ("city", "Paris"))
PARIS_CALL = Call("get_weather", '{"city": "Paris"}')
PING = call("ping")
PING_CALL = Call("ping", "{}")
CODE = "def f():\n    return \"<a>\" + '\\t'\n\n# < </par </parameter\n"
CODE_JSON = '"def f():\\n    return \\"<a>\\" + \'\\\\t\'\\n\\n# < </par </parameter\\n"'

STREAMS = [
    Stream("one call", PARIS, (PARIS_CALL,)),
    Stream("text before", f"Let me look.\n\n{PARIS}", ("Let me look.", PARIS_CALL)),
    Stream("text behind", f"{PARIS}\n\nDone. ", (PARIS_CALL, "Done. ")),
    Stream("text around", f" Hm.  {PARIS} ok\n", (" Hm.", PARIS_CALL, "ok\n")),
    Stream("two calls", f"{PARIS}\n{PING}", (PARIS_CALL, PING_CALL)),
    Stream("text between", f"{PING}\nand now\n{PARIS}", (PING_CALL, "and now", PARIS_CALL)),
    Stream("no parameters", PING, (PING_CALL,)),
    Stream(
        "several parameters",
        call("get_weather", ("city", "Łódź"), ("days", "3"), ("unit", "C")),
        (Call("get_weather", '{"city": "Łódź", "days": 3, "unit": "C"}'),),
    ),
    Stream(
        "a string that looks like a number",
        call("get_weather", ("city", "75001")),
        (Call("get_weather", '{"city": "75001"}'),),
    ),
    Stream(
        "a string in quotes stays in them",
        call("get_weather", ("city", '"Paris"')),
        (Call("get_weather", '{"city": "\\"Paris\\""}'),),
    ),
    Stream(
        "numbers, a list and a boolean",
        call("add", ("a", "-1.5e3"), ("b", '[1, [2], {"c": "d"}]'), ("exact", "true")),
        (Call("add", '{"a": -1.5e3, "b": [1, [2], {"c": "d"}], "exact": true}'),),
    ),
    Stream(
        "values as Python has them",
        call("add", ("exact", "False"), ("note", "None")),
        (Call("add", '{"exact": false, "note": null}'),),
    ),
    Stream(
        "a string or nothing",
        call("add", ("note", "3"), ("a", "3")),
        (Call("add", '{"note": "3", "a": 3}'),),
    ),
    Stream(
        "what does not fit is a string", call("add", ("a", "many")), (Call("add", '{"a": "many"}'),)
    ),
    Stream(
        "a parameter that nobody declared",
        call("ping", ("x", "[1]"), ("y", "one")),
        (Call("ping", '{"x": [1], "y": "one"}'),),
    ),
    Stream(
        "lines of code",
        call("write_file", ("path", "a.py"), ("content", CODE)),
        (Call("write_file", f'{{"path": "a.py", "content": {CODE_JSON}}}'),),
    ),
    Stream(
        "lines around a value",
        call("write_file", ("content", "\n\nx\n\n")),
        (Call("write_file", '{"content": "\\n\\nx\\n\\n"}'),),
    ),
    Stream(
        "a list over several lines",
        call("add", ("b", "[\n  1\n]")),
        (Call("add", '{"b": [\n  1\n]}'),),
    ),
    Stream(
        "an empty string",
        call("write_file", ("content", "")),
        (Call("write_file", '{"content": ""}'),),
    ),
    Stream(
        "all in one line",
        "<tool_call><function=get_weather><parameter=city>Paris</parameter></function></tool_call>",
        (PARIS_CALL,),
    ),
    Stream("no opening", PARIS.removeprefix("<tool_call>\n"), (PARIS_CALL,)),
    Stream("no closing", PARIS.removesuffix("\n</tool_call>"), (PARIS_CALL,)),
    Stream("the function never ends", PARIS.replace("</function>\n", "") + "x", (PARIS_CALL, "x")),
    Stream(
        "the next call begins too early",
        f"{PARIS.partition('</function>')[0]}{PING}",
        (PARIS_CALL, PING_CALL),
    ),
    Stream(
        "text among the parameters",
        PARIS.replace("<parameter", "So: <b> <parameter"),
        (PARIS_CALL,),
    ),
    Stream(
        "cut off in a string",
        PARIS.partition("ris")[0],
        (Call("get_weather", '{"city": "Pa'),),
    ),
    Stream(
        "cut off in a number", call("add", ("a", "12")).partition("2")[0], (Call("add", '{"a": '),)
    ),
    Stream(
        "cut off in a closing tag",
        PARIS.partition("meter>\n</f")[0],
        (Call("get_weather", '{"city": "Paris'),),
    ),
    Stream(
        "cut off behind a parameter",
        PARIS.partition("</fun")[0],
        (Call("get_weather", '{"city": "Paris"'),),
    ),
    Stream("not on offer, then one that is", f"{call('sub')}{PING}", (call("sub"), PING_CALL)),
    Stream("the opening twice", f"<tool_call>{PING}", ("<tool_call>", PING_CALL)),
    as_text("not on offer", f"Hm. {call('sub', ('a', '1'))}"),
    as_text("JSON in the tags", '<tool_call>\n{"name": "ping", "arguments": {}}\n</tool_call>'),
    as_text("cut off in the name", "<tool_call>\n<function=get_we"),
    as_text("cut off in the opening", "Hm. <tool_ca"),
    as_text("a function without a name", "<tool_call>\n<function=>\n</function>"),
    as_text("marks that open nothing", "</function> </tool_call> <parameter=a>1</parameter>"),
    as_text("nothing but text", "a < b, <function> is a tag.\n"),
]
