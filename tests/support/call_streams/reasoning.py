"""Streams of models that think before they answer, one list a format."""

from __future__ import annotations

from tests.support.call_streams.stream import Call, Stream, Thought, as_text

PING = '<tool_call>{"name": "ping", "arguments": {}}</tool_call>'
PING_CALL = Call("ping", "{}")

THINK_STREAMS = [
    Stream("a thought", "<think>Two and two.</think>Four.", (Thought("Two and two."), "Four.")),
    Stream("in lines", "\n<think>\nHm.\n</think>\n\nFour. ", (Thought("Hm."), "Four. ")),
    Stream("an empty one", "<think>\n\n</think>\n\nFour.", ("Four.",)),
    Stream("nothing behind", "<think>Hm.</think>\n", (Thought("Hm."),)),
    Stream("never closed", "<think> a </thin \n", (Thought("a </thin"),)),
    Stream("never closed, and empty", "<think> \n", ()),
    Stream("the closing twice", "<think>a</think>b</think>c", (Thought("a"), "b</think>c")),
    Stream("an opening within", "<think>a <think> b</think>c", (Thought("a <think> b"), "c")),
    Stream("a call in the thought", f"<think>{PING}</think>{PING}", (Thought(PING), PING_CALL)),
    Stream("a call behind", f"<think>a</think>\n\nb\n{PING}", (Thought("a"), "b", PING_CALL)),
    as_text("an opening later on", "Write <think> first.</think>"),
    as_text("cut off in the opening", " <thi"),
    as_text("no thought", " Four.\n"),
]
OPENED_STREAMS = [
    Stream("closed", "hm\n</think>\n\nFour.", (Thought("hm"), "Four.")),
    Stream("white space in front", "\n hm </think> Four.", (Thought("hm"), "Four.")),
    Stream("never closed", "hm </think", (Thought("hm </think"),)),
    Stream("closed at once", "</think>Four.", ("Four.",)),
]
"""Behind a prompt that ends with `<think>`."""
MISTRAL_STREAMS = [
    Stream("a thought", "[THINK]Hm.[/THINK]Four.", (Thought("Hm."), "Four.")),
    Stream("in lines", "[THINK]\nHm [1].\n[/THINK]\nFour.", (Thought("Hm [1]."), "Four.")),
    Stream("never closed", "[THINK]Hm [/THINK", (Thought("Hm [/THINK"),)),
    Stream(
        "a call behind",
        "[THINK]Hm.[/THINK][TOOL_CALLS]ping[ARGS]{}",
        (Thought("Hm."), PING_CALL),
    ),
    as_text("an opening later on", "No [THINK]Hm.[/THINK]"),
    as_text("other brackets", "[THANK] you"),
]
GRANITE_STREAMS = [
    Stream(
        "a thought",
        "Here is my thought process:\nHm.\n\nHere is my response:\nFour.",
        (Thought("Hm."), "Four."),
    ),
    Stream(
        "in short",
        "Here's my thought process: Hm. Here's my response: Four.",
        (Thought("Hm."), "Four."),
    ),
    Stream(
        "never answered", "Here is my thought process: Hm. Here is my", (Thought("Hm. Here is my"),)
    ),
    Stream(
        "a call behind",
        'Here is my thought process: Hm. Here is my response: <|tool_call|>[{"name": "ping"}]',
        (Thought("Hm."), PING_CALL),
    ),
    as_text("another beginning", "Here is my thought: Four."),
    as_text("later on", "Well. Here is my thought process: Hm."),
    as_text("cut off", "Here's my th"),
]
GRANITE_TAGS_STREAMS = [
    Stream(
        "both blocks",
        "<think>Hm.</think><response>Four.</response>",
        (Thought("Hm."), "Four."),
    ),
    Stream(
        "in lines",
        "<think>\nHm.\n</think>\n<response>\nFour. \n</response>\n",
        (Thought("Hm."), "Four."),
    ),
    Stream("no block around the answer", "<think>Hm.</think>\nFour.", (Thought("Hm."), "Four.")),
    Stream(
        "an answer never closed",
        "<think>Hm.</think><response>Four </resp",
        (Thought("Hm."), "Four </resp"),
    ),
    Stream("an answer not begun", "<think>Hm.</think><respo", (Thought("Hm."), "<respo")),
    Stream(
        "text behind the blocks",
        "<think>Hm.</think><response>Four.</response>\n <b>Five.</b>",
        (Thought("Hm."), "Four.<b>Five.</b>"),
    ),
    Stream(
        "a call in the answer",
        '<think>Hm.</think><response><|tool_call|>[{"name": "ping"}]</response>',
        (Thought("Hm."), PING_CALL),
    ),
    as_text("no thought", "<response>Four.</response>"),
]
