"""Requests that wait for a slot: bounded, and served in the order of a fair share.

Those that had begun elsewhere come first. Then comes the tenant that was served least, of its own
requests the oldest. The room keeps order and bounds; it decides nothing about agents. Who was
started and refused returns to where it stood.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import Generic, NamedTuple, Protocol, TypeVar

from balancer.policy.fairness import Shares
from balancer.policy.holds import Demand
from balancer.settings import LiveSettings

Rank = tuple[int, int]
"""Whether it has not begun yet (0 or 1), and its place in the order of arrival, unique."""


class Waiter(Protocol):
    """Something that waits. None of this changes while it does."""

    @property
    def rank(self) -> Rank: ...

    @property
    def queue(self) -> str:
        """The model's name as the request has it; "" where it names none."""

    @property
    def tenant(self) -> str: ...

    @property
    def body_bytes(self) -> int: ...

    @property
    def length(self) -> int:
        """The class of its `max_tokens` (`policy.holds.length_class`)."""


AnyWaiter = TypeVar("AnyWaiter", bound=Waiter)
_SHORTEST_HOLD_S = 0.001
_MOST_LOOKED_AT = 100
OnChange = Callable[[int, int], None]
HoldSeconds = Callable[[Demand], float]
"""How long what is asked for will hold slots, in seconds of one slot."""


class Ahead(NamedTuple):
    """What is served before someone, about."""

    requests: int
    work_s: float


