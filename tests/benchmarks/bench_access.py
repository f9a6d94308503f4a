"""What knowing a caller and holding it to its limits costs a request.

`python -m tests.benchmarks.bench_access [--requests N] [--rounds N]`; seconds. The gate alone, with
the headers that a client sends: who calls, is it let in, what is left (the answer's headers), and
leaving. Keys of the configuration and of the store, and JWTs that were verified before; beside it
the same while nobody has to sign in, and what verifying a new token takes. Time of the process, so
that others on a shared machine count less.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import time
from collections.abc import Sequence
from statistics import median
from typing import Any, Literal
from unittest.mock import Mock

from msgspec import Struct, structs
from multidict import CIMultiDict, CIMultiDictProxy

from balancer.access import Allowance, Auth, JwtIssuer, Limits, LimitTable, keyed_digest_of
from balancer.cluster.local import LocalBus
from balancer.http.gate import Gate
from balancer.http.router import Router
from balancer.http.routes import ROUTES
from balancer.http.told_limits import limit_headers
from balancer.policy.identity.jwt import JwtVerifier
from balancer.policy.identity.keyring import Denied, KeyRing
from balancer.policy.identity.principal import Principal
from balancer.policy.identity.published import PublishedKeys
from balancer.policy.limits.amounts import Refusal
from balancer.secret import Secret
from balancer.settings import LiveSettings, Settings
from tests.support.keys import credential
from tests.support.tokens import SECRET, Signer, by_secret, ec_signer, ed_signer, rsa_signer

KEYS = 1000
MANY = 10**9


def _request(headers: dict[str, str]) -> Any:
    request = Mock(spec_set=["headers", "remote", "method", "cookies"])
    request.headers = CIMultiDictProxy(CIMultiDict(headers))
    request.remote, request.method, request.cookies = "127.0.0.1", "POST", {}
    return request


class Way(Struct, frozen=True):
    """How callers sign in, and what is limited."""

    name: str
    by: Literal["nothing", "key", "stored", "jwt"]
    has_tokens: bool = False


WAYS = (
    Way("nobody signs in", "nothing"),
    Way("a key, requests limited", "key"),
    Way("a key, tokens limited, too", "key", has_tokens=True),
    Way("a stored key, requests limited", "stored"),
    Way("a stored key, tokens, too", "stored", has_tokens=True),
    Way("a cached JWT, requests limited", "jwt"),
    Way("a cached JWT, tokens, too", "jwt", has_tokens=True),
)


def _gate(way: Way) -> Gate:
    limits = Limits(
        requests_per_minute=MANY,
        burst=MANY,
        concurrent=MANY,
        tokens_per_minute=MANY if way.has_tokens else None,
    )
    is_open = way.by == "nothing"
    keys = [credential(f"key-{number}", tier="pro") for number in range(0 if is_open else KEYS)]
    issuer = JwtIssuer(algorithms=("HS256",), secret=Secret(SECRET))
    table = LimitTable(
        roles={"user": Allowance(limits=limits)}, classes={"chat": Limits(requests_per_minute=MANY)}
    )
    auth = Auth(api_keys=tuple(keys), jwt=(issuer,) if way.by == "jwt" else ())
    settings = Settings(auth=auth, limits=table)
    secret, pepper = secrets.token_bytes(32), secrets.token_bytes(32)
    if way.by == "stored":
        settings = structs.replace(settings, auth=Auth())
    gate = Gate(LiveSettings(settings), secret=secret, bus=LocalBus())
    if way.by == "stored":
        stored = [
            structs.replace(one, digest=keyed_digest_of(f"key-{number}", pepper), number=1)
            for number, one in enumerate(keys)
        ]
        gate.take_stored(KeyRing(stored, secret, pepper=pepper), has_keys=True)
    return gate


def _credentials(way: Way, number: int) -> str:
    if way.by != "jwt":
        return f"key-{number}"
    return by_secret(sub=f"user-{number}", iss=None, aud=None, realm_access={"roles": ["user"] * 8})


async def _microseconds(way: Way, requests: int) -> float:
    gate = _gate(way)
    route, _ = Router(ROUTES, ports=("inference",)).match("POST", "/v1/chat/completions")
    sent = [
        _request(
            {
                "Host": "localhost:8080",
                "Authorization": f"Bearer {_credentials(way, number)}",
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
        reservation = await entry.reserve(100, gate.moment()) if way.has_tokens else None
        limit_headers(entry, gate.moment())
        if reservation is not None and not isinstance(reservation, Refusal):
            reservation.settle(gate.moment(), spent=50)
        entry.leave(gate.moment())
    return 1e6 * (time.process_time() - started_s) / requests


def _verifying(signer: Signer, tokens: int) -> float:
    algorithms: Any = (signer.algorithm,)
    issuer = JwtIssuer(algorithms=algorithms, public_key=signer.public_pem)
    verifier, token = JwtVerifier((issuer,), PublishedKeys()), signer.token(iss=None, aud=None)
    now_s, started_s = time.time(), time.process_time()
    for _ in range(tokens):
        if isinstance(verifier.verify(token, unix_s=now_s), Denied):
            raise ValueError("the token is not taken")
    return 1e6 * (time.process_time() - started_s) / tokens


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each way."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=7)
    asked = parser.parse_args(arguments)
    for way in WAYS:
        took = [asyncio.run(_microseconds(way, asked.requests)) for _ in range(asked.rounds)]
        print(f"{way.name:<32} {median(took):6.1f} us ({min(took):.1f} to {max(took):.1f})")
    for signer in (rsa_signer(), ec_signer(), ed_signer()):
        took = [_verifying(signer, asked.requests // 20) for _ in range(asked.rounds)]
        name = f"a new JWT by {signer.algorithm}"
        print(f"{name:<32} {median(took):6.1f} us ({min(took):.1f} to {max(took):.1f})")


if __name__ == "__main__":
    main()
