"""llama-server's requests as questions to an agent. Pure: raises `InvalidRequest`.

https://github.com/ggml-org/llama.cpp/blob/master/tools/server/README.md
"""

from __future__ import annotations

from balancer.http.faults import missing, refuse_value
from balancer.http.llama_server.schema import ApplyTemplateBody, DetokenizeBody, TokenizeBody
from balancer.http.openai.translate import chat_request
from protocol.to_agent import Detokenize, Render, Tokenize

MAX_TEXT_CHARS = 1024 * 1024
"""What an agent takes at a time."""
MAX_TEXT_CHARS_WITH_PIECES = 128 * 1024
"""An answer with pieces is twenty times as long as its text, and more."""


def tokenize_question(body: TokenizeBody) -> Tokenize:
    """Which ids is a text? By default special tokens in it are read as such and none is added."""
    if body.content is not None and body.text is not None:
        raise refuse_value("text", body.text, "absent where `content` is there")
    param, text = ("content", body.content) if body.text is None else ("text", body.text)
    if text is None:
        raise missing("content")
    with_pieces = bool(body.with_pieces)
    most = MAX_TEXT_CHARS_WITH_PIECES if with_pieces else MAX_TEXT_CHARS
    if len(text) > most:
        where = " with `with_pieces`" if with_pieces else ""
        raise refuse_value(param, text, f"at most {most} characters{where}")
    return Tokenize(
        model=body.model or "",
        text=text,
        add_special=bool(body.add_special),
        parse_special=body.parse_special is not False,
        with_pieces=with_pieces,
    )


def detokenize_question(body: DetokenizeBody) -> Detokenize:
    """Which text is it? Special tokens are written as they would be read."""
    return Detokenize(model=body.model or "", token_ids=tuple(body.tokens), show_special=True)


def render_question(body: ApplyTemplateBody, *, created: int) -> Render:
    """Which prompt would a chat completion with this body have? What concerns the answer alone is
    checked as there, and has no effect here."""
    chat = chat_request(body, drawn_seed=0)
    arguments = dict(chat.template_arguments)
    if body.add_generation_prompt is not None:
        arguments["add_generation_prompt"] = body.add_generation_prompt
    return Render(
        model=chat.model,
        messages=chat.messages or (),
        tools=chat.tools,
        enable_thinking=chat.enable_thinking,
        template_arguments=arguments,
        created=created,
    )