class WaitingRoom(Generic[AnyWaiter]):
    """At most `max_waiting` waiters, `max_waiting_of_tenant` of one tenant, with at most
    `max_waiting_bytes` of bodies, as the settings have it now; when it is full, `has_room` says no
    and the request is refused. `on_change(waiting, bytes)` hears every change."""

    def __init__(
        self,
        *,
        settings: LiveSettings,
        shares: Shares,
        on_change: OnChange,
    ) -> None:
        self._settings = settings
        self._shares = shares
        self._on_change = on_change
        self._queues: dict[str, dict[str, OrderedDict[Rank, AnyWaiter]]] = {}
        self._demands: dict[str, dict[str, Demand]] = {}
        self._lengths: Counter[str] = Counter()
        self._of_tenants: Counter[str] = Counter()
        self._waiting = 0
        self._bytes = 0

    def __len__(self) -> int:
        return self._waiting

    @property
    def waiting_bytes(self) -> int:
        """Bytes of the bodies of all who wait."""
        return self._bytes

    @property
    def queues(self) -> tuple[str, ...]:
        """Those in which somebody waits."""
        return tuple(self._queues)

    def length_of(self, queue: str) -> int:
        """How many wait for this model."""
        return self._lengths[queue]

    def ahead_of(self, queue: str, tenant: str, hold_s: HoldSeconds) -> Ahead:
        """What of this model is served before a newcomer of this tenant, if nobody else comes: all
        of its own, and of each other tenant what starts until that has been given as much. Of
        very many tenants some stand for all: refusing must stay cheap."""
        demands = self._demands.get(queue, {})
        own = demands.get(tenant)
        count, work_s = (own.count, hold_s(own)) if own else (0, 0.0)
        until_ms = self._shares.entry_ms(tenant) + 1000 * work_s
        looked_at = [one for one in islice(demands, _MOST_LOOKED_AT) if one != tenant]
        others, others_s = 0, 0.0
        for other in looked_at:
            behind_ms = until_ms - self._shares.service_ms(other)
            if behind_ms >= 0:
                demand = demands[other]
                each_s = max(hold_s(demand) / demand.count, _SHORTEST_HOLD_S)
                served = min(demand.count, 1 + int(behind_ms / (1000 * each_s)))
                others, others_s = others + served, others_s + served * each_s
        share = (len(demands) - (own is not None)) / max(len(looked_at), 1)
        return Ahead(count + round(others * share), work_s + others_s * share)

    def expected_order(self, queue: str, hold_s: HoldSeconds) -> Iterator[tuple[AnyWaiter, Ahead]]:
        """All who wait for this model as they should come to be served, and what goes before each.
        Nothing may change meanwhile."""
        given_ms: defaultdict[str, float] = defaultdict(float)

        def turn(waiter: AnyWaiter) -> tuple[int, float, int]:
            is_new, service_ms, ordinal = self._turn(waiter)
            return is_new, service_ms + is_new * given_ms[waiter.tenant], ordinal

        lines = [iter(line.values()) for line in self._queues.get(queue, {}).values()]
        turns = [(turn(head), head, line) for line in lines for head in islice(line, 1)]
        heapq.heapify(turns)
        count, work_s = 0, 0.0
        while turns:
            _, waiter, line = turns[0]
            yield waiter, Ahead(count, work_s)
            needs_s = hold_s(Demand.of_one(waiter.length, waiter.body_bytes))
            count, work_s = count + 1, work_s + needs_s
            given_ms[waiter.tenant] += 1000 * needs_s
            following = next(line, None)
            if following is None:
                heapq.heappop(turns)
            else:
                heapq.heapreplace(turns, (turn(following), following, line))

    def has_room(self, body_bytes: int, count: int = 1) -> bool:
        """Whether so many more newcomers may wait, each with such a body."""
        settings = self._settings.current
        return (
            self._waiting + count <= settings.max_waiting
            and self._bytes + count * body_bytes <= settings.max_waiting_bytes
        )

    def has_room_for(self, tenant: str, count: int = 1) -> bool:
        """Whether so many more newcomers of this tenant may wait."""
        return self._of_tenants[tenant] + count <= self._settings.current.max_waiting_of_tenant

    def enter(self, waiter: AnyWaiter) -> None:
        """Join the tenant's queue at the place that the waiter's age gives it.

        A newcomer asks for room first; one that comes back was let in before and always is.
        """
        tenants = self._queues.setdefault(waiter.queue, {})
        queue = tenants.setdefault(waiter.tenant, OrderedDict())
        is_last = not queue or next(reversed(queue)) < waiter.rank
        queue[waiter.rank] = waiter
        if not is_last:
            self._restore_order(queue, waiter.rank)
        self._count(waiter, 1)

    def leave(self, waiter: AnyWaiter) -> bool:
        """Take the waiter out, wherever it stands; False if it did not wait."""
        tenants = self._queues.get(waiter.queue, {})
        queue = tenants.get(waiter.tenant)
        if queue is None or queue.pop(waiter.rank, None) is None:
            return False
        if not queue:
            del tenants[waiter.tenant]
        if not tenants:
            self._queues.pop(waiter.queue, None)
        self._count(waiter, -1)
        return True

    def first(self, queues: Iterable[str]) -> AnyWaiter | None:
        """Whose turn it is, of all who wait in these queues."""
        heads = [
            next(iter(queue.values()))
            for name in queues
            for queue in self._queues.get(name, {}).values()
        ]
        return min(heads, key=self._turn, default=None)

    def in_order(self, queues: Iterable[str]) -> Iterator[AnyWaiter]:
        """All who wait in these queues now, each when it is its turn; they may leave meanwhile, and
        tenants be charged."""
        lines = [
            iter(tuple(queue.values()))
            for name in queues
            for queue in self._queues.get(name, {}).values()
        ]
        turns = [(self._turn(head), head, line) for line in lines for head in islice(line, 1)]
        heapq.heapify(turns)
        while turns:
            turn, head, line = turns[0]
            if turn != (turn_now := self._turn(head)):  # charged meanwhile, for another line
                heapq.heapreplace(turns, (turn_now, head, line))
                continue
            yield head
            following = next(line, None)
            if following is None:
                heapq.heappop(turns)
            else:
                heapq.heapreplace(turns, (self._turn(following), following, line))

    def all_of(self, queue: str) -> list[AnyWaiter]:
        """Everyone who waits for this model, by tenant and age."""
        lines = self._queues.get(queue, {}).values()
        return [waiter for line in lines for waiter in line.values()]

    def _turn(self, waiter: AnyWaiter) -> tuple[int, float, int]:
        """Unique, so that waiters are never compared."""
        begun, ordinal = waiter.rank
        return begun, self._shares.service_ms(waiter.tenant) if begun else 0.0, ordinal

    def _count(self, waiter: AnyWaiter, change: int) -> None:
        self._waiting += change
        self._bytes += change * waiter.body_bytes
        self._count_demand(waiter, change)
        for counts, name in ((self._lengths, waiter.queue), (self._of_tenants, waiter.tenant)):
            counts[name] += change
            if not counts[name]:
                del counts[name]
        if change > 0:
            self._shares.begins_to_wait(waiter.tenant)
        else:
            self._shares.waits_no_more(waiter.tenant)
        self._on_change(self._waiting, self._bytes)

    def _count_demand(self, waiter: AnyWaiter, change: int) -> None:
        demands = self._demands.setdefault(waiter.queue, {})
        if change > 0:
            demand = demands.setdefault(waiter.tenant, Demand())
            demand.add(waiter.length, waiter.body_bytes)
            return
        demand = demands[waiter.tenant]
        demand.remove(waiter.length, waiter.body_bytes)
        if not demand.lengths:
            del demands[waiter.tenant]
        if not demands:
            del self._demands[waiter.queue]

    @staticmethod
    def _restore_order(queue: OrderedDict[Rank, AnyWaiter], rank: Rank) -> None:
        """Usually one step: who comes back is older than everyone who still waits."""
        queue.move_to_end(rank, last=False)
        if next(islice(queue, 1, None)) > rank:
            return
        for key in sorted(queue):
            queue.move_to_end(key)
