"""Streams in DeepSeek's formats: V3 and R1 with a type and a fence, V3.1 without."""

from __future__ import annotations

from tests.support.call_streams.stream import Call, Stream, as_text

BEGIN = "<｜tool▁calls▁begin｜>"
END = "<｜tool▁calls▁end｜>"
CALL = "<｜tool▁call▁begin｜>"
CALL_END = "<｜tool▁call▁end｜>"
SEP = "<｜tool▁sep｜>"

FENCED = f'{CALL}function{SEP}add\n```json\n{{"a": 1}}\n```{CALL_END}'
PLAIN = f'{CALL}add{SEP}{{"a": 1}}{CALL_END}'
ADD_CALL = Call("add", '{"a": 1}')
PING = f"{CALL}ping{SEP}{{}}{CALL_END}"
PING_CALL = Call("ping", "{}")

STREAMS = [
    Stream("V3", f"{BEGIN}{FENCED}{END}", (ADD_CALL,)),
    Stream("V3 twice", f"{BEGIN}{FENCED}\n{FENCED}{END}", (ADD_CALL, ADD_CALL)),
    Stream("V3.1", f"{BEGIN}{PLAIN}{END}", (ADD_CALL,)),
    Stream("V3.1 twice", f"{BEGIN}{PING}{PLAIN}{END}", (PING_CALL, ADD_CALL)),
    Stream("one of each", f"{BEGIN}{FENCED}{PING}{END}", (ADD_CALL, PING_CALL)),
    Stream("no outer marks", PLAIN, (ADD_CALL,)),
    Stream("no call mark", f"{BEGIN}add{SEP}{{}}{END}", (Call("add", "{}"),)),
    Stream("text before", f"I will add.\n\n{BEGIN}{FENCED}{END}", ("I will add.", ADD_CALL)),
    Stream("text behind", f"{BEGIN}{PLAIN}{END}\nDone.", (ADD_CALL, "Done.")),
    Stream(
        "text between",
        f"{BEGIN}{PING}{END} and {BEGIN}{PLAIN}{END}",
        (PING_CALL, "and", ADD_CALL),
    ),
    Stream(
        "white space behind marks",
        f"{BEGIN}\n{CALL}ping{SEP} {{}}\n{CALL_END}\n{END}\n",
        (PING_CALL,),
    ),
    Stream(
        "no fence behind the type",
        f"{BEGIN}{CALL}function{SEP}ping{SEP}{{}}{CALL_END}",
        (PING_CALL,),
    ),
    Stream(
        "a fence without a language",
        f"{BEGIN}{CALL}function{SEP}ping\n```\n{{}}\n```{CALL_END}{END}",
        (PING_CALL,),
    ),
    Stream(
        "a fence that is not closed",
        f"{BEGIN}{CALL}function{SEP}ping\n```json\n{{}}{CALL_END}{END}ok",
        (PING_CALL, "ok"),
    ),
    Stream("never ends", f"{BEGIN}{CALL}ping{SEP}{{}}", (PING_CALL,)),
    Stream("ends without the outer mark", f"{BEGIN}{PING}", (PING_CALL,)),
    Stream(
        "cut off in the arguments",
        f'{BEGIN}{CALL}get_weather{SEP}{{"city": "Pa',
        (Call("get_weather", '{"city": "Pa'),),
    ),
    Stream(
        "nested arguments",
        f'{BEGIN}{CALL}add{SEP}{{"a": {{"b": [1, {{}}]}}}}{CALL_END}{END}',
        (Call("add", '{"a": {"b": [1, {}]}}'),),
    ),
    Stream(
        "marks and fences in strings",
        f'{BEGIN}{CALL}add{SEP}{{"a": "```{CALL_END}}}"}}{CALL_END}{END}',
        (Call("add", f'{{"a": "```{CALL_END}}}"}}'),),
    ),
    Stream(
        "arguments that end too early",
        f'{BEGIN}{CALL}add{SEP}{{"a": {CALL_END}{END}ok',
        (Call("add", '{"a": '), "ok"),
    ),
    Stream(
        "other scripts",
        f'{BEGIN}{CALL}get_weather{SEP}{{"city": "北京｜"}}{CALL_END}{END}',
        (Call("get_weather", '{"city": "北京｜"}'),),
    ),
    Stream(
        "not on offer, then one that is",
        f"{BEGIN}{CALL}sub{SEP}{{}}{CALL_END}{PING}{END}",
        (f"{BEGIN}{CALL}sub{SEP}{{}}{CALL_END}", PING_CALL),
    ),
    Stream("the opening twice", f"{BEGIN}{BEGIN}{PING}{END}", (BEGIN, PING_CALL)),
    as_text("not on offer", f"Hm. {BEGIN}{CALL}sub{SEP}{{}}{CALL_END}{END}"),
    as_text("V3 not on offer", f"{BEGIN}{CALL}function{SEP}sub\n```json\n{{}}\n```{CALL_END}{END}"),
    as_text("no arguments", f"{BEGIN}{CALL}ping{SEP}{CALL_END}{END}"),
    as_text("arguments that are no object", f"{BEGIN}{CALL}add{SEP}[1]{CALL_END}{END}"),
    as_text("no marks inside", f"{BEGIN}call add with 1{END}"),
    as_text("cut off in the name", f"{BEGIN}{CALL}get_we"),
    as_text("cut off in the fence", f"{BEGIN}{CALL}function{SEP}add\n```js"),
    as_text("cut off in the opening", "Hm. <｜tool▁calls▁be"),
    as_text("the opening alone", f"Hm.\n{BEGIN}"),
    as_text("marks that open nothing", f"{END} {CALL_END} {SEP} <｜tool｜>"),
    as_text("nothing but text", "Hello ｜ <you>.\n"),
]
