"""What stands for somebody beside keys: tokens of others, and names with passwords.

What can be decided at once is, which is every token and password that was right lately. What takes
the network or a thread is handed back as `Pending`: the caller looks first whether its address may
still try, and awaits it.
"""

from __future__ import annotations

import re
import time
from collections.abc import Awaitable, Callable
from functools import partial
from math import inf

import structlog
from msgspec import Struct

from balancer.access import Auth, Introspection
from balancer.errors import IdentityUnavailable, ProviderFailed
from balancer.http.passwords import Passwords
from balancer.http.single_flight import SingleFlight
from balancer.policy.identity.basic import Attempt, PasswordRing
from balancer.policy.identity.introspected import judge
from balancer.policy.identity.jwt import (
    MAX_TOKEN_CHARS,
    JwtVerifier,
    KeysWanted,
    is_like_a_token,
)
from balancer.policy.identity.keyring import Denied
from balancer.policy.identity.known import KnownCredentials
from balancer.policy.identity.principal import Principal
from balancer.policy.identity.published import PublishedKeys
from balancer.settings import Settings
from balancer.signing_keys import SigningKey
from balancer.upstreams.introspection import Introspector
from balancer.upstreams.jwks import KeySource
from balancer.upstreams.provider import ProviderClient

log = structlog.get_logger(__name__)

PASSWORD_KNOWN_S = 300.0
"""A password that was right is not compared again for so long."""
DENIAL_KNOWN_S = 5.0
"""Likewise what was wrong; it counts as another attempt all the same."""
MOST_ASKED = 64
"""Different tokens that are asked about at once, and passwords that are compared; who sends the
same waits for the answer."""
_RETRY_S = 5
_OPAQUE = re.compile(rf"[!-~]{{1,{MAX_TOKEN_CHARS}}}")

Found = Principal | Denied


class Pending(Struct, frozen=True):
    """Who it is has to be asked for. `tag` is the same for the same credentials."""

    tag: str
    ask: Callable[[], Awaitable[Found]]


