"""Streams in the format of Llama 3: JSON that is the answer."""

from __future__ import annotations

from tests.support.call_streams.stream import Call, Stream, as_text

ADD = '{"name": "add", "parameters": {"a": 1}}'
ADD_CALL = Call("add", '{"a": 1}')
PING = '{"name": "ping", "parameters": {}}'
PING_CALL = Call("ping", "{}")

STREAMS = [
    Stream("one call", ADD, (ADD_CALL,)),
    Stream("white space around", f"\n {ADD}\n", (ADD_CALL,)),
    Stream("behind the tag", f"<|python_tag|>{ADD}", (ADD_CALL,)),
    Stream("two with a semicolon", f"{ADD}; {PING}", (ADD_CALL, PING_CALL)),
    Stream("two with a bare semicolon", f"{ADD};{PING}", (ADD_CALL, PING_CALL)),
    Stream("two lines", f"{ADD}\n{PING}\n", (ADD_CALL, PING_CALL)),
    Stream("two at once", f"{ADD}{PING}", (ADD_CALL, PING_CALL)),
    Stream(
        "three behind the tag",
        f"<|python_tag|>{ADD}; {PING};\n{ADD}",
        (ADD_CALL, PING_CALL, ADD_CALL),
    ),
    Stream(
        "a tag before each", f"<|python_tag|>{ADD}\n<|python_tag|>{PING}", (ADD_CALL, PING_CALL)
    ),
    Stream("text before the tag", f"Let me add. <|python_tag|>{ADD}", ("Let me add.", ADD_CALL)),
    Stream("text behind", f"{ADD}\nDone.", (ADD_CALL, "Done.")),
    Stream("a semicolon behind", f"{ADD};", (ADD_CALL, ";")),
    Stream("text behind a semicolon", f"{ADD}; done", (ADD_CALL, "; done")),
    Stream("arguments instead", '{"name": "add", "arguments": {"a": 1}}', (ADD_CALL,)),
    Stream(
        "a type in front",
        '{"type": "function", "name": "add", "parameters": {"a": 1}}',
        (ADD_CALL,),
    ),
    Stream("the parameters first", '{"parameters": {"a": 1}, "name": "add"}', (ADD_CALL,)),
    Stream(
        "under function",
        '{"type": "function", "function": {"name": "add", "parameters": {"a": 1}}}',
        (ADD_CALL,),
    ),
    Stream("no parameters", '{"name": "ping"}', (PING_CALL,)),
    Stream(
        "an empty object in lines",
        '{\n"name": "ping",\n"parameters": {\n}\n}',
        (Call("ping", "{\n}"),),
    ),
    Stream("parameters as a string", '{"name": "add", "parameters": "{\\"a\\": 1}"}', (ADD_CALL,)),
    Stream(
        "brackets in strings",
        '{"name": "add", "parameters": {"a": "}; {\\"", "b": ["{"]}}',
        (Call("add", '{"a": "}; {\\"", "b": ["{"]}'),),
    ),
    Stream(
        "other scripts",
        '{"name": "get_weather", "parameters": {"city": "Αθήνα 🏛"}}',
        (Call("get_weather", '{"city": "Αθήνα 🏛"}'),),
    ),
    Stream(
        "a second one that is not on offer",
        f'{PING}; {{"name": "sub", "parameters": {{}}}}',
        (PING_CALL, '; {"name": "sub", "parameters": {}}'),
    ),
    Stream("an object behind that is no call", f'{PING}\n{{"a": 1}}', (PING_CALL, '{"a": 1}')),
    as_text("not on offer", '{"name": "sub", "parameters": {"a": 1}}'),
    as_text("a person's name", ' {"name": "Ada", "born": 1815}'),
    as_text("another object", '{"answer": 42, "name": "add"}'),
    as_text("a tool's name and nothing to call it with", '{"name": "add", "parameters": 5}'),
    as_text("a name that is no text", '{"name": 5, "parameters": {}}'),
    as_text("broken JSON", '{"name": "add", "parameters": {"a": 1,}}'),
    as_text("broken JSON, then text", '{"name": "add", "parameters": {a}} or so'),
    as_text("cut off in the parameters", '{"name": "add", "parameters": {"a": 1'),
    as_text("cut off in the name", '\n{"name": "ad'),
    as_text("cut off in a key", '{ "par'),
    as_text("a brace alone", "{"),
    as_text("an empty object", "{}"),
    as_text("braces that are no JSON", "{name} is a field"),
    as_text("a list", f"[{ADD}]"),
    as_text("text before the object", f"Here: {ADD}"),
    as_text("code behind the tag", "<|python_tag|>print({1: 2})"),
    as_text("the tag alone", "Hm. <|python_tag|>"),
    as_text("the tag cut off", "Hm. <|python_t"),
    Stream(
        "no call, then one behind the tag",
        f'{{"a": 1}} <|python_tag|>{PING}',
        ('{"a": 1}', PING_CALL),
    ),
    Stream("the tag twice", f"<|python_tag|><|python_tag|>{PING}", ("<|python_tag|>", PING_CALL)),
    as_text("nothing but text", "Hello {you}; {\n"),
    as_text("nothing but white space", " \n\n "),
]
