"""How many connections a port has, in all and of each client address, and who gets no more."""

from __future__ import annotations

import resource

from msgspec import Struct

from balancer.errors import LimitExceeded, TooManyConnections
from balancer.http.client_address import ClientAddresses
from balancer.policy.limits.bounds import subject_of_address
from balancer.settings import LiveSettings, is_loopback

_RETRY_S = 5
_ENDLESS = 2**31


class Place(Struct, frozen=True):
    """One connection's; `subject` is empty where its address is not counted."""

    subject: str


class ConnectionCount:
    """Of one port, so that clients leave room for operators and agents. By address neither trusted
    proxies are counted, as all their clients share theirs, nor this host: what runs on it can do
    worse, and a proxy or a whole fleet may be there."""

    def __init__(self, live: LiveSettings, clients: ClientAddresses) -> None:
        self._live = live
        self._clients = clients
        self._of_subject: dict[str, int] = {}
        self.open = 0

    def enter(self, remote: str | None) -> Place:
        """A place for a new connection. Raises `TooManyConnections` or `LimitExceeded`."""
        settings = self._live.current
        if self.open >= min(settings.max_connections, _most_descriptors()):
            raise TooManyConnections(
                f"there are {self.open} connections here, and there is no room for more; try again "
                f"in {_RETRY_S} s",
                retry_after_s=_RETRY_S,
            )
        subject = self._subject(remote)
        count = self._of_subject.get(subject, 0)
        if subject and count >= settings.max_connections_of_address:
            raise LimitExceeded(
                f"there are {count} connections from this address, and may not be more; close some",
                code="too_many_connections",
                retry_after_s=_RETRY_S,
            )
        self.open += 1
        if subject:
            self._of_subject[subject] = count + 1
        return Place(subject)

    def leave(self, place: Place) -> None:
        """It is free again."""
        self.open -= 1
        if not place.subject:
            return
        left = self._of_subject[place.subject] - 1
        if left:
            self._of_subject[place.subject] = left
        else:
            del self._of_subject[place.subject]

    def _subject(self, remote: str | None) -> str:
        peer = self._clients.peer(remote)
        if peer.is_trusted or is_loopback(peer.address):
            return ""
        return subject_of_address(peer.address)


def _most_descriptors() -> int:
    """Three quarters of the files that this process may open; the rest is for other ports, files
    and what is asked elsewhere."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return _ENDLESS if soft == resource.RLIM_INFINITY else soft * 3 // 4
