"""What a daemon says to the service manager that started it: systemd's sd_notify(3), the sender's
half of it. Standard library only.

One datagram of `NAME=value` lines goes to the Unix socket that `NOTIFY_SOCKET` names. Nothing is
ever waited for: a manager that does not read must not hold up who serves.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping

_MICROSECONDS = 1_000_000
_MAX_STATUS_CHARS = 500
_ABSTRACT = "@"


class ServiceManager:
    """The way to one service manager; without an address everything is said to nobody."""

    def __init__(self, address: str = "", *, watchdog_s: float | None = None) -> None:
        self._address = "\0" + address[1:] if address.startswith(_ABSTRACT) else address
        self.watchdog_s = watchdog_s
        """The manager ends who has not said `well` for so long; None: it does not watch."""
        self._owed: dict[str, str] = {}
        """What was not handed over yet."""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> ServiceManager:
        """The one that started this very process, as its environment says."""
        address = environment.get("NOTIFY_SOCKET", "")
        if not address.startswith(("/", _ABSTRACT)):
            return cls()
        return cls(address, watchdog_s=_watchdog_s(environment))

    @property
    def is_there(self) -> bool:
        """Whether anybody hears."""
        return bool(self._address)

    def say(
        self,
        *,
        ready: bool = False,
        well: bool = False,
        stopping: bool = False,
        extend_s: float = 0.0,
        status: str | None = None,
    ) -> bool:
        """Say it in one datagram; whether it was handed over. What is said but once (all that is no
        `well` and no `extend_s`) goes along the next time if it was not: a manager that is busy,
        as at the start of a machine, would wait for it in vain.

        `ready`: starting is over; `well`: the watchdog may wait anew; `stopping`: the end began;
        `extend_s`: so many seconds more from now, to start or to stop in; `status`: one line for
        people.
        """
        if ready:
            self._owed["READY"] = "1"
        if stopping:
            self._owed["STOPPING"] = "1"
        if status is not None:
            self._owed["STATUS"] = " ".join(status.split())[:_MAX_STATUS_CHARS]
        lines = [f"{name}={value}" for name, value in self._owed.items()]
        if well:
            lines.append("WATCHDOG=1")
        if extend_s:
            lines.append(f"EXTEND_TIMEOUT_USEC={round(extend_s * _MICROSECONDS)}")
        is_said = self._send("\n".join(lines))
        if is_said:
            self._owed.clear()
        return is_said

    def _send(self, text: str) -> bool:
        if not (text and self._address):
            return False
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as door:
                door.setblocking(False)
                door.connect(self._address)
                door.send(text.encode(errors="replace"))
        except OSError:
            return False
        return True


def _watchdog_s(environment: Mapping[str, str]) -> float | None:
    """`WATCHDOG_USEC`, if it is a number and meant for this process (`WATCHDOG_PID`)."""
    if environment.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    interval = environment.get("WATCHDOG_USEC", "")
    if not (interval.isascii() and interval.isdecimal() and len(interval) < 20):
        return None
    return int(interval) / _MICROSECONDS or None
