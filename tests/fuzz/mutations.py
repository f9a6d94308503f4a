"""Makes bad requests of good ones: in JSON, in the frame around it, and in the bytes of both.

Everything is drawn from the dice that are handed in, so that an input can be made again.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from random import Random
from typing import Any

from msgspec.structs import replace

from balancer.http.envelope import ENVELOPE
from balancer.http.exchange import Port
from tests.fuzz.recorded import Recorded
from tests.support.encoded import ENCODE

_RAW = "\x01raw\x01"
"""Marks JSON that `json.dumps` would not write."""
_VALUES: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 0.5, 2**31, 2**63 - 1, 2**63, 2**64, -(2**63) - 1, 10**400, 1e308,
    "", "a", "\x00", "\ud800", "\udfff\ud800", "é漢😀", "../..", "x" * 5000, "data:,", "%00",
    [], [[]], {}, [None], {"": None}, ["a"] * 300, [0] * 300, [-1], [{}], {"type": "text"},
    {"type": "json_schema"}, {"$ref": "#"},
)  # fmt: skip
_RAW_VALUES = ("NaN", "-Infinity", "1e999", "-1e-999", "0" * 300, "1" * 5000, "01", '"\\ud800"',
    '"\\u0000"', "'a'", "tru", "[" * 1000, "[" * 200 + "]" * 200, '{"a":' * 200 + "1" + "}" * 200,
    "", "1.0", "1e0", "-0", "\x00", '"' + "\\u0041" * 50 + '"')  # fmt: skip
_HEADERS = (
    ("Content-Type", "text/plain"), ("Content-Type", "multipart/form-data; boundary=x"),
    ("Content-Type", "\x00"), ("Content-Type", "application/json; charset=utf-16"),
    ("Content-Encoding", "gzip"), ("Content-Encoding", "br"), ("Content-Encoding", "x" * 300),
    ("Content-Encoding", "deflate"), ("Content-Length", "-1"), ("Content-Length", "1e3"),
    ("Content-Length", "99999999999999999999"), ("Content-Length", "0"), ("Content-Length", "+5"),
    ("Transfer-Encoding", "chunked"), ("Transfer-Encoding", "gzip, chunked"),
    ("Transfer-Encoding", "identity"), ("Expect", "100-continue"), ("Expect", "the worst"),
    ("Host", "example.com"), ("Host", ""), ("Host", "[::1"), ("Host", "a b"), ("Host", "localhost"),
    ("Origin", "null"), ("Origin", "http://[::1"), ("Origin", "http://example.com"),
    ("Connection", "keep-alive"), ("Connection", "upgrade"), ("Upgrade", "websocket"),
    ("Upgrade", "h2c"), ("X-Forwarded-For", "1.2.3.4"), ("X-Request-Id", "é\x7f"),
    ("X-Paddler-Resumable", "1"), ("X-Paddler-Queue-Updates", "1"), ("Last-Event-ID", "x:99999"),
    ("Accept", "application/json"), ("Authorization", "Bearer " + "x" * 2000), ("X", "y" * 20_000),
    ("Sec-WebSocket-Version", "99"), ("Sec-WebSocket-Key", "short"), (" Bad", "x"), ("B\x00d", "x"),
)  # fmt: skip
_TARGETS = (
    "", "*", "//", "/..", "/%00", "/%", "/%zz", "/%ff%fe", "/é", "?", "/?a=b&a=c", "http://x/", "a",
    "/agents/%2e%2e", "/v1/models/" + "x" * 5000, "/agents/" + "%61" * 100, "/health?detailed=%ff",
    "/agents/spare/drain?deadline_s=nan", "/agents/spare/drain?deadline_s=-1e999",
    "/agents/spare/drain?deadline_s=1&deadline_s=2", "/requests?x=" + "y" * 3000, "/v2/agents",
)  # fmt: skip
_METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "CONNECT", "get",
    "PRI", "X" * 300, "G\x00T", "")  # fmt: skip
_VERSIONS = ("HTTP/1.0", "HTTP/1.0", "HTTP/1.0", "HTTP/0.9", "HTTP/2.0", "HTTP/9.9", "HTTP", "")
_PIECES = (
    b"\x00", b"\xff\xfe", b"\xc3\x28", b"\xed\xa0\x80", b"\r\n", b"\n", b"\r\n\r\n", b"\t",
    b"\\ud800", b'"', b"{", b"}", b"[" * 70, b",", b":", b"0\r\n\r\n", b"fffffffffffffffff\r\n",
    b"GET / HTTP/1.1", b"NaN", b"1e999", b"-", b"9" * 40,
)  # fmt: skip

_Mutation = Callable[[Recorded, Random], Recorded]


class Mutator:
    """An endless supply of inputs, each by its number."""

    def __init__(self, recorded: Sequence[Recorded], *, seed: int) -> None:
        self._recorded = recorded
        self._seed = seed

    def input(self, number: int) -> tuple[Port, bytes]:
        """A port, and what to send to it."""
        dice = Random(f"{self._seed}:{number}")
        first = dice.choice(self._recorded)
        wire = self._wire(first, dice)
        while dice.random() < 0.15:  # pipelining
            wire += self._wire(dice.choice(self._recorded), dice)
        return first.port, wire

    def _wire(self, request: Recorded, dice: Random) -> bytes:
        while dice.random() < 0.7:
            request = dice.choice(_MUTATIONS)(request, dice)
        wire = _with_length(request, dice).wire()
        while dice.random() < 0.25:
            wire = _bytes(wire, dice)
        return wire


def _with_length(request: Recorded, dice: Random) -> Recorded:
    """Most frames are right, so that what they hold is looked at."""
    names = {name.lower() for name, _ in request.headers}
    if not request.body or names & {"content-length", "transfer-encoding", "upgrade"}:
        return request
    wrong = dice.choice((-1, 1, 1000)) if dice.random() < 0.05 else 0
    length = ("Content-Length", str(max(0, len(request.body) + wrong)))
    return replace(request, headers=(*request.headers, length))


def _value(request: Recorded, dice: Random) -> Recorded:
    """Another value somewhere in the JSON."""
    try:
        value = json.loads(request.body)
    except (ValueError, RecursionError):  # it was mutated before
        return request
    raw = dice.choice(_RAW_VALUES) if dice.random() < 0.4 else None
    given = _RAW if raw is not None else dice.choice(_VALUES)
    text = json.dumps(_put(value, given, dice), ensure_ascii=dice.random() < 0.5)
    if raw is not None:
        text = text.replace(json.dumps(_RAW), raw)
    return replace(request, body=text.encode("utf-8", "surrogatepass"))


def _put(value: Any, given: Any, dice: Random) -> Any:
    if isinstance(value, dict) and value and dice.random() < 0.9:
        key = dice.choice(list(value))
        kept = {name: one for name, one in value.items() if name != key or dice.random() < 0.9}
        return {**kept, key: _put(value[key], given, dice)}
    if isinstance(value, list) and value and dice.random() < 0.9:
        place = dice.randrange(len(value))
        return [*value[:place], _put(value[place], given, dice), *value[place + 1 :]]
    return given


def _body_bytes(request: Recorded, dice: Random) -> Recorded:
    return replace(request, body=_bytes(request.body, dice))


def _other_body(request: Recorded, dice: Random) -> Recorded:
    """Compressed, rightly or not; or in chunks, rightly or not."""
    body = request.body
    match dice.randrange(5):
        case 0:
            name = dice.choice(list(ENCODE))
            packed, header = ENCODE[name](body), ("Content-Encoding", name)
        case 1:
            names = dice.choices(list(ENCODE), k=2)
            packed = ENCODE[names[1]](ENCODE[names[0]](body))
            header = ("Content-Encoding", ", ".join(names))
        case 2:
            name = dice.choice(list(ENCODE))
            packed, header = ENCODE[name](b"[" * 10**6), ("Content-Encoding", name)
        case 3:
            packed, header = body, ("Accept", ENVELOPE)
        case _:
            packed, header = _chunked(body, dice), ("Transfer-Encoding", "chunked")
    if dice.random() < 0.2:
        packed = _bytes(packed, dice)
    return replace(request, body=packed, headers=(*request.headers, header))


def _chunked(body: bytes, dice: Random) -> bytes:
    made = bytearray()
    while body:
        size = dice.randint(1, len(body))
        made += b"%x\r\n%b\r\n" % (size, body[:size])
        body = body[size:]
    return bytes(made + b"0\r\n\r\n")


def _header(request: Recorded, dice: Random) -> Recorded:
    return replace(request, headers=(*request.headers, dice.choice(_HEADERS)))


def _fewer_headers(request: Recorded, dice: Random) -> Recorded:
    return replace(request, headers=tuple(one for one in request.headers if dice.random() < 0.5))


def _many_headers(request: Recorded, dice: Random) -> Recorded:
    more = tuple((f"X-{index}", "x") for index in range(dice.choice((50, 2000))))
    return replace(request, headers=(*request.headers, *more))


def _target(request: Recorded, dice: Random) -> Recorded:
    given = dice.choice(_TARGETS)
    return replace(request, target=given if dice.random() < 0.7 else request.target + given)


def _line(request: Recorded, dice: Random) -> Recorded:
    if dice.random() < 0.5:
        return replace(request, method=dice.choice(_METHODS))
    return replace(request, version=dice.choice(_VERSIONS))


def _bytes(data: bytes, dice: Random) -> bytes:
    """Bits, bytes and spans."""
    start = dice.randint(0, len(data))
    end = min(len(data), start + dice.choice((1, 1, 2, 8, 64)))
    match dice.randrange(6):
        case 0:
            return data[:start] + dice.randbytes(end - start) + data[end:]
        case 1:
            return data[:start] + data[end:]
        case 2:
            return data[:end] + data[start:]
        case 3:
            return data[:start]
        case 4 if start < len(data):
            return data[:start] + bytes([data[start] ^ 1 << dice.randrange(8)]) + data[start + 1 :]
        case _:
            return data[:start] + dice.choice(_PIECES) + data[start:]


_MUTATIONS: tuple[_Mutation, ...] = (
    _value, _value, _value, _value, _body_bytes, _other_body, _header, _header, _fewer_headers,
    _many_headers, _target, _line,
)  # fmt: skip
