"""The prefix chain of a request, for all generations that are made for it."""

from __future__ import annotations

from collections.abc import Callable

from msgspec import structs

from protocol.generation import AdapterScale, GenerationRequest
from protocol.prefix_chain import prefix_chain


class Chain:
    """Computed at its first use, and once: whoever wants several choices sends one prompt.

    What an adapter computes is its own, so the adapters that the model's name stands for count;
    `adapters_of` knows them as soon as somebody serves the model.
    """

    __slots__ = (
        "_adapters_of",
        "_packed",
        "_request",
        "cache_scope",
    )

    def __init__(
        self,
        request: GenerationRequest,
        *,
        cache_scope: str,
        adapters_of: Callable[[str], tuple[AdapterScale, ...]],
    ) -> None:
        self._request = request
        self.cache_scope = cache_scope
        """Opaque; equal texts in another one share nothing."""
        self._adapters_of = adapters_of
        self._packed: bytes | None = None

    @property
    def packed(self) -> bytes:
        """As `protocol.prefix_chain.prefix_chain` gives it; empty for a prompt that is scored, as
        all of that is computed anew, wherever it goes."""
        if self._packed is None and self._request.prompt_logprobs:
            self._packed = b""
        if self._packed is None:
            request = self._request
            if adapters := self._adapters_of(request.model):
                request = structs.replace(request, adapters=adapters)
            self._packed = prefix_chain(request, cache_scope=self.cache_scope)
        return self._packed
