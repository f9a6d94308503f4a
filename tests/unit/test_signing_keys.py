"""Keys of others: which can be used, and for what alone."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.signing_keys import (
    MAX_KEY_ID_CHARS,
    MOST_EXPONENT,
    key_of_jwk,
    key_of_pem,
    key_of_secret,
)
from protocol.invariants import present
from tests.support.any_json import ANY_JSON
from tests.support.tokens import SECRET, Signer, ec_signer, ed_signer, mac, rsa_signer, segment

Make = Callable[[], Signer]
SIGNERS = (rsa_signer, ec_signer, ed_signer)


def number(value: int) -> str:
    return segment(value.to_bytes((value.bit_length() + 7) // 8))


@pytest.mark.parametrize("make", SIGNERS)
def test_a_key_is_the_same_from_pem_and_from_a_set_and_knows_its_signatures(make: Make) -> None:
    signer = make()
    by_pem, by_set = key_of_pem(signer.public_pem), present(key_of_jwk(signer.published()))
    assert by_pem.digest == by_set.digest
    assert (by_pem.id, by_set.id) == (None, signer.key_id)
    for key in (by_pem, by_set):
        assert key.algorithm == signer.algorithm
        assert key.signed(b"words", signer.sign(b"words"))
        assert not key.signed(b"other words", signer.sign(b"words"))
        assert not key.signed(b"words", b"")


def test_a_secret_knows_its_macs() -> None:
    key = key_of_secret(SECRET)
    assert key.algorithm == "HS256"
    assert key.signed(b"words", mac(SECRET.encode(), "words"))
    assert not key.signed(b"words", mac(b"", "words"))


@pytest.mark.parametrize("secret", ["", "x" * 31])
def test_a_short_secret_is_refused(secret: str) -> None:
    with pytest.raises(ValueError, match="less than 32 bytes"):
        key_of_secret(secret)


def test_what_others_may_see_is_no_secret() -> None:
    for text in (ec_signer().public_pem, '{"kty":"EC","crv":"P-256","x":"AAAA","y":"AAAA"}'):
        with pytest.raises(ValueError, match="no secret"):
            key_of_secret(text)


def test_a_private_key_and_what_is_no_key_are_refused() -> None:
    with pytest.raises(ValueError, match="private key"):
        key_of_pem(ec_signer().private_pem)
    for text in ("", "no key", ec_signer().public_pem[:60]):
        with pytest.raises(ValueError, match="no public key in PEM"):
            key_of_pem(text)


def test_a_curve_that_no_algorithm_of_ours_has_is_refused() -> None:
    public = generate_private_key(SECP384R1()).public_key()
    pem = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()
    with pytest.raises(ValueError, match="no key for RS256, ES256 or EdDSA"):
        key_of_pem(pem)


@pytest.mark.parametrize(
    ("n_bits", "e", "why"),
    [(1024, 65537, "has 1024 bits"), (8200, 65537, "has 8200 bits")],
)
def test_rsa_keys_are_neither_weak_nor_a_burden(n_bits: int, e: int, why: str) -> None:
    numbers = RSAPublicNumbers(e, (1 << n_bits) - 1)
    pem = numbers.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    with pytest.raises(ValueError, match=why):
        key_of_pem(pem.decode())


def test_an_exponent_that_takes_long_is_refused() -> None:
    members = rsa_signer().published(e=number(MOST_EXPONENT + 1))
    with pytest.raises(ValueError, match="exponent"):
        key_of_jwk(members)


@pytest.mark.parametrize(
    "members",
    [
        {"use": "enc"},
        {"key_ops": ["encrypt"]},
        {"key_ops": "verify"},
        {"alg": "ES384"},
        {"alg": "HS256"},
        {"alg": ["ES256"]},
        {"crv": "P-521"},
        {"crv": "secp256k1"},
        {"kty": "RSA", "crv": "P-256"},
        {"kty": "later"},
        {"kty": None},
        {"kty": ["EC"]},
        {"crv": {"a": 1}},
    ],
)
def test_a_published_key_for_something_else_is_passed_over(members: dict[str, Any]) -> None:
    assert key_of_jwk(ec_signer().published(**members)) is None


@pytest.mark.parametrize("name", ["EdDSA", "Ed25519"])
def test_either_name_of_the_algorithm_is_known(name: str) -> None:
    assert key_of_jwk(ed_signer().published(alg=name)) is not None


@pytest.mark.parametrize(
    "members",
    [
        {"x": None},
        {"x": 1},
        {"x": "A" * 2049},
        {"x": "!"},
        {"x": ""},
        {"y": segment(bytes(32))},
        {"y": segment(bytes(31))},
        {"kid": 1},
        {"kid": "k" * (MAX_KEY_ID_CHARS + 1)},
    ],
)
def test_a_published_key_that_is_none_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="a key"):
        key_of_jwk(ec_signer().published(**members))


def test_what_nobody_may_publish_is_refused() -> None:
    for make in SIGNERS:
        with pytest.raises(ValueError, match="has to be secret"):
            key_of_jwk(make().private())
    with pytest.raises(ValueError, match="has to be secret"):
        key_of_jwk({"kty": "oct", "k": segment(SECRET.encode())})


@pytest.mark.parametrize("members", [{"n": ""}, {"n": number(1)}, {"e": number(2)}])
def test_an_rsa_key_that_is_none_is_refused(members: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"."):
        key_of_jwk(rsa_signer().published(**members))


_MEMBERS = ["kty", "crv", "alg", "use", "key_ops", "kid", "n", "e", "x", "y", "d"]


@given(st.sampled_from(SIGNERS), st.dictionaries(st.sampled_from(_MEMBERS), ANY_JSON, max_size=3))
@settings(max_examples=30, deadline=None)
def test_members_may_be_of_any_type(make: Make, members: dict[str, Any]) -> None:
    with suppress(ValueError):
        key = key_of_jwk(make().published(**members))
        assert key is None or key.algorithm == make().algorithm