class Methods:
    """All that are on. `close` it."""

    def __init__(self, *, secret: bytes, wall_clock: Callable[[], float] = time.time) -> None:
        """`secret`: random bytes of this process."""
        self._secret = secret
        self._wall_clock = wall_clock
        self._client = ProviderClient()
        self._source = KeySource(self._client)
        self._introspector = Introspector(self._client)
        self._passwords = Passwords()
        self._flights = SingleFlight(MOST_ASKED)
        self._comparisons = SingleFlight(MOST_ASKED)
        """Apart, as they go on while providers hang."""
        self._published = PublishedKeys()
        self.want_keys: Callable[[str], None] = _nobody_fetches
        """Called with the URL of an issuer whose keys are not known, or not all."""
        self._auth = Auth()
        self._use(self._auth)

    @property
    def waiting(self) -> int:
        """Requests whose credentials are looked up now."""
        return self._flights.waiting + self._comparisons.waiting

    def take(self, settings: Settings) -> bool:
        """From now on these are in force. Whether what was good may not be any more."""
        before, self._auth = self._auth, settings.auth
        if _of_methods(before) == _of_methods(settings.auth):
            return False
        self._use(settings.auth)
        return True

    def of_token(self, token: str, *, unix_s: float) -> Found | Pending:
        """Whom a bearer token stands for that is no key. Raises `IdentityUnavailable` where its
        issuer's keys are not known yet."""
        is_jwt = bool(self._auth.jwt) and is_like_a_token(token)
        provider = self._auth.introspection
        if not is_jwt and provider is None:
            return Denied("unknown")
        if not is_jwt and not _OPAQUE.fullmatch(token):
            return Denied("form", kind="token")
        tag = self._known.tag_of("bearer", token)
        found = self._known.find(tag, unix_s=unix_s)
        if found is not None:
            return found
        if is_jwt or provider is None:
            return self._verified(token, tag, unix_s)
        ask = partial(self._introspected, token, tag, provider, self._known)
        return Pending(tag.hex(), partial(self._asked, self._flights, tag, ask))

    def of_basic(self, given: str, address: str, *, unix_s: float) -> Found | Pending:
        """Whom a name and a password stand for, as they stand behind `Basic`."""
        ring = self._ring
        if ring is None:
            return Denied("unknown", kind="password")
        tag = self._known.tag_of("basic", given)
        found = self._known.find(tag, unix_s=unix_s)
        if found is None:
            attempt = ring.attempt(given)
            if isinstance(attempt, Denied):
                return attempt
            return Pending(tag.hex(), partial(self._checked, ring, tag, attempt, address))
        return ring.check(found, address=address, unix_s=unix_s)

    def ends_s(self, principal: Principal) -> float:
        """When what stands for somebody ends, in unix seconds, as far as that is known."""
        if principal.key_number is not None:
            return inf
        ends_s = self._known.ends_s(principal)
        return ends_s if self._ring is None else min(ends_s, self._ring.ends_s(principal))

    async def fetch_keys(self, url: str) -> tuple[SigningKey, ...]:
        """What an issuer publishes. Raises `ProviderFailed`."""
        return await self._source.fetch(url)

    def take_keys(
        self, url: str, keys: tuple[SigningKey, ...], *, unix_s: float
    ) -> frozenset[str] | None:
        """These are published there now. Where that takes keys away, the ids of those whose tokens
        are known to be by none of these; of what is not known any more nobody can tell."""
        if url not in self._urls:
            return None
        gone = self._published.take(url, keys, unix_s=unix_s)
        log.info("keys fetched", url=url, keys=[key.id for key in keys], gone=len(gone))
        return self._known.drop_signed(gone) if gone else None

    async def close(self) -> None:
        """End threads and connections."""
        self._passwords.close()
        await self._client.close()

    def _use(self, auth: Auth) -> None:
        """What was known is so no more: it could mean something else."""
        self._known = KnownCredentials(self._secret)
        self._urls = {one.jwks_url for one in auth.jwt}
        self._published.keep_those_of(self._urls)
        self._verifier = JwtVerifier(auth.jwt, self._published)
        self._ring = PasswordRing(auth.basic, self._secret) if auth.basic else None

    def _verified(self, token: str, tag: bytes, unix_s: float) -> Found:
        found = self._verifier.verify(token, unix_s=unix_s)
        if isinstance(found, KeysWanted):
            self.want_keys(found.url)
            if found.are_there_any:
                return Denied("key", kind="token")
            raise IdentityUnavailable(
                "the keys of this token's issuer could not be fetched yet; try again",
                retry_after_s=_RETRY_S,
            )
        if isinstance(found, Denied):
            return found
        self._known.keep(
            tag,
            found.principal,
            since_s=unix_s,
            until_s=min(found.ends_s, found.until_s),
            ends_s=found.ends_s,
            signed_by=found.signed_by,
        )
        return found.principal

    async def _asked(
        self, flights: SingleFlight, tag: bytes, ask: Callable[[], Awaitable[Found]]
    ) -> Found:
        """One who asks for the same credentials asks for all."""
        if flights.is_full_for(tag):
            raise IdentityUnavailable(
                "too many credentials are looked up; try again", retry_after_s=1
            )
        known = self._known
        async with flights.turn(tag):
            found = known.find(tag, unix_s=self._wall_clock())
            if found is None:
                found = await ask()
        if self._known is not known:  # whoever was asked may be trusted no more
            raise IdentityUnavailable(
                "who may sign in was changed while this was looked up; try again", retry_after_s=1
            )
        return found

    async def _introspected(
        self, token: str, tag: bytes, provider: Introspection, known: KnownCredentials
    ) -> Found:
        try:
            said = await self._introspector.ask(provider, token)
        except ProviderFailed as error:
            log.warning("token not looked up", url=provider.url, reason=str(error))
            raise IdentityUnavailable(
                "whoever knows this token could not be asked; try again", retry_after_s=_RETRY_S
            ) from error
        unix_s = self._wall_clock()
        judged = judge(said, provider, unix_s=unix_s, denial_s=DENIAL_KNOWN_S)
        known.keep(tag, judged.found, since_s=unix_s, until_s=judged.until_s, ends_s=judged.ends_s)
        return judged.found

    async def _compared(self, attempt: Attempt, tag: bytes, known: KnownCredentials) -> Found:
        fits = await self._passwords.fits(attempt.password, attempt.password_hash)
        found = attempt.found if fits else Denied("unknown", kind="password")
        known_s = DENIAL_KNOWN_S if isinstance(found, Denied) else PASSWORD_KNOWN_S
        unix_s = self._wall_clock()
        known.keep(tag, found, since_s=unix_s, until_s=unix_s + known_s)
        return found

    async def _checked(
        self, ring: PasswordRing, tag: bytes, attempt: Attempt, address: str
    ) -> Found:
        compare = partial(self._compared, attempt, tag, self._known)
        found = await self._asked(self._comparisons, tag, compare)
        return ring.check(found, address=address, unix_s=self._wall_clock())


def _of_methods(auth: Auth) -> tuple[object, ...]:
    """What the settings say of them."""
    return auth.jwt, auth.basic, auth.introspection


def _nobody_fetches(url: str) -> None:
    """Until somebody is wired up."""
