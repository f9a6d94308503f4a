"""What every request passes: ids -> one summary event -> errors -> route, host, origin, role.

The order matters: a request has its id before anything can fail, and whatever fails inside is an
answer of api.md's one shape before it is summed up.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import cast

import structlog
from aiohttp.web import BaseRequest, StreamResponse

from balancer.access import RouteClass
from balancer.errors import (
    BalancerError,
    ClientDropped,
    Forbidden,
    InvalidRequest,
    MethodNotAllowed,
    RouteNotFound,
    Unauthorized,
)
from balancer.http.answers import error_answer, internal_error, raw_answer, shown_error
from balancer.http.calls import check_names
from balancer.http.connection import ClientConnection
from balancer.http.cors import PREFLIGHT, cors_headers, is_preflight
from balancer.http.envelope import is_wanted
from balancer.http.exchange import Exchange, Wiring
from balancer.http.head_faults import head_too_large
from balancer.http.origin import is_allowed_host, is_embedded_elsewhere, is_own_origin
from balancer.http.router import Route, Router
from balancer.policy.identity.principal import Principal

log = structlog.get_logger(__name__)

CLIENT_LEFT = 499
_REFUSED = 400
"""From this status on the summary says from where a request came."""
_WORK: frozenset[RouteClass] = frozenset({"chat", "completions", "embeddings", "tokens"})
_SAFE_METHODS = frozenset({"GET", "HEAD"})


class Pipeline:
    """The request handler of one port."""

    def __init__(self, router: Router, wiring: Wiring, *, has_inference: bool) -> None:
        self._has_inference = has_inference
        self._router = router
        self._wiring = wiring

    async def __call__(self, request: BaseRequest) -> StreamResponse:
        """Answer one request. Raises only cancellation: its client left."""
        exchange = self._exchange_of(request)
        status = CLIENT_LEFT
        try:
            try:
                route = await self._admit(exchange)
                response = await route.handler(exchange, self._wiring)
            except Exception as error:  # noqa: BLE001 (the request's outermost edge)
                response = self._failed(exchange, error)
            status = exchange.status or response.status
            if not request.content.is_eof():
                response.force_close()  # the rest of its body would be taken for a request
            return response
        finally:
            exchange.leave()
            self._sum_up(exchange, status)

    def refuse(self, request: BaseRequest, error: BalancerError | None) -> StreamResponse:
        """The answer to what is not HTTP, or where aiohttp found a fault of ours."""
        return error_answer(self._exchange_of(request), error or internal_error())

    @staticmethod
    def in_short(error: BalancerError) -> bytes:
        """The answer to what is no request yet."""
        return raw_answer(error, _new_id())

    def _exchange_of(self, request: BaseRequest) -> Exchange:
        return Exchange(
            request,
            request_id=_new_id(),
            client=self._wiring.clients.client_of(request),
            promises_tls=self._wiring.settings.strict_transport_security,
            error_form=error_answer,
        )

    @staticmethod
    def _failed(exchange: Exchange, error: Exception) -> StreamResponse:
        shown = shown_error(exchange, error)
        if isinstance(shown, ClientDropped):
            exchange.status = CLIENT_LEFT
        form = error_answer if is_wanted(exchange) else exchange.error_form
        return form(exchange, shown)

    async def _admit(self, exchange: Exchange) -> Route:
        """The row for this request, once it may be served."""
        request = exchange.request
        exchange.error_form = self._router.error_form(request.path)
        _check_version(request)
        self._check_headers(request)
        self._check_host(request)
        self._look_at_origin(exchange)
        if exchange.cors and is_preflight(request):
            return self._preflight(exchange)
        route, exchange.places = self._router.match(request.method, request.path)
        exchange.route_path = route.path
        exchange.is_quiet = route.is_quiet
        exchange.is_work = route.limit_class in _WORK
        exchange.deprecation = route.deprecation
        exchange.error_form = route.error_form
        self._check_origin(exchange, route)
        await self._let_in(exchange, route)
        if route.limit_class == "management":
            check_names(request.query, route.query, route.path)
        return route

    async def _let_in(self, exchange: Exchange, route: Route) -> None:
        gate, request = self._wiring.gate, exchange.request
        exchange.gate = gate
        if gate.is_open:
            self._check_directness(exchange)
        try:
            found = gate.identify(
                request, route, address=exchange.address, is_proxied=exchange.is_proxied
            )
            exchange.principal = found if isinstance(found, Principal) else await found
        except Unauthorized as error:
            self._note_refusal("credentials.refused", exchange, route, error)
            raise
        if exchange.principal.id:
            exchange.facts["key"] = exchange.principal.id
        try:
            gate.check_role(exchange.principal, route)
        except Forbidden as error:
            self._note_refusal("access.refused", exchange, route, error)
            raise
        await exchange.enter(gate, route)

    def _check_directness(self, exchange: Exchange) -> None:
        """A proxy on this host makes strangers look like local callers."""
        if exchange.is_proxied and not self._wiring.settings.insecure:
            self._wiring.metrics.refused_at_edge("proxied")
            raise Forbidden(
                "this request came through a proxy, and nobody has to sign in here; start the "
                "balancer with --insecure if everybody behind the proxy may use it"
            )

    def _note_refusal(
        self, action: str, exchange: Exchange, route: Route, error: BalancerError
    ) -> None:
        target = f"{route.method} {route.path}"
        self._wiring.audit.note(
            action, exchange, target=target, outcome="refused", reason=error.code
        )

    def _check_headers(self, request: BaseRequest) -> None:
        limit = self._wiring.settings.max_header_bytes
        size = sum(len(name) + len(value) + 4 for name, value in request.raw_headers)
        if size > limit:
            self._wiring.metrics.refused_at_edge("large_head")
            raise head_too_large(limit)

    def _check_host(self, request: BaseRequest) -> None:
        """Without credentials a page that rebound its name's address would be let in."""
        host = request.headers.get("Host", "")
        if not is_allowed_host(host, self._wiring.settings.allowed_hosts):
            self._wiring.metrics.refused_at_edge("foreign_host")
            raise Forbidden(
                f"the host {host[:200]!r} is not served; call the balancer by its IP address, or "
                "list the name under `allowed_hosts`"
            )

    def _look_at_origin(self, exchange: Exchange) -> None:
        """What is said of the inference API holds for its own errors, too."""
        allowed = self._wiring.settings.cors_origins
        if not (allowed and self._has_inference):
            return
        exchange.varies_by_origin = True
        is_open = self._wiring.gate.is_open
        exchange.cors = cors_headers(exchange.request, allowed, is_open=is_open)

    def _preflight(self, exchange: Exchange) -> Route:
        """Raises `Forbidden` for what operators call. What there is not the request itself will
        be told."""
        request = exchange.request
        method = request.headers["Access-Control-Request-Method"]
        with suppress(RouteNotFound, MethodNotAllowed):
            route, _ = self._router.match(method, request.path)
            self._check_origin(exchange, route)
        exchange.route_path = PREFLIGHT.path
        exchange.is_quiet = True
        return PREFLIGHT

    def _check_origin(self, exchange: Exchange, route: Route) -> None:
        """Pages of other origins may not change state, which opening an agent's socket does; nor
        may they load answers, which cost work and whose success they could see; but for those that
        `cors_origins` lets use the inference API."""
        if "inference" not in route.ports:
            exchange.cors = {}
        if exchange.cors:
            return
        try:
            _check_foreign(exchange, route)
        except Forbidden:
            self._wiring.metrics.refused_at_edge("foreign_origin")
            raise

    def _sum_up(self, exchange: Exchange, status: int) -> None:
        took_s = exchange.elapsed_s
        wiring = self._wiring
        wiring.metrics.request_answered(exchange.route_path, status, took_s)
        if exchange.is_quiet:
            return
        if exchange.is_work:
            is_failure = status >= 500 or (status < 400 and "error" in exchange.facts)
            wiring.metrics.totals.answered(took_s, is_failure=is_failure)
        log.info(
            "request",
            method=exchange.request.method,
            route=exchange.route_path,
            status=status,
            ms=round(took_s * 1000, 3),
            request_id=exchange.id,
            client_request_id=exchange.client_id or None,
            traceparent=exchange.echoed.get("traceparent"),
            **({"address": exchange.address} if status >= _REFUSED else {}),
            **exchange.facts,
        )


def _new_id() -> str:
    return "req_" + secrets.token_hex(16)


def _check_version(request: BaseRequest) -> None:
    """What calls itself HTTP/0.9 or HTTP/2.0 would read the answer in another way."""
    if not cast(ClientConnection, request.protocol).speaks_our_http:
        raise InvalidRequest("this is HTTP of a version that is not spoken here; send HTTP/1.1")


def _check_foreign(exchange: Exchange, route: Route) -> None:
    request = exchange.request
    if is_embedded_elsewhere(request.headers):
        raise Forbidden(
            "a page of another origin asked for this; it may lead here by a link, and nothing else"
        )
    if request.method in _SAFE_METHODS and not route.is_socket:
        return
    origin, host = request.headers.get("Origin"), request.headers.get("Host", "")
    if origin is not None and not is_own_origin(origin, host, is_secure=exchange.is_secure):
        raise Forbidden(
            f"the origin {origin[:200]!r} is foreign here; a page may only call the balancer "
            "that served it, but for the inference API where `cors_origins` lists it"
        )
