"""The requests of one dispatcher from their arrival to their end, and how all of them are ended."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Generic, Protocol, TypeVar

from balancer.errors import BalancerError


class Endable(Protocol):
    """A request that somebody else may end."""

    @property
    def request_id(self) -> str: ...

    def fail(self, error: BalancerError) -> None:
        """End it with an error, unless it is over."""


AnyRequest = TypeVar("AnyRequest", bound=Endable)


class Underway(Generic[AnyRequest]):
    """In the order of their coming."""

    def __init__(self) -> None:
        self._requests: dict[AnyRequest, None] = {}
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[AnyRequest]:
        return iter(tuple(self._requests))

    def add(self, request: AnyRequest) -> None:
        """It came."""
        self._requests[request] = None
        self._is_idle.clear()

    def remove(self, request: AnyRequest) -> None:
        """It is over, and nobody works on it any more."""
        del self._requests[request]
        if not self._requests:
            self._is_idle.set()

    def end(self, request_id: str, error: Callable[[], BalancerError]) -> bool:
        """End those of this id; False: there are none."""
        found = [request for request in self._requests if request.request_id == request_id]
        for request in found:
            request.fail(error())
        return bool(found)

    def end_all(self, error: Callable[[], BalancerError]) -> None:
        """End every one, each with an error of its own."""
        for request in self._requests:
            request.fail(error())

    async def none_left(self) -> None:
        """Wait until there is none."""
        await self._is_idle.wait()
