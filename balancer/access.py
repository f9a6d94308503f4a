"""Who may do what and how much of it, as settings say it: roles, tiers, credentials, limits.

Data and its defaults. Deciding by it is `balancer.policy`'s, reading it `balancer.config_file`'s.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping
from typing import Literal

from msgspec import Struct, field, structs

from balancer.secret import Secret

Role = Literal["public", "user", "admin", "system"]
Tier = Literal["free", "basic", "pro", "enterprise"]
SignIn = Literal["none", "open", "key", "session", "jwt", "token", "basic"]
"""How somebody showed who it is; `open`: nobody has to; `token`: one that its issuer was asked
about."""
RouteClass = Literal[
    "chat",
    "completions",
    "embeddings",
    "tokens",
    "models",
    "health",
    "metrics",
    "pages",
    "management",
    "agents",
]
"""Routes that are limited alike."""

SigningAlgorithm = Literal["HS256", "RS256", "ES256", "EdDSA"]
CacheIsolation = Literal["auto", "tenant", "off"]
"""Whether one tenant may use what agents have cached of another's prompts."""

DEFAULT_KEY_HEADER = "X-API-Key"
OWN_TENANTS = ("key:", "jwt:", "token:", "basic:")
"""How tenants begin that a credential has for itself; no token may name one of those."""


class Limits(Struct, frozen=True, kw_only=True, gc=False):
    """What one subject may have; None: as much as it likes."""

    requests_per_minute: int | None = None
    burst: int | None = None
    """Requests that may arrive in any one second."""
    tokens_per_minute: int | None = None
    concurrent: int | None = None
    requests_per_day: int | None = None
    """Days are UTC's."""
    tokens_per_day: int | None = None

    @property
    def is_none(self) -> bool:
        """Whether nothing is limited."""
        return self == NO_LIMITS

    @property
    def has_day(self) -> bool:
        """Whether a day's sums are."""
        return self.requests_per_day is not None or self.tokens_per_day is not None

    def over(self, other: Limits) -> Limits:
        """These, and where they say nothing the other's."""
        return Limits(
            **{
                name: theirs if mine is None else mine
                for (name, mine), theirs in zip(
                    structs.asdict(self).items(), structs.astuple(other), strict=True
                )
            }
        )


NO_LIMITS = Limits()


class Allowance(Struct, frozen=True, kw_only=True, gc=False):
    """What a role, a tier or a key may have: in all, and of single classes of routes."""

    limits: Limits = NO_LIMITS
    classes: Mapping[RouteClass, Limits] = {}


NO_ALLOWANCE = Allowance()


class Credential(Struct, frozen=True, kw_only=True, gc=False):
    """What a key stands for. The key itself is nowhere, only its `digest`."""

    digest: bytes
    """SHA-256 of the key; of one that is stored, under the secret of its store."""
    id: str
    """How the log and `/keys` name it."""
    is_named: bool = True
    """Whether its owner gave it its name; else that is its place in a list, which another key may
    have tomorrow."""
    number: int = 0
    """Which of the keys of that id."""
    role: Role = "user"
    tier: Tier | None = None
    tenant: str = ""
    """Whose it is; empty: its own."""
    models: tuple[str, ...] = ()
    """That it may use; none: all."""
    classes: tuple[RouteClass, ...] = ()
    """Of the routes that it may call; none: all that its role may."""
    networks: tuple[str, ...] = ()
    """Where it may come from, as CIDR; none: from anywhere."""
    agents: tuple[str, ...] = ()
    """Names of the agents that may join with it, with `*` and `?` in them; none: any."""
    labels: tuple[tuple[str, str], ...] = ()
    """That these must have."""
    allowance: Allowance = NO_ALLOWANCE
    expires_s: float | None = None
    """Unix seconds."""


def digest_of(key: str) -> bytes:
    """By which a key is known once it has been read."""
    return hashlib.sha256(_bytes_of(key)).digest()


def keyed_digest_of(key: str, pepper: bytes) -> bytes:
    """By which a stored key is known: nobody finds keys by their digests without the pepper."""
    return hmac.digest(pepper, _bytes_of(key), hashlib.sha256)


def _bytes_of(key: str) -> bytes:
    """Also of what is no text: a header may have any bytes."""
    return key.encode("utf-8", "surrogatepass")


