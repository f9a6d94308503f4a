"""One HTTP request on its way through the balancer, and what every handler is given besides."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

from aiohttp.web import BaseRequest, StreamResponse
from msgspec import Struct

from balancer.access import SignIn
from balancer.cluster.bus import Entry
from balancer.config_file.configuration import Configuration
from balancer.dispatch.asking import Asker
from balancer.dispatch.dispatcher import Dispatcher
from balancer.dispatch.embedding import EmbeddingDispatcher
from balancer.dispatch.isolation import Isolation
from balancer.errors import BalancerError
from balancer.fleet.roster import Roster
from balancer.http.client_address import Client, ClientAddresses
from balancer.http.deprecation import Deprecation
from balancer.http.gate import Gate
from balancer.http.management.live.live import Live
from balancer.http.prompt_counter import PromptCounter
from balancer.http.replay import Replays
from balancer.http.told_limits import limit_headers
from balancer.observability.audit import Audit
from balancer.observability.metrics import Metrics
from balancer.observability.samples import Samples
from balancer.policy.identity.principal import Principal
from balancer.settings import Settings
from balancer.storage.keys_in_force import KeysInForce
from balancer.storage.responses import ResponseStore
from balancer.upstreams.image_source import ImageSource

if TYPE_CHECKING:
    from balancer.http.router import Route

Port = Literal["inference", "management"]
ErrorForm = Callable[["Exchange", BalancerError], StreamResponse]

_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")
_PROMISE = {"Strict-Transport-Security": "max-age=31536000"}
"""A year (RFC 6797); browsers heed it where it came by TLS alone."""
_ECHOED = ("X-Correlation-Id", "traceparent")


class Wiring(Struct, frozen=True, kw_only=True):
    """The collaborators of all handlers; `app` alone builds it."""

    configuration: Configuration
    gate: Gate
    clients: ClientAddresses
    keys: KeysInForce
    isolation: Isolation
    dispatcher: Dispatcher
    embedding: EmbeddingDispatcher
    asker: Asker
    prompt_counter: PromptCounter
    roster: Roster
    metrics: Metrics
    audit: Audit
    samples: Samples
    replays: Replays
    responses: ResponseStore
    images: ImageSource
    is_draining: Callable[[], bool]
    started: int
    """Unix seconds."""
    documents: Mapping[Port, bytes]
    """Each port's OpenAPI document."""
    live: Live
    calls: Mapping[str, Route]
    """The routes that may be called over a live socket, by the names of their calls."""

    @property
    def settings(self) -> Settings:
        """Those in force now; a request keeps what it began with."""
        return self.configuration.live.current


class Exchange:
    """A request with its ids, its caller and the facts for its one line in the log.

    `id` is ours and unguessable; a client's own `X-Request-Id` is only given back. `status` is set
    by whoever writes an answer behind aiohttp's back.
    """

    route: Route
    """By which it was let in; there once `gate` is."""

    __slots__ = (
        "_holders",
        "_promised",
        "address",
        "client_id",
        "cors",
        "created",
        "deprecation",
        "echoed",
        "entry",
        "error_form",
        "facts",
        "gate",
        "id",
        "is_proxied",
        "is_quiet",
        "is_secure",
        "is_work",
        "places",
        "principal",
        "request",
        "route",
        "route_path",
        "shown_by",
        "started_s",
        "status",
        "varies_by_origin",
    )

    def __init__(
        self,
        request: BaseRequest,
        *,
        request_id: str,
        client: Client,
        promises_tls: bool,
        error_form: ErrorForm,
    ) -> None:
        """`promises_tls`: whether browsers that came by TLS shall never come without it."""
        self.request = request
        self._promised = _PROMISE if promises_tls else {}
        self.error_form = error_form
        """How an error looks: as the route's family of APIs has it, once the route is known."""
        self.id = request_id
        self.address = client.address
        """The client's, which trusted proxies tell."""
        self.is_secure = client.is_secure
        """Whether the client used TLS."""
        self.cors: Mapping[str, str] = {}
        """For the page of another origin that asked; empty: there is none, or it may not."""
        self.varies_by_origin = False
        """Whether other pages may be told otherwise."""
        self.principal = Principal(tenant=client.address, role="public")
        """Somebody of the public, until it is known who calls."""
        self.shown_by: SignIn | None = None
        """By what it is known who calls, where that is not in the request's headers."""
        self.gate: Gate | None = None
        self.entry: Entry | None = None
        """Its place in the account of limits; None: nothing limits it."""
        self._holders = 1
        """Who leaves before its place is free."""
        self.is_proxied = client.is_proxied
        """Whether it came through a proxy that says so."""
        self.started_s = time.monotonic()
        self.created = int(time.time())
        self.route_path = "unmatched"
        self.places: dict[str, str] = {}
        """What stands at the `{name}`s of the route's path."""
        self.is_quiet = False
        self.deprecation: Deprecation | None = None
        """Of its route."""
        self.is_work = False
        """Whether a model or an agent has to work for the answer."""
        self.status = 0
        self.facts: dict[str, Any] = {}
        self.client_id = _sane(request.headers.get("X-Request-Id", ""))
        self.echoed = {
            name: value
            for name in _ECHOED
            if _SANE_ID.fullmatch(value := request.headers.get(name, ""))
        }
        """What else of the client's goes back to it."""

    @property
    def signed_in_by(self) -> SignIn:
        """By what it is known who calls."""
        if self.shown_by is not None or self.gate is None:
            return self.shown_by or "none"
        return self.gate.how(self.request, self.principal)

    @property
    def elapsed_s(self) -> float:
        """Since the request's headers were read."""
        return time.monotonic() - self.started_s

    def headers(self) -> dict[str, str]:
        """What every answer to this request carries: the ids, and whether its route will go."""
        headers = {
            **self._promised,
            "X-Request-Id": self.client_id or self.id,
            "X-Paddler-Request-Id": self.id,
            **self.echoed,
            **self.cors,
        }
        if self.varies_by_origin:
            headers["Vary"] = "Origin"
        if self.entry is not None and self.gate is not None:
            headers |= limit_headers(self.entry, self.gate.moment())
        return headers if self.deprecation is None else headers | self.deprecation.headers()

    def vary(self, *names: str) -> str:
        """The request's headers by which an answer's body is chosen, and whether it may be read."""
        return ", ".join((*names, "Origin") if self.varies_by_origin else names)

    async def enter(self, gate: Gate, route: Route) -> None:
        """Be counted. Raises `LimitExceeded`."""
        self.gate, self.route = gate, route
        self.entry = await gate.enter(self.principal, route, self.address)

    def stay(self) -> None:
        """What it asked for goes on without its client: it keeps its place until that has left,
        too."""
        self._holders += 1

    @contextmanager
    def staying_let_in(self) -> Iterator[None]:
        """Raises `Unauthorized` or `Forbidden` at the end if it would not be let in any more."""
        if self.gate is None:
            yield
            return
        with self.gate.staying_let_in(self, self.route):
            yield

    def leave(self) -> None:
        """The last one who leaves frees its place."""
        self._holders -= 1
        if not self._holders and self.entry is not None and self.gate is not None:
            self.entry.leave(self.gate.moment())

    def wants(self, flag: str) -> bool:
        """Whether the query says `flag=true`."""
        return self.request.query.get(flag, "").lower() in {"1", "true", "yes"}


def _sane(given: str) -> str:
    """An id that may go back and into the log; empty: it may not."""
    return given if _SANE_ID.fullmatch(given) else ""
