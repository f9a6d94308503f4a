"""What commands work with: the engine's door, the renderer, the calls, the way out."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from msgspec import UNSET

from agent.cached_prefixes import CachedPrefixes
from agent.chat.template import TemplateRenderer
from agent.commands.calls import Call, Calls
from agent.commands.moves import Moves
from agent.commands.queries import Queries
from agent.commands.served import Served
from agent.engine.engine import EngineDoor
from agent.grammar.checker import GrammarChecker
from agent.media.decoder import MediaDecoder
from protocol.agent_status import AgentStatus
from protocol.codec import encode_error
from protocol.jsonrpc import CallId, ErrorObject
from protocol.refusals import CONSEQUENCES

NO_FACTS: Mapping[str, int | str] = MappingProxyType({})


@dataclass(slots=True, kw_only=True)
class Desk:
    """Built by the app. `send` queues one encoded message and never raises, `send_data` what a
    call's answer has beside its message; `spawn` runs a
    coroutine that must not raise either; `status` is a full status, told now."""

    engine: EngineDoor
    renderer: TemplateRenderer
    calls: Calls
    send: Callable[[bytes], None]
    spawn: Callable[[Coroutine[Any, Any, None]], object]
    status: Callable[[], AgentStatus]
    cached: CachedPrefixes = field(default_factory=CachedPrefixes)
    grammars: GrammarChecker = field(default_factory=GrammarChecker)
    media: MediaDecoder = field(default_factory=MediaDecoder)
    queries: Queries = field(default_factory=Queries)
    moves: Moves = field(default_factory=Moves)
    send_data: Callable[[int, bytes], None] = lambda call_id, data: None  # noqa: ARG005 (a default)
    served: Served | None = None
    draining: bool = False

    def refuse(
        self, call_id: CallId, code: int, message: str, *, facts: Mapping[str, int | str] = NO_FACTS
    ) -> None:
        """Answer a call with an error: it was not taken."""
        error = ErrorObject(code=int(code), message=message, data=dict(facts) if facts else UNSET)
        self.send(encode_error(call_id, error))

    def end_refused(
        self, call: Call, code: int, message: str, *, facts: Mapping[str, int | str] = NO_FACTS
    ) -> None:
        """Refuse a call that was already opened; `facts` are the error's `data`.

        One that found no room leaves none behind: told otherwise, the balancer would send it
        again at once.
        """
        consequence = CONSEQUENCES.get(code)
        self.calls.end(call, frees=consequence is None or consequence.blame != "capacity")
        self.refuse(call.id, code, message, facts=facts)
