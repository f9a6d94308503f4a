"""`auth.jwt` and `auth.introspection` of the file: whose tokens are taken, and how they are
checked."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from balancer.access import Introspection, JwtIssuer, SigningAlgorithm
from balancer.config_file.claims_section import (
    TokenFacts,
    allowed_of,
    audience_of,
    claim_rules,
    provider_url,
    seconds_between,
    shown_claims,
)
from balancer.config_file.secret_texts import SecretReader, Unread, secret_text
from balancer.config_file.sections import SectionFault, listed, shaped, within
from balancer.secret import Secret
from balancer.signing_keys import key_of_pem, key_of_secret

MOST_ISSUERS = 8
_DAY_S = 86_400.0
_PUBLISHED: tuple[SigningAlgorithm, ...] = ("RS256", "ES256", "EdDSA")
_SOURCES = ("secret", "public_key", "jwks_url")


class _Jwt(TokenFacts, kw_only=True, forbid_unknown_fields=True):
    algorithms: tuple[SigningAlgorithm, ...] = ()
    secret: Any = None
    public_key: Any = None
    jwks_url: str | None = None
    leeway_s: float = 30.0
    refresh_s: float = 600.0
    keep_s: float = _DAY_S


class _Introspection(TokenFacts, kw_only=True, forbid_unknown_fields=True):
    url: str
    client_id: str
    client_secret: Any
    timeout_s: float = 5.0
    keep_s: float = 30.0


def issuers(raw: Any, read: SecretReader) -> tuple[JwtIssuer, ...]:
    """One, or a list of them. Raises `SectionFault`; no message holds a secret."""
    if isinstance(raw, Mapping):
        return (_issuer(raw, read),)
    if not isinstance(raw, list) or not 0 < len(raw) <= MOST_ISSUERS:
        remedy = f"write a section, or a list of up to {MOST_ISSUERS}"
        raise SectionFault((), "this is no issuer of tokens", remedy)
    found = []
    for index, one in enumerate(raw):
        with within(index):
            found.append(_issuer(one, read))
    _check_can_be_told_apart(found)
    return tuple(found)


def introspection(raw: Any, read: SecretReader) -> Introspection:
    """Raises `SectionFault`; no message holds a secret."""
    given = shaped(raw, _Introspection, allowed_of(_Introspection))
    with within("url"):
        url = provider_url(given.url)
    with within("client_secret"):
        secret = secret_text(given.client_secret, read)
        if not secret:
            raise SectionFault((), "it is empty", "write what the provider gave with client_id")
    if not given.client_id:
        raise SectionFault(("client_id",), "it is empty", "write how the provider calls you")
    return Introspection(
        url=url,
        client_id=given.client_id,
        client_secret=Secret(str(secret)),
        issuer=given.issuer,
        audience=audience_of(given),
        timeout_s=seconds_between(given.timeout_s, 0.1, 60, "timeout_s"),
        keep_s=seconds_between(given.keep_s, 0, 3600, "keep_s"),
        claims=claim_rules(given),
    )


def shown_issuer(one: JwtIssuer) -> dict[str, Any]:
    """What may be shown of it."""
    shown: dict[str, Any] = {"algorithms": list(one.algorithms)}
    for name, value in (
        ("secret", "***" if one.secret else ""),
        ("public_key", one.public_key),
        ("jwks_url", one.jwks_url),
        ("issuer", one.issuer),
        ("audience", list(one.audience)),
    ):
        if value:
            shown[name] = value
    shown["leeway_s"] = one.leeway_s
    if one.jwks_url:
        shown |= {"refresh_s": one.refresh_s, "keep_s": one.keep_s}
    return shown | shown_claims(one.claims)


def shown_introspection(one: Introspection) -> dict[str, Any]:
    """What may be shown of it."""
    shown = {
        "url": one.url,
        "client_id": one.client_id,
        "client_secret": "***",
        "timeout_s": one.timeout_s,
        "keep_s": one.keep_s,
    }
    if one.issuer:
        shown["issuer"] = one.issuer
    if one.audience:
        shown["audience"] = list(one.audience)
    return shown | shown_claims(one.claims)


def _issuer(raw: Any, read: SecretReader) -> JwtIssuer:
    algorithms = listed(SigningAlgorithm)
    given = shaped(raw, _Jwt, f"{allowed_of(_Jwt)}; algorithms are a list of {algorithms}")
    sources = [name for name in _SOURCES if getattr(given, name) is not None]
    if len(sources) != 1:
        problem = f"there are {len(sources)} of {', '.join(_SOURCES)}"
        raise SectionFault((), problem, "write the one that its tokens are checked with")
    possible: tuple[SigningAlgorithm, ...] = _PUBLISHED
    secret, public_key, url = "", "", ""
    with within(sources[0]):
        if sources[0] == "secret":
            secret, possible = _checked_secret(secret_text(given.secret, read)), ("HS256",)
        elif sources[0] == "public_key":
            public_key, possible = _checked_public_key(secret_text(given.public_key, read))
        else:
            url = provider_url(given.jwks_url or "")
    audience = audience_of(given)
    if url and not (given.issuer and audience):
        problem = "who publishes keys signs tokens for others, too"
        remedy = "write issuer and audience, as they stand in tokens for this balancer"
        raise SectionFault((), problem, remedy)
    return JwtIssuer(
        algorithms=_algorithms(given.algorithms, possible),
        secret=Secret(secret),
        public_key=public_key,
        jwks_url=url,
        issuer=given.issuer,
        audience=audience,
        leeway_s=seconds_between(given.leeway_s, 0, 600, "leeway_s"),
        refresh_s=seconds_between(given.refresh_s, 10, _DAY_S, "refresh_s"),
        keep_s=seconds_between(given.keep_s, given.refresh_s, 30 * _DAY_S, "keep_s"),
        claims=claim_rules(given),
    )


def _checked_secret(text: str) -> str:
    if not isinstance(text, Unread):
        try:
            key_of_secret(text)
        except ValueError as error:
            remedy = "write 32 random bytes or more, as `openssl rand -base64 32` makes them"
            raise SectionFault((), str(error), remedy) from error
    return str(text)


def _checked_public_key(text: str) -> tuple[str, tuple[SigningAlgorithm, ...]]:
    if isinstance(text, Unread):
        return "", _PUBLISHED
    try:
        return text, (key_of_pem(text).algorithm,)
    except ValueError as error:
        remedy = "write the public key in PEM, as `openssl pkey -in KEY -pubout` makes it"
        raise SectionFault((), str(error), remedy) from error


def _algorithms(
    given: tuple[SigningAlgorithm, ...], possible: tuple[SigningAlgorithm, ...]
) -> tuple[SigningAlgorithm, ...]:
    for index, one in enumerate(given):
        if one not in possible:
            problem = f"{one} is not for this kind of key"
            raise SectionFault(("algorithms", index), problem, f"allowed: {', '.join(possible)}")
    return tuple(dict.fromkeys(given)) or possible


def _check_can_be_told_apart(found: list[JwtIssuer]) -> None:
    names = [one.issuer for one in found]
    for index, name in enumerate(names):
        if len(names) > 1 and (not name or name in names[:index]):
            problem = "tokens could not be told apart from those of another issuer"
            raise SectionFault((index, "issuer"), problem, "write what iss is in its tokens")
