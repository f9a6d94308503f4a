"""Which tenants share what agents have cached, by the settings in force."""

from __future__ import annotations

from collections.abc import Callable

from balancer.policy.isolation import SHARED, is_isolated, scope_of
from balancer.settings import LiveSettings


class Isolation:
    """`secret`: random bytes, kept where agents' caches shall outlive this process. `is_open`:
    whether nobody has to sign in now."""

    def __init__(self, live: LiveSettings, *, secret: bytes, is_open: Callable[[], bool]) -> None:
        self._live = live
        self._secret = secret
        self._is_open = is_open

    @property
    def is_on(self) -> bool:
        """Whether tenants are kept apart."""
        return is_isolated(self._live.current.cache_isolation, is_open=self._is_open())

    def scope_of(self, tenant: str) -> str:
        """Within which this tenant's cached tokens are shared."""
        return scope_of(tenant, self._secret) if self.is_on else SHARED