class ClaimRules(Struct, frozen=True, kw_only=True):
    """Which claims of a token say whom it stands for. Dots lead into objects, as in
    `realm_access.roles`; empty: no claim does."""

    subject: str = "sub"
    role: str = ""
    tier: str = ""
    tenant: str = ""
    models: str = ""
    roles: Mapping[str, Role] = {}
    """What the claim's values mean; none: roles by their own names."""
    tiers: Mapping[str, Tier] = {}
    refuses_without_role: bool = False
    """Else whose token says nothing of a role is a `user`."""
    default_tier: Tier | None = None
    default_tenant: str = ""
    """Of those of whom no claim says one; empty: everybody is their own."""


class JwtIssuer(Struct, frozen=True, kw_only=True):
    """Who signs tokens that are taken here: by exactly one of a secret, a public key, and keys
    that are published."""

    algorithms: tuple[SigningAlgorithm, ...]
    secret: Secret = Secret("")
    public_key: str = ""
    """PEM."""
    jwks_url: str = ""
    issuer: str = ""
    """What `iss` has to be; empty: anything."""
    audience: tuple[str, ...] = ()
    """Of which `aud` has to name one; none: there must be no `aud`."""
    leeway_s: float = 30.0
    """By how much clocks may differ."""
    refresh_s: float = 600.0
    """How often published keys are looked at."""
    keep_s: float = 86_400.0
    """Published keys are good for so long while nobody can look at them."""
    claims: ClaimRules = ClaimRules()


class Introspection(Struct, frozen=True, kw_only=True):
    """Who is asked about tokens that say nothing themselves (RFC 7662)."""

    url: str
    client_id: str
    client_secret: Secret
    issuer: str = ""
    audience: tuple[str, ...] = ()
    """Of which `aud` has to name one; none: nobody looks at it."""
    timeout_s: float = 5.0
    keep_s: float = 30.0
    """An answer is good for so long, and no longer than its token."""
    claims: ClaimRules = ClaimRules()


class PasswordHolder(Struct, frozen=True, kw_only=True):
    """Who signs in with a name and a password."""

    name: str
    password_hash: Secret
    """By Argon2id, in its own notation."""
    credential: Credential
    """What it stands for; its digest is the hash's."""


class Auth(Struct, frozen=True, kw_only=True):
    """Who has to sign in, and how."""

    api_keys: tuple[Credential, ...] = ()
    api_key_header: str = DEFAULT_KEY_HEADER
    """Where a key may stand beside `Authorization: Bearer`."""
    jwt: tuple[JwtIssuer, ...] = ()
    basic: tuple[PasswordHolder, ...] = ()
    introspection: Introspection | None = None
    metrics_token: Credential | None = None
    """What may read metrics, and nothing else. It alone ends no openness: there everybody may."""

    @property
    def known_keys(self) -> tuple[Credential, ...]:
        """Every credential that is a text which its owner sends."""
        return (*self.api_keys, *(() if self.metrics_token is None else (self.metrics_token,)))

    @property
    def is_open(self) -> bool:
        """Whether nobody has to."""
        return not (self.api_keys or self.jwt or self.basic or self.introspection)


def _a_minute(requests: int, burst: int | None = None) -> Limits:
    return Limits(requests_per_minute=requests, burst=burst)


def _of_roles() -> dict[Role, Allowance]:
    return {
        "public": Allowance(limits=_a_minute(60)),
        "user": Allowance(limits=_a_minute(300)),
        "admin": Allowance(limits=_a_minute(1000)),
        "system": Allowance(limits=_a_minute(10_000)),
    }


def _of_tiers() -> dict[Tier, Allowance]:
    return {
        "free": Allowance(limits=Limits(requests_per_day=1000)),
        "basic": Allowance(limits=Limits(requests_per_day=10_000)),
        "pro": Allowance(limits=Limits(requests_per_day=100_000)),
        "enterprise": NO_ALLOWANCE,
    }


def _of_classes() -> dict[RouteClass, Limits]:
    return {
        "chat": _a_minute(100, 10),
        "completions": _a_minute(100, 10),
        "embeddings": _a_minute(120, 20),
        "models": _a_minute(60),
        "health": _a_minute(600, 100),
        "metrics": _a_minute(30),
        "pages": _a_minute(3000, 500),
    }


class LimitTable(Struct, frozen=True, kw_only=True):
    """What everybody may have for whom nothing narrower is said."""

    roles: Mapping[Role, Allowance] = field(default_factory=_of_roles)
    tiers: Mapping[Tier, Allowance] = field(default_factory=_of_tiers)
    classes: Mapping[RouteClass, Limits] = field(default_factory=_of_classes)
    """For whomever key, tier and role say nothing about that class."""
    address: Limits = NO_LIMITS
    """Of one client address, whoever calls from there."""
