"""A service manager that keeps what it is told."""

from __future__ import annotations

from typing import Any

from protocol.service_manager import ServiceManager


class HeardByManager(ServiceManager):
    """`heard`: the facts of each message, without those that were not said."""

    def __init__(self, *, watchdog_s: float | None = None) -> None:
        super().__init__("/nowhere", watchdog_s=watchdog_s)
        self.heard: list[dict[str, Any]] = []

    def say(self, **facts: Any) -> bool:
        """Kept."""
        self.heard.append({name: value for name, value in facts.items() if value})
        return True
