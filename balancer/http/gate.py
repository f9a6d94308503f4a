"""Who calls, and whether it may come in now: what every request passes before its handler.

Keys, roles and limits are decided by `policy`; here are the headers that credentials stand in, and
the errors and headers that tell of it.
"""

from __future__ import annotations

import secrets
import time
from asyncio import CancelledError
from collections import Counter, OrderedDict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from math import inf
from typing import TYPE_CHECKING, Any

import structlog
from aiohttp.web import BaseRequest
from msgspec import structs

from balancer.access import Limits, Role, RouteClass, SignIn
from balancer.cluster.bus import Bus, Entry
from balancer.errors import Forbidden, LimitExceeded, Unauthorized
from balancer.http.denials import unauthorized
from balancer.http.lasting import LastingConnections, Ticket
from balancer.http.methods import Found, Methods, Pending
from balancer.http.told_limits import refused
from balancer.observability.scraped import LimitFigures
from balancer.policy.identity.key_text import BEGINNING as KEY_BEGINNING
from balancer.policy.identity.keyring import Denied, KeyRing
from balancer.policy.identity.known_keys import KnownKeys
from balancer.policy.identity.principal import Principal, has_role, open_mode_principal
from balancer.policy.identity.sessions import Session, Sessions
from balancer.policy.limits.amounts import Bound, Moment, Refusal
from balancer.policy.limits.bounds import bounds_of, subject_of_address
from balancer.policy.limits.ledger import Ledger
from balancer.settings import LiveSettings, Settings, is_loopback
from balancer.signing_keys import SigningKey

if TYPE_CHECKING:
    from balancer.http.exchange import Exchange
    from balancer.http.router import Route

log = structlog.get_logger(__name__)

SESSION_COOKIE = "paddler_session"
CSRF_HEADER = "X-CSRF-Token"
_SAFE_METHODS = frozenset({"GET", "HEAD"})
FAILURES = Limits(requests_per_minute=60)
"""Wrong credentials that one address may send; past it no new ones of it come in."""
_REMEMBERED = 10_000
_UNKNOWN = Denied("unknown")


