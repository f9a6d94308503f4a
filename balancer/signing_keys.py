"""Keys that tokens of others are signed with, each bound to the one algorithm that it is for.

Pure. What a token says of its algorithm chooses among keys and never what is done with one
(RFC 8725, section 3.1): a public key is no secret, whoever asks for HS256.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_public_key,
)
from jwt.algorithms import ECAlgorithm, HMACAlgorithm, OKPAlgorithm, RSAAlgorithm
from jwt.exceptions import InvalidKeyError
from msgspec import Struct

from balancer.access import SigningAlgorithm

LEAST_SECRET_BYTES = 32
"""RFC 7518, section 3.2."""
LEAST_RSA_BITS, MOST_RSA_BITS = 2048, 8192
"""RFC 7518, section 3.3; larger ones cost more than any token is worth."""
MOST_EXPONENT = 2**32
MAX_KEY_ID_CHARS = 256
MAX_MEMBER_CHARS = 2048
"""Of one number of a published key."""

_HMAC = HMACAlgorithm(HMACAlgorithm.SHA256)
_VERIFY: Mapping[SigningAlgorithm, Any] = {
    "HS256": _HMAC.verify,
    "RS256": RSAAlgorithm(RSAAlgorithm.SHA256).verify,
    "ES256": ECAlgorithm(ECAlgorithm.SHA256, SECP256R1).verify,
    "EdDSA": OKPAlgorithm().verify,
}
_PRIVATE_MEMBERS = frozenset({"d", "p", "q", "dp", "dq", "qi", "oth", "k"})
_KINDS: Mapping[tuple[object, object], tuple[SigningAlgorithm, tuple[str, ...], Any]] = {
    ("RSA", None): ("RS256", ("n", "e"), RSAAlgorithm.from_jwk),
    ("EC", "P-256"): ("ES256", ("x", "y"), ECAlgorithm.from_jwk),
    ("OKP", "Ed25519"): ("EdDSA", ("x",), OKPAlgorithm.from_jwk),
}
_NAMES: Mapping[SigningAlgorithm, frozenset[str]] = {
    "RS256": frozenset({"RS256"}),
    "ES256": frozenset({"ES256"}),
    "EdDSA": frozenset({"EdDSA", "Ed25519"}),  # the latter since RFC 9864
}


class SigningKey(Struct, frozen=True, kw_only=True):
    """One key, public or shared."""

    algorithm: SigningAlgorithm
    key: Any
    digest: bytes
    """Of the key: which it is, whatever it is called."""
    id: str | None = None
    """What tokens call it by; None: they may call it what they like."""

    def signed(self, message: bytes, signature: bytes) -> bool:
        """Whether this is its signature of that."""
        return bool(_VERIFY[self.algorithm](message, self.key, signature))


def key_of_secret(secret: str) -> SigningKey:
    """A secret that both sides share. Raises ValueError where it is too short, or is no secret."""
    data = secret.encode()
    if len(data) < LEAST_SECRET_BYTES:
        raise ValueError(f"the secret has less than {LEAST_SECRET_BYTES} bytes")
    try:
        prepared = _HMAC.prepare_key(data)
    except InvalidKeyError as error:
        raise ValueError("this is a key that others may see, and no secret") from error
    return SigningKey(algorithm="HS256", key=prepared, digest=hashlib.sha256(data).digest())


def key_of_pem(text: str) -> SigningKey:
    """A public key. Raises ValueError with why it cannot be used."""
    if "PRIVATE KEY" in text:
        raise ValueError("this is a private key, which nobody but its owner may have")
    try:
        found = load_pem_public_key(text.encode())
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ValueError("this is no public key in PEM") from error
    return _of_public(found, None)


def key_of_jwk(members: Mapping[str, Any]) -> SigningKey | None:
    """A published key (RFC 7517); None where it is not for signing, or by an algorithm that is not
    known here. Raises ValueError for what nobody may publish, and what is no key."""
    if members.get("kty") == "oct" or not _PRIVATE_MEMBERS.isdisjoint(members):
        raise ValueError("a key is published that has to be secret")
    named = [members.get(name) for name in ("kty", "crv", "alg")]
    if not all(one is None or isinstance(one, str) for one in named):
        return None
    kind = _KINDS.get((named[0], named[1]))
    if kind is None or not _is_for_signing(members):
        return None
    algorithm, needed, read = kind
    if named[2] not in (None, *_NAMES[algorithm]):
        return None
    for name in needed:
        if not isinstance(members.get(name), str) or len(members[name]) > MAX_MEMBER_CHARS:
            raise ValueError(f"a key has no {name}")
    key_id = members.get("kid")
    if key_id is not None and not (isinstance(key_id, str) and len(key_id) <= MAX_KEY_ID_CHARS):
        raise ValueError("a key's kid is no short text")
    try:
        found = read({"kty": members["kty"], "crv": members.get("crv")} | _only(members, needed))
    except (ValueError, InvalidKeyError) as error:
        raise ValueError(f"a key for {algorithm} is none") from error
    return _of_public(found, key_id)


def _only(members: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    return {name: members[name] for name in names}


def _is_for_signing(members: Mapping[str, Any]) -> bool:
    operations = members.get("key_ops", ["verify"])
    is_verifying = isinstance(operations, list) and "verify" in operations
    return members.get("use", "sig") == "sig" and is_verifying


def _of_public(found: Any, key_id: str | None) -> SigningKey:
    data = found.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return SigningKey(
        algorithm=_algorithm_of(found),
        key=found,
        digest=hashlib.sha256(data).digest(),
        id=key_id,
    )


def _algorithm_of(found: object) -> SigningAlgorithm:
    if isinstance(found, RSAPublicKey):
        if not LEAST_RSA_BITS <= found.key_size <= MOST_RSA_BITS:
            raise ValueError(
                f"an RSA key has {found.key_size} bits, and not {LEAST_RSA_BITS} to {MOST_RSA_BITS}"
            )
        if not 2 < found.public_numbers().e < MOST_EXPONENT:
            raise ValueError("an RSA key has an exponent that is not used")
        return "RS256"
    if isinstance(found, EllipticCurvePublicKey) and isinstance(found.curve, SECP256R1):
        return "ES256"
    if isinstance(found, Ed25519PublicKey):
        return "EdDSA"
    raise ValueError("this is no key for RS256, ES256 or EdDSA")
