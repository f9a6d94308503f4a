"""The file of `--record-routes`: what is in it while the balancer runs, and when it is full."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from msgspec import Struct

from balancer.observability import route_file
from balancer.observability.route_file import RouteFile


class Route(Struct):
    tenant: str


def test_a_line_is_in_the_file_before_the_next_request(tmp_path: Path) -> None:
    path = tmp_path / "routes.jsonl"
    routes = RouteFile(path)
    routes.write(Route("a"), b"\x00\xff")
    assert [json.loads(line) for line in path.read_text().splitlines()] == [
        {"tenant": "a", "chain": "00ff"}
    ]
    routes.close()


def test_a_full_file_has_whole_lines_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(route_file, "MOST_BYTES", 100)
    path = tmp_path / "routes.jsonl"
    routes = RouteFile(path)
    for _ in range(10):
        routes.write(Route("a"), b"")
    routes.close()
    lines = path.read_bytes().splitlines(keepends=True)
    assert 1 < len(lines) < 10
    assert all(line.endswith(b"}\n") for line in lines)
