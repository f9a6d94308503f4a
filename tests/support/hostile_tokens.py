"""Every way to lie with a token that is known here, and what has to be said to it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from typing import Any

from jwt.utils import raw_to_der_signature

from balancer.access import ClaimRules
from tests.support.tokens import (
    ISSUER,
    SECRET,
    by_secret,
    claims_of,
    ec_signer,
    ed_signer,
    encoded,
    mac,
    rsa_signer,
    segment,
)

BACKEND = "https://backend.example"
"""Whose tokens are by `SECRET`; those of `ISSUER` are by keys that it publishes."""

RULES = ClaimRules(
    role="realm_access.roles",
    roles={"paddler-admin": "admin", "paddler-user": "user"},
    tier="tier",
    tenant="team",
    models="models",
)
"""What the claims of `ISSUER` mean."""

Hostile = Mapping[str, tuple[str, str]]
"""By what is wrong: the token, and the reason that is told."""


def hostile_tokens(evil_url: str) -> Hostile:
    """All of them. `evil_url`: a place that nobody may ask for keys."""
    return {
        **_of_another_form(),
        **_by_another_algorithm(),
        **_by_another_key(evil_url),
        **_by_a_bent_signature(),
        **_at_another_time(),
        **_for_somebody_else(),
    }


def _of_another_form() -> dict[str, tuple[str, str]]:
    signer = ec_signer()
    good = signer.token()
    header, claims, signature = good.split(".")
    said = encoded({"alg": "ES256", "kid": signer.key_id})
    whole = encoded(claims_of())

    def with_claims(text: bytes) -> str:
        return signer.token_of(said, text)

    return {
        "two parts": (f"{header}.{claims}", "form"),
        "four parts": (f"{good}.{signature}", "form"),
        "five parts, as if encrypted": (f"{good}.{signature}.{signature}", "form"),
        "no claims": (f"{header}..{signature}", "form"),
        "padding": (f"{header}.{claims}.{signature}==", "form"),
        "base64 with + and /": (f"{header}.{claims}.++//{signature[4:]}", "form"),
        "bits that nobody reads": (f"{header}.{claims}.{_with_spare_bits(signature)}", "form"),
        "a blank within": (f"{header}. {claims}.{signature}", "form"),
        "huge": (signer.token(note="x" * 6500), "too long"),
        "claims are an array": (with_claims(b"[1,2]"), "form"),
        "claims are no JSON": (with_claims(b"{sub: alice}"), "form"),
        "claims are not UTF-8": (with_claims(b'{"sub":"\xff"}'), "form"),
        "claims are nested deep": (
            with_claims(b'{"sub":' + b"[" * 1500 + b"]" * 1500 + b"}"),
            "form",
        ),
        "a claim is there twice": (with_claims(b'{"sub":"root",' + whole[1:]), "form"),
        "a claim within a claim is there twice": (
            with_claims(whole[:-1] + b',"realm_access":{"roles":[],"roles":["paddler-admin"]}}'),
            "form",
        ),
        "a header's member is there twice": (
            signer.token_of(b'{"alg":"none",' + said[1:], whole),
            "form",
        ),
        "exp is NaN": (with_claims(b'{"exp":NaN,"sub":"a"}'), "form"),
        "exp is infinite": (with_claims(b'{"exp":Infinity,"sub":"a"}'), "form"),
        "exp has 5000 digits": (
            with_claims(b'{"exp":' + b"9" * 5000 + b',"sub":"a"}'),
            "form",
        ),
    }


def _by_another_algorithm() -> dict[str, tuple[str, str]]:
    none = f"{segment(encoded({'alg': 'none'}))}.{segment(encoded(claims_of()))}."
    of_backend: dict[str, Any] = {"iss": BACKEND}
    ec, rsa = ec_signer(), rsa_signer()
    return {
        "alg none, unsigned": (none, "form"),
        "alg none, with a signature": (none + "AAAA", "algorithm"),
        "alg nOnE": (ec.token({"alg": "nOnE"}), "algorithm"),
        "alg none, of the issuer with a secret": (
            by_secret({"alg": "none"}, **of_backend),
            "algorithm",
        ),
        "no alg": (ec.token({"alg": None}), "algorithm"),
        "alg is a list": (ec.token({"alg": ["ES256"]}), "algorithm"),
        "HS256 by the public RSA key": (
            by_secret({"kid": rsa.key_id}, secret=rsa.public_pem),
            "algorithm",
        ),
        "HS256 by the public EC key": (
            by_secret({"kid": ec.key_id}, secret=ec.public_pem),
            "algorithm",
        ),
        "HS256 by the issuer's other secret": (by_secret(), "algorithm"),
        "ES256 where a secret is shared": (ec.token(**of_backend), "algorithm"),
        "HS512": (by_secret({"alg": "HS512"}, **of_backend), "algorithm"),
        "RS256 said of an ES256 signature": (
            ec.token({"alg": "RS256", "kid": rsa.key_id}),
            "signature",
        ),
        "RS256 said of the EC key": (ec.token({"alg": "RS256"}), "key"),
        "PS256": (rsa.token({"alg": "PS256"}), "algorithm"),
    }


def _by_another_key(evil_url: str) -> dict[str, tuple[str, str]]:
    ec = ec_signer()
    evil = ec_signer("evil")
    as_ec = {"kid": ec.key_id}
    return {
        "signed by somebody else": (evil.token(as_ec), "signature"),
        "a key that nobody publishes": (evil.token(), "key"),
        "a key within the token": (evil.token({**as_ec, "jwk": evil.published()}), "header"),
        "a place of keys within the token": (evil.token({**as_ec, "jku": evil_url}), "header"),
        "a place of a certificate": (evil.token({**as_ec, "x5u": evil_url}), "header"),
        "a certificate within the token": (evil.token({**as_ec, "x5c": ["MII"]}), "header"),
        "kid leads to a file": (ec.token({"kid": "../../../../dev/null"}), "key"),
        "kid leads to a file, an empty secret": (
            by_secret({"kid": "../../../../dev/null"}, secret="", iss=BACKEND),
            "signature",
        ),
        "kid is SQL": (ec.token({"kid": "x' UNION SELECT 'key"}), "key"),
        "kid is a number": (ec.token({"kid": 1}), "header"),
        "kid is huge": (ec.token({"kid": "k" * 300}), "header"),
        "by a key of another issuer": (ec.token({"alg": "HS256"}, iss=BACKEND), "signature"),
        "by another secret": (by_secret(secret=SECRET + "x", iss=BACKEND), "signature"),
        "members that change its meaning": (ec.token({"crit": ["exp"]}), "header"),
        "claims that are not encoded": (ec.token({"b64": False, "crit": ["b64"]}), "header"),
        "a token for signing out": (ec.token({"typ": "logout+jwt"}), "header"),
        "typ is a number": (ec.token({"typ": 1}), "header"),
    }


def _by_a_bent_signature() -> dict[str, tuple[str, str]]:
    ec, ed = ec_signer(), ed_signer()
    header, claims, signature = ec.token().split(".")
    signed = f"{header}.{claims}"
    as_root = segment(encoded(claims_of(sub="root", realm_access={"roles": ["paddler-admin"]})))
    raw = ec.sign(signed.encode())
    of_rsa = rsa_signer().token().split(".")[2]
    return {
        "other claims": (f"{header}.{as_root}.{signature}", "signature"),
        "another token's signature": (f"{signed}.{ec.token(sub='b').split('.')[2]}", "signature"),
        "a signature of zeros": (f"{signed}.{segment(bytes(64))}", "signature"),
        "a signature of DER": (
            f"{signed}.{segment(raw_to_der_signature(raw, ec.key.curve))}",
            "signature",
        ),
        "a signature that is cut off": (f"{signed}.{segment(raw[:-1])}", "signature"),
        "a signature with more behind it": (f"{signed}.{segment(raw + b'x')}", "signature"),
        "a signature of RSA for EC": (f"{signed}.{of_rsa}", "signature"),
        "EdDSA of zeros": (
            f"{ed.token().rpartition('.')[0]}.{segment(bytes(64))}",
            "signature",
        ),
        "a mac of nothing": (
            f"{by_secret(iss=BACKEND).rpartition('.')[0]}.{segment(mac(SECRET.encode(), ''))}",
            "signature",
        ),
    }


def _at_another_time() -> dict[str, tuple[str, str]]:
    now = int(time.time())
    token = ec_signer().token
    return {
        "expired": (token(exp=now - 60), "expired"),
        "not valid yet": (token(nbf=now + 120), "early"),
        "made in the future": (token(iat=now + 120), "early"),
        "no exp": (token(exp=None), "claim"),
        "exp is a text": (token(exp=str(now + 60)), "claim"),
        "exp is true": (token(exp=True), "claim"),
        "exp is negative": (token(exp=-1), "claim"),
        "exp is past all time": (token(exp=10**300), "claim"),
        "nbf is a list": (token(nbf=[now]), "claim"),
    }


def _for_somebody_else() -> dict[str, tuple[str, str]]:
    token = ec_signer().token
    return {
        "another audience": (token(aud="billing"), "audience"),
        "other audiences": (token(aud=["billing", "mail"]), "audience"),
        "no audience": (token(aud=None), "audience"),
        "aud is an object": (token(aud={"paddler": 1}), "claim"),
        "another issuer": (token(iss="https://login.example.evil.net"), "issuer"),
        "the issuer's name as a prefix": (token(iss=ISSUER + "/.."), "issuer"),
        "issuers in a list": (token(iss=[ISSUER]), "issuer"),
        "no issuer": (token(iss=None), "issuer"),
        "no subject": (token(sub=None), "claim"),
        "an empty subject": (token(sub=""), "claim"),
        "a subject of lines": (token(sub="alice\nrole=admin"), "claim"),
        "half a character": (token(sub="\ud800"), "claim"),
        "a huge subject": (token(sub="a" * 300), "claim"),
        "a subject that is a number": (token(sub=1), "claim"),
        "the tenant of a key": (token(team="key:admin-key"), "claim"),
        "tenants in an object": (token(team={"a": 1}), "claim"),
        "roles in an object": (token(realm_access={"roles": {"paddler-admin": 1}}), "claim"),
        "no model": (token(models=[]), "claim"),
    }


def _with_spare_bits(text: str) -> str:
    """The same bytes, written in another way."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return text[:-1] + alphabet[alphabet.index(text[-1]) + 1]


def addresses() -> Any:
    """A new client for each of them: wrong credentials are counted by address."""
    return (f"198.51.{number // 250}.{number % 250 + 1}" for number in itertools.count())
