"""What answers say of a route that will go: https://www.rfc-editor.org/rfc/rfc9745 and rfc8594."""

from __future__ import annotations

from datetime import UTC, date, datetime, time
from email.utils import format_datetime

from msgspec import Struct

SHORTEST_DAYS = 180
"""From the day on which a route is deprecated to the first on which it may be gone."""
_POLICY = '</docs>; rel="deprecation"; type="text/html"'


class Deprecation(Struct, frozen=True, kw_only=True):
    """Days, in UTC. Raises `ValueError` where a route would go too soon."""

    since: date
    sunset: date

    def __post_init__(self) -> None:
        if (self.sunset - self.since).days < SHORTEST_DAYS:
            raise ValueError(f"a deprecated route stays for at least {SHORTEST_DAYS} days")

    def headers(self) -> dict[str, str]:
        """The page that is linked tells of the policy and marks the routes."""
        return {
            "Deprecation": f"@{int(_midnight(self.since).timestamp())}",
            "Sunset": format_datetime(_midnight(self.sunset), usegmt=True),
            "Link": _POLICY,
        }


def _midnight(day: date) -> datetime:
    return datetime.combine(day, time(), UTC)
