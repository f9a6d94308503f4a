"""The calls that this agent runs for the balancer, from their arrival to their end.

    rendering -> submitted -> committed -> ended
A call has the link's id, which ends with the link, and a number of its own for the engine. A call
whose link broke is *abandoned*: it is being cancelled, and holds its slot until the engine says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Literal

from agent.chat.output import OutputParser, plain_parser
from agent.media.decoder import DecodedMedia
from protocol.generation import StepDelta
from protocol.jsonrpc import CallId
from protocol.to_agent import GenerateTokens


@dataclass(slots=True, eq=False)
class Call:
    """One `generate_tokens` under way. Changed by the commands and the step relay only."""

    id: CallId
    number: int
    request: GenerateTokens
    state: Literal["rendering", "submitted", "committed"] = "rendering"
    parser: OutputParser = field(default_factory=plain_parser)
    media_places: tuple[int, ...] = ()
    """How many characters of the prompt stand before each image or sound."""
    template_ms: float = 0.0
    paused: bool = False
    released: bool = False
    """It is to go on elsewhere: when it is cancelled, what its parser holds back is not told."""
    answer: list[StepDelta] = field(default_factory=list)
    """What its client was given so far, on other agents too."""


class Calls:
    """The one owner of calls. `on_change(freed)` is told of every change of who holds a slot."""

    def __init__(self, on_change: Callable[[bool], None]) -> None:
        self._on_change = on_change
        self._numbers = count(1)
        self._by_id: dict[CallId, Call] = {}
        self._by_number: dict[int, Call] = {}
        self._abandoned: set[int] = set()
        self._media: dict[int, DecodedMedia] = {}
        self.standing: tuple[int, ...] = ()
        """By number: those that the engine lets stand still for others. Told with the next status;
        a wait that is over by then is no news."""

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[Call]:
        return iter(tuple(self._by_id.values()))

    def open(self, call_id: CallId, request: GenerateTokens) -> Call | None:
        """A new call; None if the id is in use."""
        if call_id in self._by_id:
            return None
        call = Call(id=call_id, number=next(self._numbers), request=request)
        self._by_id[call_id] = call
        self._by_number[call.number] = call
        return call

    def with_id(self, call_id: CallId) -> Call | None:
        """The call that the balancer means."""
        return self._by_id.get(call_id)

    def numbered(self, number: int) -> Call | None:
        """The call that the engine means; None for abandoned ones."""
        return self._by_number.get(number)

    def is_open(self, call: Call) -> bool:
        """Whether nobody ended the call meanwhile."""
        return self._by_number.get(call.number) is call

    def commit(self, call: Call) -> None:
        """The call has its slot."""
        call.state = "committed"
        self._on_change(False)

    def pause(self, call: Call, *, paused: bool) -> None:
        """Note that the call is paused, or is not any more."""
        call.paused = paused
        self._on_change(False)

    def end(self, call: Call, *, frees: bool = True) -> None:
        """Forget the call; the slot it may have held is free, unless there was none for it."""
        self._by_id.pop(call.id, None)
        self._by_number.pop(call.number, None)
        self._on_change(frees)

    def abandon(self, call: Call) -> None:
        """Forget the call while the engine still has it."""
        self._by_id.pop(call.id, None)
        self._by_number.pop(call.number, None)
        self._abandoned.add(call.number)
        self._on_change(False)

    def abandoned_ended(self, number: int) -> None:
        """The engine let go of a call that may have been an abandoned one."""
        if number in self._abandoned:
            self._abandoned.remove(number)
            self._on_change(True)

    def hold_media(self, call: Call, media: DecodedMedia) -> None:
        """Keep what the engine is about to be told to open."""
        self._media[call.number] = media

    def media_of(self, call: Call) -> DecodedMedia | None:
        """What is kept for a call."""
        return self._media.get(call.number)

    def answered(self, number: int) -> None:
        """The engine took a call, or refused it: it has opened what it needed."""
        media = self._media.pop(number, None)
        if media is not None:
            media.close()

    def engine_gone(self) -> None:
        """Nothing is abandoned any more, or opened: the engine that had it is gone."""
        self._abandoned.clear()
        self.standing = ()
        for number in tuple(self._media):
            self.answered(number)

    @property
    def running(self) -> tuple[CallId, ...]:
        """Who holds a slot. Abandoned calls have names that no link uses."""
        mine = [call.id for call in self._by_id.values() if call.state == "committed"]
        return (*mine, *(f"abandoned-{number}" for number in self._abandoned))

    @property
    def waiting(self) -> tuple[CallId, ...]:
        """Who is about to take one, or holds one and stands still for others."""
        return tuple(
            call.id
            for call in self._by_id.values()
            if call.state != "committed" or call.number in self.standing
        )

    @property
    def paused(self) -> tuple[CallId, ...]:
        """Who holds a slot and is given no tokens."""
        return tuple(call.id for call in self._by_id.values() if call.paused)
