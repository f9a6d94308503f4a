"""What hostile clients send byte by byte, and the records that are left of what they tried."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from msgspec import Struct
from structlog.testing import capture_logs

from tests.support.running_balancer import PATIENCE_S, RunningBalancer

_STATUS = re.compile(rb"HTTP/1\.[01] (\d{3}) ")
LOOPBACK = "127.0.0.1"


class Records:
    """The log's events, while `recorded` is open."""

    def __init__(self, events: list[Any]) -> None:
        self.events = events

    def refusal(self, status: int, code: str) -> dict[str, Any]:
        """The latest summary of a request that was refused so; it says from where it came."""
        summaries = [event for event in self.events if event["event"] == "request"]
        found = [one for one in summaries if (one["status"], one.get("error")) == (status, code)]
        assert found, f"no request was refused with {status} {code}: {self.events[-5:]}"
        assert found[-1]["address"] == LOOPBACK
        return dict(found[-1])

    def event(self, name: str, **facts: Any) -> dict[str, Any]:
        """The latest event of this name with these facts."""
        found = [
            event
            for event in self.events
            if event["event"] == name and facts.items() <= event.items()
        ]
        assert found, f"no {name!r} with {facts}: {self.events[-5:]}"
        return dict(found[-1])

    def audited(self, action: str, **members: Any) -> dict[str, Any]:
        """The latest line of the audit log of something that was refused."""
        line = self.event("audit", action=action, outcome="refused", **members)
        assert line["from"] == LOOPBACK
        return line

    def holds(self, text: str) -> bool:
        """Whether it stands in any of them."""
        return text in json.dumps(self.events, default=repr, ensure_ascii=False)


@contextmanager
def recorded() -> Iterator[Records]:
    """Keep what is logged."""
    with capture_logs() as events:
        yield Records(events)


class Told(Struct, frozen=True):
    """All that came over a connection until the other side closed it."""

    sent: bytes

    @property
    def statuses(self) -> list[int]:
        """Of each answer."""
        return [int(status) for status in _STATUS.findall(self.sent)]

    @property
    def code(self) -> str:
        """Of the one error."""
        return str(json.loads(self.sent.partition(b"\r\n\r\n")[2])["error"]["code"])


async def told(port: int, *pieces: bytes) -> Told:
    """Send bytes as they are, and read until the connection is closed."""
    reader, writer = await asyncio.open_connection(LOOPBACK, port)
    try:
        async with asyncio.timeout(PATIENCE_S):
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
            return Told(await reader.read())
    except ConnectionResetError:
        return Told(b"")
    finally:
        writer.close()


def request(method: str, target: str, *lines: str, body: bytes = b"") -> bytes:
    """A request as it is written here, with nothing put right; the last of its connection."""
    head = (f"{method} {target} HTTP/1.1", "Host: localhost", "Connection: close", *lines)
    length = (f"Content-Length: {len(body)}",) if body else ()
    return "\r\n".join((*head, *length, "", "")).encode("utf-8", "surrogateescape") + body


def edge_refusals(balancer: RunningBalancer, reason: str) -> int:
    """How often the edge refused for a reason, as the metrics tell."""
    text = balancer.app.wiring.metrics.text().decode()
    found = re.search(rf'^paddler_edge_refusals_total{{reason="{reason}"}} (\S+)$', text, re.M)
    return int(float(found[1])) if found else 0
