"""Streams in the format of MiniMax-M2: a block with an `<invoke>` for each call."""

from __future__ import annotations

from tests.support.call_streams.stream import Call, Stream, as_text

BEGIN = "<minimax:tool_call>\n"
END = "</minimax:tool_call>"


def invoke(name: str, *parameters: tuple[str, str]) -> str:
    """As the template shows it."""
    lines = "".join(f'<parameter name="{key}">{value}</parameter>\n' for key, value in parameters)
    return f'<invoke name="{name}">\n{lines}</invoke>\n'


def block(*invokes: str) -> str:
    """Calls in their block."""
    return f"{BEGIN}{''.join(invokes)}{END}"


CITY = invoke("get_weather", ("city", "Paris"))
PARIS = block(CITY)
PARIS_CALL = Call("get_weather", '{"city": "Paris"}')
PING = block(invoke("ping"))
PING_CALL = Call("ping", "{}")

STREAMS = [
    Stream("one call", PARIS, (PARIS_CALL,)),
    Stream("text before", f"Let me look.\n{PARIS}", ("Let me look.", PARIS_CALL)),
    Stream("text behind", f"{PARIS}\n\nDone. ", (PARIS_CALL, "Done. ")),
    Stream("text around", f" Hm.  {PARIS} ok\n", (" Hm.", PARIS_CALL, "ok\n")),
    Stream("two calls in a block", block(CITY, invoke("ping")), (PARIS_CALL, PING_CALL)),
    Stream("two blocks", f"{PARIS}\n{PING}", (PARIS_CALL, PING_CALL)),
    Stream("text between blocks", f"{PING}\nand now\n{PARIS}", (PING_CALL, "and now", PARIS_CALL)),
    Stream("no parameters", PING, (PING_CALL,)),
    Stream("no lines at all", PARIS.replace("\n", ""), (PARIS_CALL,)),
    Stream("no block around", CITY, (PARIS_CALL,)),
    Stream("the block never ends", f"{BEGIN}{CITY}", (PARIS_CALL,)),
    Stream("the call never ends", PARIS.replace("</invoke>\n", "") + "x", (PARIS_CALL, "x")),
    Stream(
        "the next call begins too early",
        block(CITY.replace("</invoke>", ""), invoke("ping")),
        (PARIS_CALL, PING_CALL),
    ),
    Stream(
        "several parameters",
        block(invoke("get_weather", ("city", "Łódź"), ("days", "3"), ("unit", "C"))),
        (Call("get_weather", '{"city": "Łódź", "days": 3, "unit": "C"}'),),
    ),
    Stream(
        "a string that looks like a number",
        block(invoke("get_weather", ("city", "75001"))),
        (Call("get_weather", '{"city": "75001"}'),),
    ),
    Stream(
        "numbers, a list and a boolean",
        block(invoke("add", ("a", "1"), ("b", "[1, 2]"), ("exact", "true"))),
        (Call("add", '{"a": 1, "b": [1, 2], "exact": true}'),),
    ),
    Stream(
        "a string or nothing",
        block(invoke("add", ("note", "null"))),
        (Call("add", '{"note": null}'),),
    ),
    Stream(
        "what does not fit is a string",
        block(invoke("add", ("b", "1, 2"))),
        (Call("add", '{"b": "1, 2"}'),),
    ),
    Stream(
        "a parameter that nobody declared",
        block(invoke("ping", ("x", '{"y": 1}'), ("z", "one two"))),
        (Call("ping", '{"x": {"y": 1}, "z": "one two"}'),),
    ),
    Stream(
        "lines and marks in a string",
        block(invoke("write_file", ("content", '\n<invoke name="ping">\n</para "\n'))),
        (Call("write_file", '{"content": "\\n<invoke name=\\"ping\\">\\n</para \\"\\n"}'),),
    ),
    Stream(
        "an empty string",
        block(invoke("write_file", ("path", ""))),
        (Call("write_file", '{"path": ""}'),),
    ),
    Stream(
        "text among the parameters",
        PARIS.replace("<parameter", "with <b> <parameter"),
        (PARIS_CALL,),
    ),
    Stream(
        "cut off in a string", PARIS.partition("ris")[0], (Call("get_weather", '{"city": "Pa'),)
    ),
    Stream("cut off in a key", PARIS.partition("ty")[0], (Call("get_weather", "{"),)),
    Stream(
        "cut off behind a value",
        PARIS.partition("</inv")[0],
        (Call("get_weather", '{"city": "Paris"'),),
    ),
    Stream(
        "not on offer, then one that is",
        block(invoke("sub"), invoke("ping")),
        (block(invoke("sub")).removesuffix("\n" + END), PING_CALL),
    ),
    Stream("the opening twice", f"{BEGIN}{PING}", (BEGIN, PING_CALL)),
    as_text("not on offer", f"Hm. {block(invoke('sub', ('a', '1')))}"),
    as_text("JSON in the tags", f'{BEGIN}{{"name": "ping", "arguments": {{}}}}\n{END}'),
    as_text("cut off in the name", f'{BEGIN}<invoke name="get_we'),
    as_text("cut off in the opening", "Hm. <minimax:tool"),
    as_text("no name", f'{BEGIN}<invoke name="">\n</invoke>\n{END}'),
    as_text("marks that open nothing", f'{END} </invoke> <parameter name="a">'),
    as_text("nothing but text", "a < b, <invoke> is a tag.\n"),
]
