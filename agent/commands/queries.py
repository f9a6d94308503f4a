"""The queries that this agent answers for the balancer: calls that take no slot."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

from agent.settings import MAX_FILES
from protocol.jsonrpc import CallId


@dataclass(slots=True, eq=False)
class Query:
    """One under way: the link's id, and its number for the engine."""

    id: CallId
    number: int
    prompt: str | None = None
    """What the answer to a `render` gives beside the number of tokens that the engine counts."""


class Queries:
    """The one owner of queries. The engine bounds how many there are: it refuses more.

    Their numbers are below those of `KeepWarm`, and these below those of `Calls`, which begin at 1:
    the engine knows all by number alone.
    """

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self._on_change = on_change
        self._numbers = count(-MAX_FILES - 1, -1)
        self._by_number: dict[int, Query] = {}
        self._by_id: dict[CallId, Query] = {}

    def __len__(self) -> int:
        return len(self._by_number)

    def __iter__(self) -> Iterator[Query]:
        return iter(tuple(self._by_number.values()))

    def open(self, call_id: CallId) -> Query | None:
        """A new query; None if the id is in use."""
        if call_id in self._by_id:
            return None
        query = Query(call_id, next(self._numbers))
        self._by_number[query.number] = self._by_id[call_id] = query
        self._on_change()
        return query

    def with_id(self, call_id: CallId) -> Query | None:
        """The query that the balancer means."""
        return self._by_id.get(call_id)

    def is_open(self, query: Query) -> bool:
        """Whether nobody ended the query meanwhile."""
        return self._by_number.get(query.number) is query

    def close(self, number: int) -> Query | None:
        """The query is over; None: it was before, and nobody waits for its answer."""
        query = self._by_number.pop(number, None)
        if query is not None:
            del self._by_id[query.id]
            self._on_change()
        return query
