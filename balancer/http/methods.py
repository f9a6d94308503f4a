"""What stands for somebody beside keys: tokens of others, and names with passwords.

What can be decided at once is, which is every token and password that was right lately. What takes
the network or a thread is handed back as `Pending`: the caller looks first whether its address may
still try, and awaits it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from msgspec import Struct

from balancer.policy.identity.keyring import Denied
from balancer.policy.identity.principal import Principal
from balancer.settings import Settings

Found = Principal | Denied


class Pending(Struct, frozen=True):
    """Who it is has to be asked for. `tag` is the same for the same credentials."""

    tag: str
    ask: Callable[[], Awaitable[Found]]


class Methods:
    """All that are on."""

    def take(self, settings: Settings) -> None:
        """From now on these are in force."""

    def of_token(self, token: str, *, unix_s: float) -> Found | Pending:
        """Whom a bearer token stands for that is no key."""
        del token, unix_s
        return Denied("unknown")

    def of_basic(self, given: str, *, unix_s: float) -> Found | Pending:
        """Whom a name and a password stand for, as they stand behind `Basic`."""
        del given, unix_s
        return Denied("unknown")
