"""The latest few of many names."""

from __future__ import annotations

from collections import OrderedDict
from typing import Generic, TypeVar

Value = TypeVar("Value")


class Latest(Generic[Value]):
    """Values by name; past the bound the one that was noted first is forgotten."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[str, Value] = OrderedDict()

    def __contains__(self, name: str) -> bool:
        return name in self._values

    def note(self, name: str, value: Value) -> None:
        """Remember it."""
        self._values[name] = value
        while len(self._values) > self._most:
            self._values.popitem(last=False)

    def take(self, name: str) -> Value | None:
        """Forget it; None: it is not known."""
        return self._values.pop(name, None)
