"""Which result of a tool belongs to which call. Pure.

Ollama's calls need no ids, chat templates do. So each call gets one, and results take them in turn:
that of the first call of their tool that has no result yet, or, where they do not name the tool,
of the first call at all.
"""

from __future__ import annotations

from collections import deque


class CallIds:
    """The ids of one conversation, to be asked for in its order."""

    def __init__(self) -> None:
        self._made = 0
        self._unanswered: dict[str, deque[str]] = {}
        """By the tool's name, and all of them under the empty one."""
        self._answered: set[str] = set()

    def of_call(self, given: str | None, tool_name: str) -> str:
        """A call's own, or a new one."""
        call_id = given or self._new()
        for name in {tool_name, ""}:
            self._unanswered.setdefault(name, deque()).append(call_id)
        return call_id

    def of_result(self, given: str | None, tool_name: str | None) -> str:
        """The one of the call that is answered; a new one if none waits for an answer."""
        call_id = given or self._next(tool_name or "") or self._new()
        self._answered.add(call_id)
        return call_id

    def _next(self, name: str) -> str:
        waiting = self._unanswered.get(name, deque())
        while waiting:
            call_id = waiting.popleft()
            if call_id not in self._answered:
                return call_id
        return ""

    def _new(self) -> str:
        """Nine letters and digits: some templates accept nothing else."""
        self._made += 1
        return f"call{self._made:05d}"
