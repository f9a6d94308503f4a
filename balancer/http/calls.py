"""What operators ask for by HTTP or over a live socket: one answer for both, a plain value.

A row of the route table that has an `answer` is called by its `call` name over a socket, and by its
path over HTTP; both check the caller's role and the names of what is given.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping
from functools import wraps
from typing import Any

import msgspec
from aiohttp.web import StreamResponse
from msgspec import Struct

from balancer.access import SignIn
from balancer.errors import InvalidRequest
from balancer.http.answers import json_answer
from balancer.http.body import decode_json, read_body
from balancer.http.exchange import Exchange, Wiring
from balancer.http.faults import missing, refuse_value
from balancer.policy.identity.principal import Principal

_OBJECT: msgspec.json.Decoder[Mapping[str, Any]] = msgspec.json.Decoder(Mapping[str, Any])


class Call(Struct, frozen=True, kw_only=True):
    """Who asks, and for what. `params` are the path's places, the query and the body in one."""

    id: str
    principal: Principal
    signed_in_by: SignIn
    address: str
    """Of the client."""
    params: Mapping[str, Any]

    @staticmethod
    def of(exchange: Exchange, body: Mapping[str, Any] | None = None) -> Call:
        """The call that an HTTP request is."""
        params = {**exchange.request.query, **(body or {}), **exchange.places}
        return Call.from_client(exchange, params)

    @staticmethod
    def from_client(
        exchange: Exchange, params: Mapping[str, Any], *, call_id: str | None = None
    ) -> Call:
        """A call by whom an exchange is with; over a socket it has an id of its own."""
        return Call(
            id=call_id or exchange.id,
            principal=exchange.principal,
            signed_in_by=exchange.signed_in_by,
            address=exchange.address,
            params=params,
        )

    def text(self, name: str, default: str | None = None) -> str:
        """A parameter that is text. Raises `InvalidRequest` for any other value, and where it is
        needed and absent."""
        value = self.params.get(name, default)
        if value is None:
            raise missing(name)
        if not isinstance(value, str):
            raise refuse_value(name, value, "a string", code="invalid_type")
        return value

    def number(self, name: str, *, least: float, most: float, unit: str = "") -> float | None:
        """A parameter that is a number, or a number's text; None: it is absent."""
        value = self.params.get(name)
        if value is None:
            return None
        try:
            found = least - 1.0 if isinstance(value, bool) else float(value)
        except (TypeError, ValueError, OverflowError):
            found = least - 1.0
        if not least <= found <= most:
            raise refuse_value(name, value, f"a number{unit}, {least:g} to {most:g}")
        return found

    def whole(self, name: str, *, least: int, most: int, default: int) -> int:
        """A parameter that is a whole number."""
        found = self.number(name, least=least, most=most)
        if found is None:
            return default
        if not found.is_integer():
            raise refuse_value(name, self.params[name], f"a whole number, {least} to {most}")
        return int(found)


Answer = Callable[[Call, Wiring], Awaitable[Any]]


def audited(
    action: str,
    *,
    target: str = "id",
    facts_of: Callable[[Any], Mapping[str, Any]] = lambda _: {},
) -> Callable[[Answer], Answer]:
    """The answer is written into the audit log, however it ends; `target` is the parameter that
    names what it is done to, `facts_of` finds in what was answered what else is written."""

    def noted(answer: Answer) -> Answer:
        @wraps(answer)
        async def handle(call: Call, wiring: Wiring) -> Any:
            named = str(call.params.get(target, ""))
            with wiring.audit.noting(action, call, target=named) as facts:
                said = await answer(call, wiring)
                facts.update(facts_of(said))
                return said

        return handle

    return noted


def over_http(
    answer: Answer, *, takes: tuple[str, ...] = (), status: int = 200, is_secret: bool = False
) -> Callable[[Exchange, Wiring], Awaitable[StreamResponse]]:
    """The handler of a route whose answer is a value. `takes` are the members of its body, which
    may be empty; `is_secret`: nobody on the way may keep the answer."""
    headers = {"Cache-Control": "no-store"} if is_secret else {}

    async def handle(exchange: Exchange, wiring: Wiring) -> StreamResponse:
        body: Mapping[str, Any] = {}
        if takes:
            data = await read_body(exchange, wiring.settings)
            depth = wiring.settings.max_json_depth
            body = decode_json(data, _OBJECT, max_depth=depth, expected={}) if data else {}
            check_names(body, takes, exchange.route_path)
        value = await answer(Call.of(exchange, body), wiring)
        data = msgspec.json.encode(value)
        return json_answer(exchange, data, status=status, headers=headers)

    return handle


def check_names(given: Iterable[str], known: tuple[str, ...], what: str) -> None:
    """What an operator misspelt must not be silently left out. Raises `InvalidRequest`."""
    for name in given:
        if name not in known:
            listed = " and ".join(f"`{one}`" for one in known) or "none"
            raise InvalidRequest(
                f"`{name[:200]}` is no parameter here; {what} takes {listed}",
                code="unsupported_parameter",
                param=name[:200],
                details={"allowed": list(known)},
            )
