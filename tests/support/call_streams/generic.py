"""Streams of models whose format is unknown: JSON that begins the answer, or stands in a fence."""

from __future__ import annotations

from tests.support.call_streams.stream import Call, Stream, as_text

ADD = '{"name": "add", "arguments": {"a": 1}}'
ADD_CALL = Call("add", '{"a": 1}')
PING = '{"name": "ping", "arguments": {}}'
PING_CALL = Call("ping", "{}")

STREAMS = [
    Stream("one call", ADD, (ADD_CALL,)),
    Stream("white space around", f"\n{ADD}\n", (ADD_CALL,)),
    Stream("a list", f"[{ADD}, {PING}]", (ADD_CALL, PING_CALL)),
    Stream("a list over lines", f"[\n  {ADD},\n  {PING}\n]\n", (ADD_CALL, PING_CALL)),
    Stream("two lines", f"{ADD}\n{PING}", (ADD_CALL, PING_CALL)),
    Stream("in a fence", f"```json\n{ADD}\n```", (ADD_CALL,)),
    Stream("a list in a fence", f"```json\n[{ADD}, {PING}]\n```", (ADD_CALL, PING_CALL)),
    Stream("text before a fence", f"I add:\n```json\n{ADD}\n```\n", ("I add:", ADD_CALL)),
    Stream("text behind a fence", f"```json\n{ADD}\n```\nDone.", (ADD_CALL, "Done.")),
    Stream(
        "two fences",
        f"```json\n{ADD}\n```\nand\n```json\n{PING}\n```",
        (ADD_CALL, "and", PING_CALL),
    ),
    Stream("a fence that is not closed", f"```json\n{ADD}", (ADD_CALL,)),
    Stream("text behind", f"{ADD} is what I call.", (ADD_CALL, "is what I call.")),
    Stream("parameters instead", '{"name": "add", "parameters": {"a": 1}}', (ADD_CALL,)),
    Stream("the arguments first", '{"arguments": {"a": 1}, "name": "add"}', (ADD_CALL,)),
    Stream(
        "as templates show calls",
        '{"id": "1", "type": "function", "function": {"name": "add", "arguments": {"a": 1}}}',
        (ADD_CALL,),
    ),
    Stream(
        "as OpenAI shows calls",
        '{"type": "function", "function": {"name": "add", "arguments": "{\\"a\\": 1}"}}',
        (ADD_CALL,),
    ),
    Stream("no arguments", '{"name": "ping"}', (PING_CALL,)),
    Stream(
        "brackets and fences in strings",
        '[{"name": "add", "arguments": {"a": "]```}"}}]',
        (Call("add", '{"a": "]```}"}'),),
    ),
    Stream(
        "a second one in the list that is not on offer",
        f'[{PING}, {{"name": "sub"}}] ok',
        (PING_CALL, '{"name": "sub"}] ok'),
    ),
    Stream(
        "data in a fence, then a call",
        f'```json\n{{"a": 1}}\n```\n```json\n{PING}\n```',
        ('```json\n{"a": 1}\n```', PING_CALL),
    ),
    Stream("a list that never ends", f"[{PING}", (PING_CALL,)),
    as_text("not on offer", '{"name": "sub", "arguments": {}}'),
    as_text("data in a fence", 'So:\n```json\n{"answer": [1, 2]}\n```\n'),
    as_text("a list of data", "[1, 2, 3]"),
    as_text("a list of other objects", '[{"a": 1}, {"b": 2}]'),
    as_text("an empty list", "[]"),
    as_text("code in another fence", f"```python\nprint({ADD})\n```"),
    as_text("an object in the text", f"Call {ADD} now"),
    as_text("broken JSON", '{"name": "add", "arguments": {"a": }}'),
    as_text("arguments that are no object", '{"name": "add", "arguments": "a"}'),
    as_text("cut off in the arguments", '```json\n{"name": "add", "arguments": {"a": 1'),
    as_text("cut off in the name", '[{"name": "a'),
    as_text("cut off in the fence", "So: ```js"),
    as_text("a fence alone", "So:\n```json\n"),
    as_text("a bracket alone", "["),
    as_text("text in brackets", "[sic] {this}"),
    as_text("nothing but text", "Hello.\n"),
]
