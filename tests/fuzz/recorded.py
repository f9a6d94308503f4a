"""Requests as they are on the wire: one for every example of the document, of every route."""

from __future__ import annotations

import json
from urllib.parse import quote, urlencode

from msgspec import Struct

from balancer.http.document.operation import Example, Operation
from balancer.http.document.operations import OPERATIONS
from balancer.http.exchange import Port

_AGENT = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Version": "13",
}


class Recorded(Struct, frozen=True, kw_only=True):
    """A request in its parts."""

    port: Port
    method: str
    target: str
    version: str = "HTTP/1.1"
    headers: tuple[tuple[str, str], ...] = (("Host", "localhost"), ("Connection", "close"))
    body: bytes = b""

    def wire(self) -> bytes:
        """Its bytes; the length of the body is among the headers only if they say so."""
        lines = [f"{self.method} {self.target} {self.version}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        return "\r\n".join([*lines, "", ""]).encode("utf-8", "replace") + self.body


def recorded_requests() -> tuple[Recorded, ...]:
    """All of them, in the table's order; and how an agent dials in."""
    dialling = Recorded(
        port="management",
        method="GET",
        target="/agents/connect",
        headers=(("Host", "localhost"), *_AGENT.items()),
        body=b"\x81\x82\x00\x00\x00\x00{}",
    )
    return (
        *(
            _of_example(port, row, example)
            for row in OPERATIONS
            for port in row.ports
            for example in row.examples
        ),
        dialling,
    )


def _of_example(port: Port, row: Operation, example: Example) -> Recorded:
    target = row.path.replace("...}", "}")
    for one in row.parameters:
        if one.where == "path" and one.example is not None:
            target = target.replace(f"{{{one.name}}}", quote(one.example, safe=""))
    query = "?" + urlencode(example.query) if example.query else ""
    body = b"" if example.body is None else json.dumps(example.body).encode()
    return Recorded(port=port, method=row.method, target=target + query, body=body)
