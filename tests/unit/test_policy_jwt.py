"""Which JWTs are good, by the clock and the keys at hand; all the lies are in test_http_tokens."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.access import ClaimRules, JwtIssuer
from balancer.policy.identity.jwt import (
    MAX_TOKEN_CHARS,
    JwtVerifier,
    KeysWanted,
    Verified,
    is_like_a_token,
)
from balancer.policy.identity.keyring import Denied
from balancer.policy.identity.published import PublishedKeys
from balancer.secret import Secret
from balancer.signing_keys import SigningKey, key_of_jwk
from protocol.invariants import present
from tests.support.any_json import ANY_JSON
from tests.support.hostile_tokens import BACKEND, RULES, hostile_tokens
from tests.support.tokens import (
    AUDIENCE,
    ISSUER,
    SECRET,
    Signer,
    by_secret,
    claims_of,
    ec_signer,
    ed_signer,
    encoded,
    rsa_signer,
)

URL = "https://login.example/keys"
NOW = 1_800_000_000.0
SIGNERS = (rsa_signer, ec_signer, ed_signer)


def key_of(signer: Signer, **members: object) -> SigningKey:
    return present(key_of_jwk(signer.published(**members)))


def verifier(*issuers: JwtIssuer, published: PublishedKeys | None = None) -> JwtVerifier:
    if published is None:
        published = PublishedKeys()
        published.take(URL, tuple(key_of(make()) for make in SIGNERS), unix_s=NOW)
    by_keys = JwtIssuer(
        algorithms=("RS256", "ES256", "EdDSA"),
        jwks_url=URL,
        issuer=ISSUER,
        audience=(AUDIENCE,),
        keep_s=3600.0,
        claims=RULES,
    )
    shared = JwtIssuer(
        algorithms=("HS256",), secret=Secret(SECRET), issuer=BACKEND, audience=(AUDIENCE,)
    )
    return JwtVerifier(issuers or (by_keys, shared), published)


def by_pem(signer: Signer) -> JwtVerifier:
    algorithms: Any = (signer.algorithm,)
    return verifier(JwtIssuer(algorithms=algorithms, public_key=signer.public_pem))


def at(seconds: float) -> dict[str, Any]:
    """Claims of a token that was made then."""
    return {"iat": int(NOW + seconds), "exp": int(NOW + seconds + 300)}


@pytest.mark.parametrize("make", SIGNERS)
def test_a_token_by_a_published_key_is_good(make: Callable[[], Signer]) -> None:
    signer = make()
    found = verifier().verify(signer.token(**at(0)), unix_s=NOW)
    assert isinstance(found, Verified)
    assert found.principal.role == "user"
    assert found.principal.key_number is None
    assert (found.ends_s, found.until_s) == (NOW + 300 + 30, NOW + 3600)
    assert found.signed_by == key_of(signer).digest


def test_a_token_by_a_shared_secret_is_good_whatever_it_calls_its_key() -> None:
    for header in ({}, {"kid": "any"}):
        found = verifier().verify(by_secret(header, iss=BACKEND, **at(0)), unix_s=NOW)
        assert isinstance(found, Verified)
        assert found.until_s == inf


@pytest.mark.parametrize("make", SIGNERS)
def test_a_token_by_a_public_key_of_the_settings_is_good(make: Callable[[], Signer]) -> None:
    signer = make()
    token = signer.token({"kid": "any"}, aud=None, **at(0))
    assert isinstance(by_pem(signer).verify(token, unix_s=NOW), Verified)


def test_a_token_for_an_audience_is_none_where_no_audience_is_set() -> None:
    found = by_pem(ec_signer()).verify(ec_signer().token(**at(0)), unix_s=NOW)
    assert found == Denied("audience", kind="token")


@pytest.mark.parametrize(
    ("claims", "reason"),
    [
        (at(0), None),
        (at(29), None),
        (at(31), "early"),
        ({"nbf": NOW + 30, "exp": NOW + 60}, None),
        ({"nbf": NOW + 30.5, "exp": NOW + 60}, "early"),
        ({"iat": None, "exp": NOW - 29.5}, None),
        ({"iat": None, "exp": NOW - 30}, "expired"),
    ],
)
def test_clocks_may_differ_by_the_leeway(claims: dict[str, Any], reason: str | None) -> None:
    claims = {**dict.fromkeys(("iat", "nbf", "exp")), **claims}
    found = verifier().verify(ec_signer().token(**claims), unix_s=NOW)
    assert (found.fault if isinstance(found, Denied) else None) == reason


def test_every_lie_is_found_out() -> None:
    hostile = hostile_tokens("https://evil.example")
    wrong = {}
    for name, (token, reason) in hostile.items():
        found = verifier().verify(token, unix_s=float(claims_of()["iat"]))
        told = found.fault if isinstance(found, Denied) else "key"
        if isinstance(found, Verified) or told != reason:
            wrong[name] = found
    assert not wrong


@pytest.mark.parametrize("others", ["AB", "_-", ".=", "\u0130\ud800"])
def test_a_token_with_any_character_changed_is_none(others: str) -> None:
    token = ed_signer().token(**at(0))
    for place, before in enumerate(token):
        changed = token[:place] + others[others[0] == before] + token[place + 1 :]
        assert not isinstance(verifier().verify(changed, unix_s=NOW), Verified), place


@given(st.text(max_size=40), st.binary(max_size=60), st.binary(max_size=60))
@settings(max_examples=30, deadline=None)
def test_nothing_that_is_sent_makes_it_fail(text: str, header: bytes, claims: bytes) -> None:
    for token in (text, f"{text}.{text}.{text}", ec_signer().token_of(header, claims)):
        assert not isinstance(verifier().verify(token, unix_s=NOW), Verified)


_NAMES = st.sampled_from(
    ["iss", "aud", "sub", "exp", "nbf", "iat", "realm_access", "tier", "team", "models"]
)


@given(st.dictionaries(_NAMES, ANY_JSON), st.sampled_from(["alg", "kid", "typ", "crit"]), ANY_JSON)
@settings(max_examples=30, deadline=None)
def test_claims_and_headers_may_be_of_any_type(claims: Any, member: str, value: Any) -> None:
    for header in ({}, {member: value}):
        token = ec_signer().token(header, **{**at(0), **claims})
        assert verifier().verify(token, unix_s=NOW) is not None


def test_a_key_that_is_not_known_is_asked_for() -> None:
    token = ec_signer("another").token(**at(0))
    assert verifier().verify(token, unix_s=NOW) == KeysWanted(URL, are_there_any=True)
    nothing_yet = verifier(published=PublishedKeys())
    assert nothing_yet.verify(token, unix_s=NOW) == KeysWanted(URL, are_there_any=False)
    too_old = verifier().verify(ec_signer().token(**at(3600)), unix_s=NOW + 3600)
    assert too_old == KeysWanted(URL, are_there_any=False)


def test_a_token_that_names_no_key_needs_an_issuer_with_one_of_its_algorithm() -> None:
    token = ec_signer().token({"kid": None}, **at(0))
    published = PublishedKeys()
    published.take(URL, (key_of(ec_signer()), key_of(rsa_signer())), unix_s=NOW)
    nameless = ec_signer().token_of(b'{"alg":"ES256"}', encoded(claims_of(**at(0))))
    assert isinstance(verifier(published=published).verify(nameless, unix_s=NOW), Verified)
    published.take(URL, (key_of(ec_signer()), key_of(ec_signer("other"))), unix_s=NOW)
    found = verifier(published=published).verify(nameless, unix_s=NOW)
    assert found == Denied("key", kind="token")
    assert verifier().verify(token, unix_s=NOW) == Denied("header", kind="token")


def test_a_published_key_without_a_name_fits_every_name() -> None:
    published = PublishedKeys()
    published.take(URL, (key_of(ec_signer(), kid=None),), unix_s=NOW)
    found = verifier(published=published).verify(ec_signer().token(**at(0)), unix_s=NOW)
    assert isinstance(found, Verified)


def test_whose_role_is_needed_and_missing_is_refused() -> None:
    issuer = JwtIssuer(
        algorithms=("HS256",),
        secret=Secret(SECRET),
        claims=ClaimRules(role="role", refuses_without_role=True),
    )
    token = by_secret(iss=None, aud=None, **at(0))
    assert verifier(issuer).verify(token, unix_s=NOW) == Denied("role", kind="token")


@pytest.mark.parametrize(
    ("text", "is_one"),
    [
        (ec_signer().token(), True),
        ("eyJhbGciOiJub25lIn0.e30.", True),
        ("eyJhbGciOiJub25lIn0.x", True),
        ("e30.", True),
        ("pk_0123456789", False),
        ("eyJhbGciOiJub25lIn0", False),
        ("ab.cd.ef", False),
        ("e.f.g", False),
        ("", False),
    ],
)
def test_what_is_meant_to_be_a_token_looks_so(text: str, *, is_one: bool) -> None:
    assert is_like_a_token(text) is is_one


def test_a_token_may_be_as_long_as_the_bound() -> None:
    spare = MAX_TOKEN_CHARS - len(ec_signer().token(note="", **at(0)))
    fits = ec_signer().token(note="x" * (3 * spare // 4 - 2), **at(0))
    assert MAX_TOKEN_CHARS - 8 < len(fits) <= MAX_TOKEN_CHARS
    assert isinstance(verifier().verify(fits, unix_s=NOW), Verified)
    longer = ec_signer().token(note="x" * (3 * spare // 4 + 3), **at(0))
    assert verifier().verify(longer, unix_s=NOW) == Denied("too long", kind="token")
