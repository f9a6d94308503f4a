"""The outermost edge of the tasks that make calls ready for the engine: nothing is raised there."""

from __future__ import annotations

from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

import structlog
from msgspec import Struct

from agent.commands.desk import NO_FACTS
from agent.errors import (
    GrammarBusy,
    GrammarRefused,
    MediaBusy,
    MediaRefused,
    TemplateBusy,
    TemplateRefused,
    ToolsRefused,
)
from protocol.jsonrpc import CallId, RpcCode
from protocol.refusals import RefusalCode

log = structlog.get_logger()

Ready = TypeVar("Ready")


class Refusal(Struct, frozen=True):
    """Why a call is not done; `facts` are the error's `data`."""

    code: int
    message: str
    facts: Mapping[str, int | str] = NO_FACTS


async def prepared(
    work: Coroutine[Any, Any, Ready], *, call: CallId, or_else: str
) -> Ready | Refusal:
    """What the work gives, or why there is nothing. `or_else` is what is told of our own mistakes;
    the log has the rest."""
    try:
        return await work
    except TemplateRefused as refusal:
        return Refusal(RefusalCode.INVALID_TEMPLATE, str(refusal))
    except ToolsRefused as refusal:
        return Refusal(refusal.code, str(refusal), {"param": refusal.param})
    except GrammarRefused as refusal:
        return Refusal(RefusalCode.INVALID_GRAMMAR, str(refusal))
    except MediaRefused as refusal:
        return Refusal(RefusalCode.INVALID_MEDIA, str(refusal))
    except (TemplateBusy, GrammarBusy, MediaBusy) as busy:
        return Refusal(RefusalCode.NO_FREE_SLOT, str(busy))
    except Exception:
        log.exception("preparing failed", call=call)
        return Refusal(RpcCode.INTERNAL_ERROR, or_else)
