"""With what an agent comes to the balancer, and which agents that may be. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

from msgspec import Struct

_MOST_SHOWN = 8


class Badge(Struct, frozen=True, kw_only=True):
    """Credentials of a link: a key's, and those of a client certificate where there is one."""

    id: str = ""
    """Of the key; empty: nobody has to sign in."""
    agents: tuple[str, ...] = ()
    """Names that it is for, with `*` and `?` in them; none: for any."""
    labels: tuple[tuple[str, str], ...] = ()
    """That its agents must have."""
    certificate_names: frozenset[str] | None = None
    """The names in the certificate; None: there is none."""
    is_named_by_certificate: bool = False
    """Whether the agent's name must be one of those."""

    def is_same(self, other: Badge) -> bool:
        """Whether both came with the same key, and with a certificate of the same names."""
        return (self.id, self.certificate_names) == (other.id, other.certificate_names)

    def objection(self, name: str, labels: Mapping[str, str]) -> str | None:
        """Why an agent of this name may not come in with it, and what to do; None: it may."""
        if self.agents and not any(fnmatchcase(name, pattern) for pattern in self.agents):
            return (
                f"this agent's token is for agents called {_listed(self.agents)}, and this one is "
                f"called {name!r}; start it with --name and such a name, or with a token of its own"
            )
        for key, value in self.labels:
            if labels.get(key) != value:
                return (
                    f"this agent's token is for agents with the label {key}={value}; start this "
                    f"one with --label {key}={value}, or with a token of its own"
                )
        if self.is_named_by_certificate and name not in (self.certificate_names or ()):
            names = _listed(sorted(self.certificate_names or ()))
            return (
                f"this agent's client certificate is for {names}, and it is called {name!r}; start "
                "it with --name and that name, or with a certificate of its own"
            )
        return None


NO_BADGE = Badge()
"""Of an agent where nobody has to sign in."""


def _listed(names: tuple[str, ...] | list[str]) -> str:
    more = f" and {len(names) - _MOST_SHOWN} more" if len(names) > _MOST_SHOWN else ""
    return (", ".join(names[:_MOST_SHOWN]) or "nobody") + more
