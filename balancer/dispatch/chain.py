"""The prefix chain of a request, for all generations that are made for it."""

from __future__ import annotations

from protocol.generation import GenerationRequest
from protocol.prefix_chain import prefix_chain


class Chain:
    """Computed at its first use, and once: whoever wants several choices sends one prompt."""

    __slots__ = (
        "_cache_scope",
        "_packed",
        "_request",
    )

    def __init__(self, request: GenerationRequest, *, cache_scope: str) -> None:
        self._request = request
        self._cache_scope = cache_scope
        self._packed: bytes | None = None

    @property
    def packed(self) -> bytes:
        """As `protocol.prefix_chain.prefix_chain` gives it."""
        if self._packed is None:
            self._packed = prefix_chain(self._request, cache_scope=self._cache_scope)
        return self._packed
