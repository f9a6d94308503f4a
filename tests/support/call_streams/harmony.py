"""Streams of gpt-oss, behind a prompt that ends with `<|start|>assistant`."""

from __future__ import annotations

from tests.support.call_streams.stream import Call, Stream, Thought, as_text

THINK = "<|channel|>analysis<|message|>Hm.<|end|>"
NEXT = "<|start|>assistant"
FINAL = "<|channel|>final<|message|>"
TO = "<|channel|>commentary to=functions."
JSON = " <|constrain|>json<|message|>"

ADD = f'{TO}add{JSON}{{"a": 1}}<|call|>'
ADD_CALL = Call("add", '{"a": 1}')
PING = f"{TO}ping{JSON}{{}}<|call|>"
PING_CALL = Call("ping", "{}")
HM = Thought("Hm.")

STREAMS = [
    Stream("an answer", f"{FINAL}Hello.", ("Hello.",)),
    Stream("an answer with its end", f"{FINAL}Hello.<|return|>", ("Hello.",)),
    Stream("a thought and an answer", f"{THINK}{NEXT}{FINAL}Hello.", (HM, "Hello.")),
    Stream("a thought and a call", f"{THINK}{NEXT}{ADD}", (HM, ADD_CALL)),
    Stream("a call", ADD, (ADD_CALL,)),
    Stream("a call whose end is not shown", ADD.removesuffix("<|call|>"), (ADD_CALL,)),
    Stream(
        "a word before a call",
        f"<|channel|>commentary<|message|>I look.<|end|>{NEXT}{PING}",
        ("I look.", PING_CALL),
    ),
    Stream(
        "thought, word, thought, call",
        f"{THINK}{NEXT}<|channel|>commentary<|message|>So:<|end|>{NEXT}{THINK}{NEXT}{PING}",
        (HM, "So:", Thought("\nHm."), PING_CALL),
    ),
    Stream("two thoughts", f"{THINK}{NEXT}{THINK}", (Thought("Hm.\nHm."),)),
    Stream("two answers", f"{FINAL}One.<|end|>{NEXT}{FINAL}Two.<|return|>", ("One.\nTwo.",)),
    Stream("two calls", f"{ADD}{NEXT}{PING}", (ADD_CALL, PING_CALL)),
    Stream("a call, then an answer", f"{PING}{NEXT}{FINAL}Done. ", (PING_CALL, "Done. ")),
    Stream("no constraint", f"{TO}ping<|message|>{{}}<|call|>", (PING_CALL,)),
    Stream("the type as a word", f'{TO}add json<|message|>{{"a": 1}}', (ADD_CALL,)),
    Stream(
        "white space in the header",
        f"{TO}ping  <|constrain|>json <|message|> {{}} <|call|>",
        (PING_CALL,),
    ),
    Stream(
        "on the analysis channel",
        '<|channel|>analysis to=functions.add code<|message|>{"a": 1}<|call|>',
        (ADD_CALL,),
    ),
    Stream(
        "the recipient in front",
        f" to=functions.ping<|channel|>commentary{JSON}{{}}<|call|>",
        (PING_CALL,),
    ),
    Stream(
        "the recipient with the role",
        f"{THINK}{NEXT} to=functions.ping<|channel|>commentary json<|message|>{{}}<|call|>",
        (HM, PING_CALL),
    ),
    Stream(
        "nested arguments",
        f'{TO}add{JSON}{{"a": [{{"b": "}}"}}]}}<|call|>',
        (Call("add", '{"a": [{"b": "}"}]}'),),
    ),
    Stream(
        "other scripts",
        f'{TO}get_weather{JSON}{{"city": "Łódź ☔"}}<|call|>',
        (Call("get_weather", '{"city": "Łódź ☔"}'),),
    ),
    Stream(
        "cut off in the arguments",
        f'{THINK}{NEXT}{TO}add{JSON}{{"a": "x',
        (HM, Call("add", '{"a": "x')),
    ),
    Stream(
        "arguments that end too early", f'{TO}add{JSON}{{"a": <|call|>', (Call("add", '{"a": '),)
    ),
    Stream(
        "a thought that is cut off", "<|channel|>analysis<|message|>Let me", (Thought("Let me"),)
    ),
    Stream("a thought without its end", f"{THINK[:-7]}{NEXT}{FINAL}Hi", (HM, "Hi")),
    Stream("a channel right behind a thought", f"{THINK[:-7]}{FINAL}Hi", (HM, "Hi")),
    Stream("white space between messages", f"{THINK}\n{NEXT}{FINAL}Hi", (HM, "Hi")),
    Stream("white space in messages", f"{FINAL} Hi \n", (" Hi \n",)),
    Stream("a header that is cut off", f"{THINK}{NEXT}<|channel|>fin", (HM,)),
    Stream("an empty thought", f"{THINK.replace('Hm.', '')}{NEXT}{FINAL}Hi", ("Hi",)),
    Stream("a channel nobody knows", "<|channel|>poem<|message|>Roses", ("Roses",)),
    Stream(
        "a message to nobody on offer, then an answer",
        f"{PING.replace('ping', 'pong')}{NEXT}{FINAL}Hi",
        (f"{PING.replace('ping', 'pong')}Hi",),
    ),
    Stream("a thought about a mark", THINK.replace("Hm", "a <| b <|c"), (Thought("a <| b <|c."),)),
    as_text("a tool that is not on offer", f"{TO}sub{JSON}{{}}<|call|>"),
    as_text(
        "a tool of OpenAI's own",
        '<|channel|>commentary to=browser.search code<|message|>{"q": 1}<|call|>',
    ),
    as_text("arguments that are no object", f"{TO}ping{JSON}5<|call|>"),
    as_text("no channels at all", "Hello, <|you|>, to=functions.\n"),
    as_text("a recipient that is none", "to=functions"),
    as_text("nothing", ""),
]

UNSPLIT_STREAMS = [
    Stream("a call", ADD, (ADD_CALL,)),
    Stream("a thought is text", f"{THINK}{NEXT}{ADD}", (THINK, ADD_CALL)),
    as_text("an answer with its header", f"{THINK}{NEXT}{FINAL}Hello."),
]
"""The same where reasoning is left alone."""
