"""/session: the dashboard signs in with a key, and is known by a cookie from then on.

The cookie is for the browser alone (`HttpOnly`), goes to this origin alone (`SameSite=Strict`), and
is good on the management port alone. Changes need the session's token beside it.
"""

from __future__ import annotations

from typing import Any

import msgspec
from aiohttp.web import StreamResponse

from balancer.errors import ResourceNotFound
from balancer.http.answers import value_answer
from balancer.http.body import decode_json, read_body
from balancer.http.document.shapes.access import Login
from balancer.http.exchange import Exchange, Wiring
from balancer.http.gate import SESSION_COOKIE
from balancer.http.iso_time import iso_time
from balancer.policy.identity.principal import Principal
from balancer.policy.identity.sessions import LONGEST_S, Session
from balancer.settings import KIB

MOST_BYTES = 16 * KIB
"""Nobody has signed in yet who sends it."""
_DECODER = msgspec.json.Decoder(Login)
_EXPECTED = {"key": "an API key of role admin"}


async def show_session(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Whether somebody has to sign in here, and who has: with the token that changes need."""
    session = wiring.gate.session_of(exchange.request, exchange.address)
    return value_answer(exchange, _shown(session, wiring))


async def open_session(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """A key in, a cookie out. Raises as a request with that key would."""
    gate = wiring.gate
    data = await read_body(exchange, wiring.settings, most_bytes=MOST_BYTES)
    login = decode_json(
        data, _DECODER, max_depth=wiring.settings.max_json_depth, expected=_EXPECTED
    )
    if gate.is_open:
        raise ResourceNotFound("nobody has to sign in here: no key is configured")
    with wiring.audit.noting("session.open", exchange):
        found = gate.principal_of(login.key, exchange.address)
        principal = found if isinstance(found, Principal) else await found
        exchange.principal, exchange.shown_by = principal, principal.signed_in_by
        gate.require(principal, "admin", "the dashboard", of="management")
    exchange.facts["key"] = principal.id
    cookie, session = gate.open_session(principal)
    answer = value_answer(exchange, _shown(session, wiring), status=201)
    answer.set_cookie(
        SESSION_COOKIE,
        cookie,
        max_age=int(LONGEST_S),
        httponly=True,
        samesite="Strict",
        secure=exchange.is_secure,
    )
    return answer


async def close_session(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Sign out."""
    if wiring.gate.session_of(exchange.request, exchange.address) is not None:
        wiring.audit.note("session.close", exchange)
    wiring.gate.sessions.close(exchange.request.cookies.get(SESSION_COOKIE, ""))
    wiring.gate.lasting.end_what_is_over()
    answer = value_answer(exchange, _shown(None, wiring))
    answer.del_cookie(SESSION_COOKIE, httponly=True, samesite="Strict")
    return answer


def _shown(session: Session | None, wiring: Wiring) -> dict[str, Any]:
    shown: dict[str, Any] = {"object": "session", "is_needed": not wiring.gate.is_open}
    if session is None:
        return {**shown, "is_open": False}
    return {
        **shown,
        "is_open": True,
        "key": session.principal.id,
        "role": session.principal.role,
        "csrf_token": session.csrf_token,
        "ends": iso_time(session.ends_s),
    }
