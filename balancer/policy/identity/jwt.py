"""Whether a JSON Web Token is good, and whom it stands for (RFC 7515, 7519 and 8725). Pure.

Everything that a token says of itself only chooses among what the settings allow: no URL of a token
is called, no key of one is used, no algorithm of one is another than its key's.
"""

from __future__ import annotations

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from balancer.access import JwtIssuer
from balancer.policy.identity.claims import ClaimFault, is_for, moment_of, principal_of_claims
from balancer.policy.identity.keyring import Denied, Fault
from balancer.policy.identity.principal import Principal
from balancer.policy.identity.published import PublishedKeys
from balancer.policy.identity.strict_json import strict_object
from balancer.signing_keys import MAX_KEY_ID_CHARS, SigningKey, key_of_pem, key_of_secret

MAX_TOKEN_CHARS = 8192
_LIKE_A_TOKEN = re.compile(r"e[w-z0-9_-][^.]*\.")
"""What begins as base64 of `{`, and has a dot."""
_TOKEN = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]+)")
_REFUSED_MEMBERS = frozenset({"crit", "b64", "jwk", "jku", "x5c", "x5u", "zip", "enc"})
"""Of a header: what changes how it is to be read, and keys or places of keys that it brings."""
_TYPES = frozenset({"jwt", "at+jwt"})
"""RFC 8725, section 3.11: a token for another purpose is none for ours."""


class Verified(Struct, frozen=True, kw_only=True):
    """A token that is good."""

    principal: Principal
    ends_s: float
    """Of the token, in unix seconds."""
    until_s: float
    """How long its key is good, if nothing new is heard of it."""
    signed_by: bytes
    """The key's digest."""


class KeysWanted(Struct, frozen=True):
    """A token by a key that is not known. `are_there_any`: whether its issuer's others are."""

    url: str
    are_there_any: bool


class _Parts(Struct, frozen=True):
    header: Mapping[str, Any]
    claims: Mapping[str, Any]
    signed: bytes
    signature: bytes


class _Refused(Exception):
    def __init__(self, fault: Fault, claim: str = "") -> None:
        super().__init__(fault)
        self.denied = Denied(fault, kind="token", claim=claim)


def is_like_a_token(text: str) -> bool:
    """Whether this is meant to be a JWT, good or not."""
    return _LIKE_A_TOKEN.match(text) is not None


class JwtVerifier:
    """The issuers that are trusted."""

    def __init__(self, issuers: Sequence[JwtIssuer], published: PublishedKeys) -> None:
        self._issuers = issuers
        self._published = published
        self._own = [_own_keys(one) for one in issuers]

    def verify(self, token: str, *, unix_s: float) -> Verified | Denied | KeysWanted:
        """What a token is worth at a time."""
        try:
            parts = _parts(token)
            _check_header(parts.header)
            number = self._issuer_of(parts.claims)
            key = self._key_for(parts.header, number, unix_s)
            if isinstance(key, KeysWanted):
                return key
            if not key.signed(parts.signed, parts.signature):
                raise _Refused("signature")
            return self._verified(parts.claims, number, key, unix_s)
        except _Refused as refused:
            return refused.denied
        except ClaimFault as fault:
            return Denied("claim", kind="token", claim=str(fault))

    def _issuer_of(self, claims: Mapping[str, Any]) -> int:
        for number, one in enumerate(self._issuers):
            if one.issuer in ("", claims.get("iss")):
                return number
        raise _Refused("issuer")

    def _key_for(
        self, header: Mapping[str, Any], number: int, unix_s: float
    ) -> SigningKey | KeysWanted:
        issuer, named = self._issuers[number], header.get("kid")
        if header.get("alg") not in issuer.algorithms:
            raise _Refused("algorithm")
        known = self._own[number]
        if issuer.jwks_url:
            known = self._published.keys(issuer.jwks_url, unix_s=unix_s, keep_s=issuer.keep_s)
            if not known:
                return KeysWanted(issuer.jwks_url, are_there_any=False)
        fitting = [
            key
            for key in known
            if key.algorithm == header["alg"] and (named is None or key.id in (None, named))
        ]
        if len(fitting) == 1:
            return fitting[0]
        if issuer.jwks_url and not fitting:
            return KeysWanted(issuer.jwks_url, are_there_any=True)
        raise _Refused("key")

    def _verified(
        self, claims: Mapping[str, Any], number: int, key: SigningKey, unix_s: float
    ) -> Verified | Denied:
        issuer = self._issuers[number]
        ends_s = _check_time(claims, unix_s, issuer.leeway_s)
        if (issuer.audience or "aud" in claims) and not is_for(claims, issuer.audience):
            raise _Refused("audience")
        found = principal_of_claims(claims, issuer.claims, "jwt")
        if isinstance(found, Denied):
            return found
        return Verified(
            principal=found,
            ends_s=ends_s,
            until_s=self._published.until_s(issuer.jwks_url, issuer.keep_s),
            signed_by=key.digest,
        )


def _own_keys(issuer: JwtIssuer) -> tuple[SigningKey, ...]:
    """Those that the settings have; they were looked at when they were read."""
    if issuer.secret:
        return (key_of_secret(issuer.secret.reveal()),)
    return (key_of_pem(issuer.public_key),) if issuer.public_key else ()


def _parts(token: str) -> _Parts:
    if len(token) > MAX_TOKEN_CHARS:
        raise _Refused("too long")
    found = _TOKEN.fullmatch(token)
    if found is None:
        raise _Refused("form")
    try:
        header, claims, signature = (_bytes_of(one) for one in found.groups())
        return _Parts(
            strict_object(header),
            strict_object(claims),
            token.rpartition(".")[0].encode(),
            signature,
        )
    except ValueError as error:
        raise _Refused("form") from error


def _bytes_of(text: str) -> bytes:
    """Of base64url without padding, and written in the one way that there is. Raises ValueError."""
    found = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if urlsafe_b64encode(found).rstrip(b"=") != text.encode():
        raise ValueError("its last character has bits that nobody reads")
    return found


def _check_header(header: Mapping[str, Any]) -> None:
    if not _REFUSED_MEMBERS.isdisjoint(header):
        raise _Refused("header")
    kind = header.get("typ", "JWT")
    if not (isinstance(kind, str) and kind.lower().removeprefix("application/") in _TYPES):
        raise _Refused("header")
    named = header.get("kid", "")
    if not (isinstance(named, str) and len(named) <= MAX_KEY_ID_CHARS):
        raise _Refused("header")


def _check_time(claims: Mapping[str, Any], unix_s: float, leeway_s: float) -> float:
    """When it ends."""
    ends_s = moment_of(claims, "exp")
    if ends_s is None:
        raise ClaimFault("exp")
    begins_s, made_s = moment_of(claims, "nbf"), moment_of(claims, "iat")
    if unix_s >= ends_s + leeway_s:
        raise _Refused("expired")
    if begins_s is not None and unix_s < begins_s - leeway_s:
        raise _Refused("early", "nbf")
    if made_s is not None and unix_s < made_s - leeway_s:
        raise _Refused("early", "iat")
    return ends_s + leeway_s
