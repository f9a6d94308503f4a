"""Calls of a link that are over, so that what is still said of them can be told from nonsense."""

from __future__ import annotations

from collections import OrderedDict

from protocol.jsonrpc import CallId

REMEMBERED_ENDS = 1024


class EndedCalls:
    """The latest ones; the oldest are forgotten."""

    def __init__(self) -> None:
        self._were_cancelled: OrderedDict[CallId, bool] = OrderedDict()

    def __contains__(self, call_id: CallId) -> bool:
        return call_id in self._were_cancelled

    def add(self, call_id: CallId, *, was_cancelled: bool) -> None:
        """A call is over."""
        self._were_cancelled[call_id] = was_cancelled
        if len(self._were_cancelled) > REMEMBERED_ENDS:
            self._were_cancelled.popitem(last=False)

    def was_cancelled(self, call_id: CallId) -> bool:
        """Whether it ended, and had been cancelled before."""
        return self._were_cancelled.get(call_id, False)
