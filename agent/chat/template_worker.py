"""The process that renders chat templates, so that a hostile one can be killed.

Started as `python -m agent.chat.template_worker FD PARENT_PID`; serves one job at a time until its
socket closes (`agent.killable`).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

from agent.chat.system_turns import Messages, SystemTurns, folded, has_system_turns, probed
from agent.chat.template_frames import (
    MAX_OUTPUT_BYTES,
    MAX_REASON_CHARS,
    RenderJob,
    RenderReply,
    encode,
    job_decoder,
)
from agent.killable.job_loop import serve

TEMPLATES_KEPT = 8


class _RaisedByTemplate(jinja2.TemplateError):
    """The template called `raise_exception`."""


class _Generation(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}` marks training text; for us it is its content."""

    tags = {"generation"}  # noqa: RUF012 (jinja2 wants a set)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        """The body alone."""
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def _raise_exception(message: object) -> NoReturn:
    raise _RaisedByTemplate(str(message))


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """JSON as transformers writes it: no HTML escapes."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _environment() -> ImmutableSandboxedEnvironment:
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[jinja2.ext.loopcontrols, _Generation],
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    return environment


_ENVIRONMENT = _environment()


@lru_cache(maxsize=TEMPLATES_KEPT)
def _compiled(template: str) -> jinja2.Template:
    return _ENVIRONMENT.from_string(template)


@lru_cache(maxsize=TEMPLATES_KEPT)
def _system_turns(template: str) -> SystemTurns:
    """Where the template takes them: asked once, as a rule when the model is loaded."""

    def prompt_of(messages: Messages) -> str | None:
        variables = {
            "messages": messages,
            "add_generation_prompt": True,
            "documents": None,
            "tools": None,
            "bos_token": "",
            "eos_token": "",
            "strftime_now": _clock(0),
        }
        try:
            reply = _rendered(_compiled(template), variables)
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001 (whatever it raises is its refusal)
            return None
        return reply.text if reply.kind == "rendered" else None

    return probed(prompt_of)


def _clock(created: int) -> Callable[[str], str]:
    return lambda form: datetime.fromtimestamp(created, UTC).strftime(form)


def render(job: RenderJob) -> RenderReply:
    """Do one job; whatever the template does short of dying is a reply."""
    try:
        template = _compiled(job.template)
        if job.variables is None:
            _system_turns(job.template)
            return RenderReply(kind="rendered", text="")
        variables = {**job.variables, "strftime_now": _clock(job.created)}
        messages = variables.get("messages", [])
        if has_system_turns(messages):
            variables["messages"] = folded(messages, _system_turns(job.template))
        return _rendered(template, variables)
    except _RaisedByTemplate as error:
        return RenderReply(kind="raised", text=str(error)[:MAX_REASON_CHARS])
    except MemoryError:
        return RenderReply(kind="out_of_memory", text="")
    except Exception as error:  # noqa: BLE001 (a template may raise anything; it is its fault)
        return RenderReply(kind="broken", text=_reason(error))


def _rendered(template: jinja2.Template, variables: dict[str, Any]) -> RenderReply:
    """Render piece by piece, so that an endless output ends at the limit."""
    pieces: list[str] = []
    size = 0
    for piece in template.generate(variables):
        size += len(piece.encode(errors="replace"))
        if size > MAX_OUTPUT_BYTES:
            return RenderReply(kind="too_long", text="")
        pieces.append(piece)
    text = "".join(pieces)
    text.encode()
    return RenderReply(kind="rendered", text=text)


def _reason(error: Exception) -> str:
    line = f" in line {error.lineno}" if isinstance(error, jinja2.TemplateSyntaxError) else ""
    text = f"{type(error).__name__}{line}: {error}"[:MAX_REASON_CHARS]
    return text.encode(errors="replace").decode()


def _reply_to(job: bytes) -> bytes:
    return encode(render(job_decoder.decode(job)))


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]), _reply_to)
