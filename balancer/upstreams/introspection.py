"""Asks a provider whether a token is good, and whose (OAuth 2.0 Token Introspection, RFC 7662)."""

from __future__ import annotations

from base64 import b64encode
from typing import Any
from urllib.parse import quote_plus

from balancer.access import Introspection
from balancer.errors import ProviderFailed
from balancer.policy.identity.strict_json import strict_object
from balancer.settings import KIB
from balancer.upstreams.provider import ProviderClient

MAX_ANSWER_BYTES = 64 * KIB


class Introspector:
    """Who is asked is in the settings."""

    def __init__(self, client: ProviderClient) -> None:
        self._client = client

    async def ask(self, provider: Introspection, token: str) -> dict[str, Any]:
        """What the provider says of a token; `active` is true or false. Raises `ProviderFailed`.
        Cancelling is safe."""
        data = await self._client.post(
            provider.url,
            {"token": token, "token_type_hint": "access_token"},
            {"Authorization": _as_client(provider)},
            timeout_s=provider.timeout_s,
            most_bytes=MAX_ANSWER_BYTES,
        )
        try:
            said = strict_object(data)
        except ValueError as error:
            raise ProviderFailed("its answer is not JSON, or not strictly so") from error
        if not isinstance(said.get("active"), bool):
            raise ProviderFailed("its answer does not say whether the token is active")
        return said


def _as_client(provider: Introspection) -> str:
    """RFC 6749, section 2.3.1: both are encoded as a form's before they are joined."""
    name = quote_plus(provider.client_id)
    secret = quote_plus(provider.client_secret.reveal())
    return "Basic " + b64encode(f"{name}:{secret}".encode()).decode()
