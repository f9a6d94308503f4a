"""Tokens of others, good and bad, and the keys that sign them; each key is made once a session."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from base64 import urlsafe_b64encode
from collections.abc import Mapping
from functools import cache
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key as generate_rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

SECRET = "a-secret-that-both-sides-share-of-32-bytes-and-more"
ISSUER = "https://login.example/realms/team"
AUDIENCE = "paddler"


class Signer:
    """A private key with its algorithm."""

    def __init__(self, algorithm: str, key: Any, key_id: str) -> None:
        self.algorithm = algorithm
        self.key = key
        self.key_id = key_id

    @property
    def public_pem(self) -> str:
        """As settings have it."""
        public = self.key.public_key()
        return str(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode())

    @property
    def private_pem(self) -> str:
        """As no setting may have it."""
        return str(
            self.key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        )

    def published(self, **members: Any) -> dict[str, Any]:
        """As it stands in a set of keys."""
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        found = dict(algorithm.to_jwk(self.key.public_key(), as_dict=True))
        return {**found, "kid": self.key_id, "use": "sig", "alg": self.algorithm, **members}

    def private(self) -> dict[str, Any]:
        """As nobody may publish it."""
        algorithm = jwt.get_algorithm_by_name(self.algorithm)
        return {**algorithm.to_jwk(self.key, as_dict=True), "kid": self.key_id}

    def sign(self, message: bytes) -> bytes:
        """Its signature."""
        return jwt.get_algorithm_by_name(self.algorithm).sign(message, self.key)

    def token(self, header: Mapping[str, Any] | None = None, **claims: Any) -> str:
        """A good one, but for what is said otherwise; None takes a claim away."""
        said = {"alg": self.algorithm, "typ": "JWT", "kid": self.key_id, **(header or {})}
        return self.token_of(encoded(said), encoded(claims_of(**claims)))

    def token_of(self, header: bytes, claims: bytes) -> str:
        """What these bytes are as a token, signed."""
        signed = f"{segment(header)}.{segment(claims)}"
        return f"{signed}.{segment(self.sign(signed.encode()))}"


@cache
def ec_signer(key_id: str = "ec-1") -> Signer:
    """ES256."""
    return Signer("ES256", generate_private_key(SECP256R1()), key_id)


@cache
def rsa_signer() -> Signer:
    """RS256."""
    return Signer("RS256", generate_rsa(65537, 2048), "rsa-1")


@cache
def ed_signer() -> Signer:
    """EdDSA."""
    return Signer("EdDSA", Ed25519PrivateKey.generate(), "ed-1")


def claims_of(**claims: Any) -> dict[str, Any]:
    """Those of a good token, and these; None takes one away."""
    now = int(time.time())
    usual = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "alice",
        "iat": now,
        "exp": now + 300,
    }
    return {name: value for name, value in {**usual, **claims}.items() if value is not None}


def by_secret(header: Mapping[str, Any] | None = None, secret: str = SECRET, **claims: Any) -> str:
    """A token by a shared secret."""
    said = {"alg": "HS256", "typ": "JWT", **(header or {})}
    signed = f"{segment(encoded(said))}.{segment(encoded(claims_of(**claims)))}"
    return f"{signed}.{segment(mac(secret.encode(), signed))}"


def mac(secret: bytes, signed: str) -> bytes:
    """HS256, by whatever is taken for a secret."""
    return hmac.digest(secret, signed.encode(), hashlib.sha256)


def encoded(value: Any) -> bytes:
    """As JSON."""
    return json.dumps(value).encode()


def segment(data: bytes) -> str:
    """As it stands in a token."""
    return urlsafe_b64encode(data).rstrip(b"=").decode()


def key_set(*keys: Mapping[str, Any]) -> bytes:
    """A set that publishes these."""
    return encoded({"keys": list(keys)})