class Gate:
    """Knows the keys in force and the account of everybody's requests."""

    def __init__(
        self,
        live: LiveSettings,
        *,
        secret: bytes,
        bus: Bus,
        methods: Methods | None = None,
        now: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """`secret`: as `KeyRing` has it; `bus` keeps what everybody has had; `methods`:
        what stands for somebody beside keys."""
        self.methods = methods or Methods(secret=secret)
        self._now = now
        self._wall_clock = wall_clock
        self._bus = bus
        self._failures = Ledger()
        """Wrong credentials by address: of this balancer alone, as a look at them must not wait."""
        self._refusals: Counter[str] = Counter()
        self._seen_well: OrderedDict[tuple[str, str], None] = OrderedDict()
        """Credentials and addresses that have been right: they stay so while somebody at the same
        address tries wrong ones."""
        self._bounds: OrderedDict[tuple[Any, RouteClass, bool, str], tuple[Bound, ...]]
        self.sessions = Sessions()
        self.keys = KnownKeys(secret)
        self.lasting = LastingConnections(
            keys=self.keys,
            sessions=self.sessions,
            is_open=lambda: self.is_open,
            wall_clock=wall_clock,
        )
        self._take(live.current)
        live.listen(self._take)

    def _take(self, settings: Settings) -> None:
        self._settings = settings
        self.keys.configure(settings.auth.known_keys)
        self._change_keys(others_too=self.methods.take(settings))

    def take_stored(self, ring: KeyRing, *, has_keys: bool) -> None:
        """From now on these are the keys of the store, which `has_keys`, if only ended ones."""
        self.keys.store(ring, has_keys=has_keys)
        self._change_keys()

    def take_keys(self, url: str, keys: tuple[SigningKey, ...]) -> None:
        """An issuer publishes these now: what others have signed opens nothing any more."""
        good = self.methods.take_keys(url, keys, unix_s=self._wall_clock())
        if good is not None:
            self.sessions.keep(lambda one: one.signed_in_by != "jwt" or one.id in good)
            self.lasting.keep(lambda one: one.signed_in_by != "jwt" or one.id in good)

    def _change_keys(self, *, others_too: bool = False) -> None:
        """`others_too`: what was let in otherwise than by a key may not be any more, either."""
        self._bounds = OrderedDict()
        self.sessions.keep(
            lambda one: not others_too if one.key_number is None else self.keys.has(one)
        )
        self.sessions.shorten(self.keys.ends_s)
        if others_too:
            self.lasting.keep(lambda one: not one.id or one.key_number is not None)

    @property
    def is_open(self) -> bool:
        """Whether nobody has to sign in. Once there was a stored key it never is: not when the last
        one has ended, nor when its file is gone."""
        return self._settings.auth.is_open and not self.keys.has_had_stored

    def moment(self) -> Moment:
        """Now, of both clocks."""
        return Moment(self._now(), self._wall_clock())

    def identify(
        self, request: BaseRequest, route: Route, *, address: str, is_proxied: bool
    ) -> Principal | Awaitable[Principal]:
        """Who calls; to be awaited where others have to be asked. Raises `Unauthorized` for
        credentials that are wrong, `LimitExceeded` where an address has sent too many of them,
        `Forbidden` for a change by a cookie that does not come from its own page. Without any it
        is somebody of the public. What is awaited raises the same, and `NoCapacity` where they
        cannot be asked now."""
        if self.is_open:
            if is_loopback(address) and not is_proxied:
                return open_mode_principal(address)
            return Principal(tenant=address, role="public")
        scheme, value = self._given_by(request)
        if scheme == "bearer":
            return self.principal_of(value, address)
        if scheme == "basic":
            found = self.methods.of_basic(value, address, unix_s=self._wall_clock())
            return self._settled(found, address)
        cookie = request.cookies.get(SESSION_COOKIE) if route.takes_session else None
        if cookie is None:
            return Principal(tenant=address, role="public")
        return self._principal_of_session(cookie, request, address)

    def principal_of(self, value: str, address: str) -> Principal | Awaitable[Principal]:
        """Whom a key or a token stands for: the first method that knows it decides. To be awaited
        and raises as `identify` says. What looks like a key that is made here is told to nobody
        else."""
        unix_s = self._wall_clock()
        found: Found | Pending = self.keys.find(value, address=address, unix_s=unix_s)
        if found == _UNKNOWN and not value.startswith(KEY_BEGINNING):
            found = self.methods.of_token(value, unix_s=unix_s)
        return self._settled(found, address)

    def _settled(self, found: Found | Pending, address: str) -> Principal | Awaitable[Principal]:
        if isinstance(found, Pending):
            return self._asked_for(found, address)
        if isinstance(found, Denied):
            raise self._denied(found, address, self.moment())
        self._let_by(found.id, address)
        return found

    async def _asked_for(self, pending: Pending, address: str) -> Principal:
        """What was right from there may be asked for again; others only while few were wrong, as
        asking costs us and others much."""
        is_new = (pending.tag, address) not in self._seen_well
        if is_new:
            self._check_failures(address, self.moment())
        try:
            found = await pending.ask()
        except CancelledError:  # whoever leaves before the answer has had others work, too
            if is_new:
                with suppress(LimitExceeded):
                    self._check_failures(address, self.moment(), counts=True)
            raise
        if isinstance(found, Denied):
            raise self._denied(found, address, self.moment())
        self._remember(pending.tag, address)
        self._remember(found.id, address)
        return found

    def _let_by(self, name: str, address: str) -> None:
        """Raises `LimitExceeded` for what was not seen from there, where too many were wrong."""
        if (name, address) not in self._seen_well:
            self._check_failures(address, self.moment())
            self._remember(name, address)

    def lasting_for(
        self, exchange: Exchange, close: Callable[[str], None]
    ) -> AbstractContextManager[Callable[[], None]]:
        """While this is open, a connection that goes on after its request was let in is closed
        with a reason once what let it in is over."""
        return self.lasting.held(self._ticket_of(exchange, self._ends_s(exchange.principal)), close)

    @contextmanager
    def staying_let_in(self, exchange: Exchange, route: Route) -> Iterator[None]:
        """Raises as `check_role` at the end, and `Unauthorized` where what a request signed in
        with was taken away meanwhile. A token that ends meanwhile is not looked at again."""
        if exchange.signed_in_by != "none":
            ended: list[str] = []
            with self.lasting.held(self._ticket_of(exchange, inf), ended.append) as look:
                yield
                look()
            if ended:
                raise Unauthorized(f"{ended[0]}, while the request came", code="invalid_api_key")
        else:
            yield
        self.check_role(exchange.principal, route)

    def _ticket_of(self, exchange: Exchange, ends_s: float) -> Ticket:
        is_by_session = exchange.signed_in_by == "session"
        return Ticket(
            principal=exchange.principal,
            address=exchange.address,
            cookie=exchange.request.cookies.get(SESSION_COOKIE) if is_by_session else None,
            ends_s=ends_s,
        )

    def _ends_s(self, principal: Principal) -> float:
        """When what stands for it ends, in unix seconds."""
        return min(self.keys.ends_s(principal), self.methods.ends_s(principal))

    def open_session(self, principal: Principal) -> tuple[str, Session]:
        """A cookie that stands for a key from now on, and its session."""
        cookie, unix_s = secrets.token_urlsafe(32), self._wall_clock()
        session = self.sessions.open(
            cookie,
            secrets.token_urlsafe(32),
            principal,
            unix_s=unix_s,
            ends_s=self._ends_s(principal),
        )
        return cookie, session

    def session_of(self, request: BaseRequest, address: str) -> Session | None:
        """The session that a request's cookie stands for."""
        cookie = request.cookies.get(SESSION_COOKIE)
        return None if cookie is None else self._session(cookie, address)

    def _session(self, cookie: str, address: str) -> Session | None:
        """None also where its key may not be used from there: nor may what stands for it."""
        session = self.sessions.find(cookie, unix_s=self._wall_clock())
        if session is None or not self.keys.may_come_from(session.principal, address):
            return None
        return session

    def _principal_of_session(self, cookie: str, request: BaseRequest, address: str) -> Principal:
        session = self._session(cookie, address)
        if session is None:  # of no use, and no attempt at anything
            return Principal(tenant=address, role="public")
        if request.method not in _SAFE_METHODS and not session.knows(
            request.headers.get(CSRF_HEADER, "")
        ):
            raise Forbidden(
                f"a change by a cookie needs its page's token in {CSRF_HEADER}; GET /session has "
                "it",
                details={"header": CSRF_HEADER},
            )
        return session.principal

    def how(self, request: BaseRequest, principal: Principal) -> SignIn:
        """By what a request showed that it is from whom it is."""
        is_by_cookie = bool(principal.id) and not self._given_by(request)[0]
        return "session" if is_by_cookie else principal.signed_in_by

    async def enter(self, principal: Principal, route: Route, address: str) -> Entry | None:
        """Count a request, or raise `LimitExceeded`. None: nothing limits it."""
        bounds = self._bounds_of(principal, route, address)
        if not bounds:
            return None
        at = self.moment()
        entry = await self._bus.enter(bounds, at)
        if isinstance(entry, Refusal):
            raise self.refused(entry, at)
        return entry

    def refused(self, refusal: Refusal, at: Moment, *, limit: str = "") -> LimitExceeded:
        """What a client is told of it. Counted as `limit`, else as what it would pass."""
        self._refusals[limit or refusal.excess] += 1
        return refused(refusal, at)

    def figures(self) -> LimitFigures:
        """What is held for everybody's limits now."""
        found = self._bus.figures()
        tables = {**found.tables, "failures": len(self._failures), "bounds": len(self._bounds)}
        return structs.replace(found, tables=tables, refusals=self._refusals)

    def check_role(self, principal: Principal, route: Route) -> None:
        """Raises `Unauthorized` where somebody has to sign in, else `Forbidden`."""
        needed = route.role_needed(is_open=self.is_open)
        self.require(principal, needed, route.path, of=route.limit_class)

    def require(self, principal: Principal, needed: Role, what: str, *, of: RouteClass) -> None:
        """Raises as `check_role`; `of`: the class of routes that it belongs to."""
        if has_role(principal, needed):
            if principal.classes and of not in principal.classes:
                raise Forbidden(
                    f"this key may not call {what}; it may call routes for "
                    f"{', '.join(principal.classes)}"
                )
            return
        if self.is_open:
            raise Forbidden(
                f"{what} needs the role {needed}; without credentials only callers on the "
                "balancer's own host have it"
            )
        if not principal.id:
            raise Unauthorized(
                f"{what} needs credentials; send an API key as `Authorization: Bearer KEY`",
                code="missing_credentials",
            )
        raise Forbidden(f"{what} needs the role {needed}, and this key has {principal.role}")

    def _given_by(self, request: BaseRequest) -> tuple[str, str]:
        """How a request signs in, and with what; the first place that has anything decides. Keys
        and tokens are `bearer`, wherever they stand; empty: not at all."""
        auth = self._settings.auth
        for given in request.headers.getall("Authorization", ()):
            scheme, _, value = given.partition(" ")
            if (name := scheme.lower()) == "bearer" or (name == "basic" and auth.basic):
                return name, value.strip()
        key = request.headers.get(auth.api_key_header)
        return ("", "") if key is None else ("bearer", key)

    def _denied(self, denied: Denied, address: str, at: Moment) -> Exception:
        """Counts it."""
        log.warning(
            "credentials refused",
            reason=denied.fault,
            kind=denied.kind,
            key=denied.id,
            address=address,
            **({"claim": denied.claim} if denied.claim else {}),
        )
        self._check_failures(address, at, counts=True)
        return unauthorized(denied)

    def _check_failures(self, address: str, at: Moment, *, counts: bool = False) -> None:
        """Raises `LimitExceeded` where too many came."""
        bound = Bound(f"failures of {subject_of_address(address)}", FAILURES)
        failures = self._failures
        refusal = failures.count(bound, at) if counts else failures.would_refuse(bound, at)
        if refusal is not None:
            raise self.refused(refusal, at, limit="failures")

    def _remember(self, key_id: str, address: str) -> None:
        self._seen_well[key_id, address] = None
        if len(self._seen_well) > _REMEMBERED:
            self._seen_well.popitem(last=False)

    def _bounds_of(self, principal: Principal, route: Route, address: str) -> tuple[Bound, ...]:
        if principal.is_unlimited:
            return ()
        is_for_all = route.min_role == "public"
        who = principal.id, principal.role, principal.tier  # a token may say other than another
        sought = who, route.limit_class, is_for_all, address
        bounds = self._bounds.get(sought)
        if bounds is None:
            bounds = bounds_of(
                principal,
                route.limit_class,
                address,
                self._settings.limits,
                is_for_all=is_for_all,
            )
            self._bounds[sought] = bounds
            if len(self._bounds) > _REMEMBERED:
                self._bounds.popitem(last=False)
        return bounds
