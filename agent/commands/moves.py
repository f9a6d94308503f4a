"""Sequences on their way out of this agent or into it: who has which file, and until when.

    export: engine -> sending -> over          import: receiving -> engine -> over
A file that the engine was told of stays open until the engine has answered, or is dead, whoever
lost interest meanwhile: its path names a descriptor, whose number the next file would get.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, Protocol

from agent.commands.state_file import StateFile
from protocol.invariants import present
from protocol.streams import Sink, Source

MAX_MOVES = 4
"""At once; more are refused. Each may hold `state_file.most_state_bytes` of memory."""


class StateLink(Protocol):
    """The part of the balancer's link that states take."""

    def send_stream(self, call_id: int, source: Source) -> None:
        """Send what belongs to a call, and close the source after; at once if there is no link."""

    def expect(self, call_id: int, sink: Sink) -> None:
        """Let what comes for a call go to the sink."""

    def drop(self, call_id: int) -> None:
        """Want no more of what comes for a call."""


@dataclass(slots=True, eq=False)
class Move:
    """One under way, by the number of its query. `tokens` are those of an import."""

    number: int
    call_id: int
    file: StateFile
    state: Literal["engine", "sending", "receiving"]
    tokens: int = 0


class Moves:
    """The one owner of state files."""

    def __init__(
        self, link: StateLink | None = None, on_change: Callable[[], None] = lambda: None
    ) -> None:
        self._link = link
        self._on_change = on_change
        self._moves: dict[int, Move] = {}

    def __len__(self) -> int:
        return len(self._moves)

    @property
    def has_room(self) -> bool:
        """Whether one more may begin."""
        return len(self._moves) < MAX_MOVES

    def begin_export(self, number: int, call_id: int) -> Move:
        """A file for the engine to write. Raises `OSError`."""
        return self._begin(number, call_id, "engine")

    def begin_import(self, number: int, call_id: int, tokens: int) -> Move:
        """A file for what comes from the balancer. Raises `OSError`."""
        move = self._begin(number, call_id, "receiving")
        move.tokens = tokens
        return move

    def receive(self, move: Move, sink: Sink) -> None:
        """Let the bytes of an import come."""
        present(self._link).expect(move.call_id, sink)

    def received(self, move: Move) -> None:
        """The file is the engine's from now on."""
        move.state = "engine"

    def send(self, move: Move) -> None:
        """The engine wrote an export: it travels, and its file is gone when that is over."""
        link = present(self._link)
        move.state = "sending"
        link.send_stream(move.call_id, move.file)

    def numbered(self, number: int) -> Move | None:
        """The move of a query."""
        return self._moves.get(number)

    def end(self, move: Move) -> None:
        """It is over, in whatever way."""
        if move.state == "receiving" and self._link is not None:
            self._link.drop(move.call_id)
        move.file.close()

    def unwanted(self, number: int) -> None:
        """A query was cancelled, or its link broke: nothing more comes for it."""
        move = self._moves.get(number)
        if move is not None and move.state == "receiving":
            self.end(move)

    def engine_gone(self) -> None:
        """What the engine should have written or read is void, what it wrote is not."""
        for move in tuple(self._moves.values()):
            if move.state != "sending":
                self.end(move)

    def close(self) -> None:
        """The agent ends."""
        for move in tuple(self._moves.values()):
            self.end(move)

    def _begin(self, number: int, call_id: int, state: Literal["engine", "receiving"]) -> Move:
        def forget() -> None:
            self._moves.pop(number, None)
            self._on_change()

        file = StateFile(on_close=forget, close_elsewhere=_close_on_a_thread)
        move = self._moves[number] = Move(number, call_id, file, state)
        return move


def _close_on_a_thread(descriptor: int) -> None:
    asyncio.get_running_loop().run_in_executor(None, os.close, descriptor)
