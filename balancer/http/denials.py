"""What callers are told whose credentials open nothing, and what the log is."""

from __future__ import annotations

from balancer.errors import Unauthorized
from balancer.policy.identity.keyring import Denied, Fault

_WHY: dict[Fault, str] = {
    "unknown": "nobody here knows it",
    "mistyped": "a character is wrong or missing",
    "address": "it may not be used from this address",
    "too long": "it is too long",
    "form": "it is not written as a token is",
    "header": "its header has something that is not taken here, or a wrong type",
    "algorithm": "it is signed by another algorithm than its issuer's",
    "issuer": "its issuer (iss) is not trusted here",
    "key": "its issuer has no such key, or it does not say which",
    "signature": "its signature is wrong",
    "audience": "it is for another audience (aud)",
    "early": "it is not valid yet",
    "claim": "a claim is missing or wrong",
    "role": "it has none of the roles that may come in",
    "inactive": "its issuer says that it is not active",
}


def unauthorized(denied: Denied) -> Unauthorized:
    """What is told does not depend on whether there is such a key or name, but for what has
    expired: who has it knows that it was."""
    if denied.fault == "expired":
        what = {"key": "API key", "token": "token", "password": "password"}[denied.kind]
        return Unauthorized(f"this {what} has expired; get a new one", code="token_expired")
    if denied.fault == "mistyped":
        return Unauthorized(
            "this is not a whole API key: a character is wrong or missing; copy it again",
            code="invalid_api_key",
        )
    if denied.kind == "key":
        return Unauthorized(
            "this API key is not known here, or may not be used from this address",
            code="invalid_api_key",
        )
    if denied.kind == "password":
        return Unauthorized(
            "nobody has this name and password here, or they may not be used from this address",
            code="invalid_api_key",
        )
    why = _WHY[denied.fault]
    if denied.claim:
        why += f": {denied.claim}"
    return Unauthorized(
        f"this token cannot be used: {why}; get another one",
        code="invalid_token",
        details={"reason": denied.fault, **({"claim": denied.claim} if denied.claim else {})},
    )
