"""What knowing a caller and holding it to its limits costs a request.

`python -m tests.benchmarks.bench_access [--requests N] [--rounds N]`; seconds. The gate alone, with
the headers that a client sends: who calls, is it let in, what is left (the answer's headers), and
leaving. Beside it the same while nobody has to sign in. Time of the process, so that others on a
shared machine count less.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import time
from collections.abc import Sequence
from statistics import median
from typing import Any
from unittest.mock import Mock

from multidict import CIMultiDict, CIMultiDictProxy

from balancer.access import Allowance, Auth, Limits, LimitTable
from balancer.cluster.local import LocalBus
from balancer.http.gate import Gate
from balancer.http.router import Router
from balancer.http.routes import ROUTES
from balancer.http.told_limits import limit_headers
from balancer.policy.identity.principal import Principal
from balancer.policy.limits.amounts import Refusal
from balancer.settings import LiveSettings, Settings
from tests.support.keys import credential

KEYS = 1000
MANY = 10**9


def _request(headers: dict[str, str]) -> Any:
    request = Mock(spec_set=["headers", "remote", "method", "cookies"])
    request.headers = CIMultiDictProxy(CIMultiDict(headers))
    request.remote, request.method, request.cookies = "127.0.0.1", "POST", {}
    return request


def _gate(*, has_keys: bool, has_tokens: bool) -> Gate:
    limits = Limits(
        requests_per_minute=MANY,
        burst=MANY,
        concurrent=MANY,
        tokens_per_minute=MANY if has_tokens else None,
    )
    keys = [credential(f"key-{number}", tier="pro") for number in range(KEYS if has_keys else 0)]
    table = LimitTable(
        roles={"user": Allowance(limits=limits)}, classes={"chat": Limits(requests_per_minute=MANY)}
    )
    settings = Settings(auth=Auth(api_keys=tuple(keys)), limits=table)
    return Gate(LiveSettings(settings), secret=secrets.token_bytes(32), bus=LocalBus())


async def _microseconds(gate: Gate, requests: int, *, has_tokens: bool) -> float:
    route, _ = Router(ROUTES, ports=("inference",)).match("POST", "/v1/chat/completions")
    sent = [
        _request(
            {
                "Host": "localhost:8080",
                "Authorization": f"Bearer key-{number}",
                "Content-Type": "application/json",
                "User-Agent": "OpenAI/Python",
                "Accept": "application/json",
            }
        )
        for number in range(10)
    ]
    started_s = time.process_time()
    for number in range(requests):
        request = sent[number % len(sent)]
        principal = gate.identify(request, route, address=request.remote, is_proxied=False)
        assert isinstance(principal, Principal)
        gate.check_role(principal, route)
        entry = await gate.enter(principal, route, request.remote)
        if entry is None:
            continue
        reservation = await entry.reserve(100, gate.moment()) if has_tokens else None
        limit_headers(entry, gate.moment())
        if reservation is not None and not isinstance(reservation, Refusal):
            reservation.settle(gate.moment(), spent=50)
        entry.leave(gate.moment())
    return 1e6 * (time.process_time() - started_s) / requests


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args(arguments)
    for name, has_keys, has_tokens in (
        ("nobody signs in", False, False),
        ("a key, requests limited", True, False),
        ("a key, tokens limited, too", True, True),
    ):
        took = [
            asyncio.run(
                _microseconds(
                    _gate(has_keys=has_keys, has_tokens=has_tokens),
                    asked.requests,
                    has_tokens=has_tokens,
                )
            )
            for _ in range(asked.rounds)
        ]
        print(f"{name:<28} {median(took):6.1f} us ({min(took):.1f} to {max(took):.1f})")


if __name__ == "__main__":
    main()
