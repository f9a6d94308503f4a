"""API keys that are made here: what is kept of them, and what may be made. Pure.

Of a key itself there is only a digest. What a key may do is its `facts`, a `Credential` whose
digest is empty.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import inf
from typing import Literal

from msgspec import Struct, structs

from balancer.access import Credential
from balancer.errors import Conflict, InvalidRequest, ResourceNotFound

MOST_KEYS = 10_000
"""That are kept, with those that have ended: of these the oldest give way."""
OVERLAP_S = 3600.0
"""How long a key goes on beside the one that replaces it, where nobody says it."""
LONGEST_OVERLAP_S = 30 * 86_400.0
ID_BEGINNING = "key_"
"""No name begins so."""

State = Literal["active", "expired", "revoked"]


class KeyVersion(Struct, frozen=True, kw_only=True, gc=False):
    """One of the texts that a key has had."""

    number: int
    digest: bytes
    prefix: str
    """How the text begins."""
    created_s: float
    ends_s: float | None = None
    """When another replaced it, with the overlap."""


class StoredKey(Struct, frozen=True, kw_only=True, gc=False):
    """A key. Times are unix seconds."""

    id: str
    name: str
    facts: Credential
    """`expires_s` among them."""
    created_s: float
    revoked_s: float | None = None
    rotated_s: float | None = None
    used_s: float | None = None
    """Lately, to the minute or so."""
    versions: tuple[KeyVersion, ...]
    """The newest last."""

    def state(self, now_s: float) -> State:
        """Whether it opens anything."""
        if self.revoked_s is not None:
            return "revoked"
        return "expired" if now_s >= (self.facts.expires_s or inf) else "active"

    def can_manage(self, now_s: float) -> bool:
        """Whether who has it could make other keys."""
        return self.state(now_s) == "active" and can_manage(self.facts)

    def credentials(self) -> list[Credential]:
        """What each of its texts stands for; none once it is revoked."""
        if self.revoked_s is not None:
            return []
        return [
            structs.replace(
                self.facts,
                id=self.id,
                number=one.number,
                digest=one.digest,
                expires_s=_earlier(self.facts.expires_s, one.ends_s),
            )
            for one in self.versions
        ]


class Overview(Struct, frozen=True, kw_only=True):
    """All keys of a store."""

    keys: tuple[StoredKey, ...]
    pepper: bytes
    """What their digests were made with."""

    @property
    def credentials(self) -> list[Credential]:
        """Of those that are not revoked."""
        return [credential for key in self.keys for credential in key.credentials()]


class MadeKey(Struct, frozen=True, kw_only=True):
    """A key whose text is known for this once."""

    text: str
    key: StoredKey


def can_manage(facts: Credential) -> bool:
    """Whether a key could make others."""
    may_call = not facts.classes or "management" in facts.classes
    return facts.role in ("admin", "system") and may_call


def check_may_be_made(
    name: str, facts: Credential, keys: Sequence[StoredKey], *, now_s: float, is_managed: bool
) -> None:
    """Raises `Conflict` where a key has the name, `InvalidRequest` for any other than an admin's
    while there is none. `is_managed`: somebody else may make keys, as one of the configuration."""
    if name.startswith(ID_BEGINNING):
        raise InvalidRequest(
            f"a name must not begin with {ID_BEGINNING!r}, as ids do; choose another", param="name"
        )
    if any(key.name == name and key.revoked_s is None for key in keys):
        raise Conflict(
            f"there is a key of the name {name!r}; revoke it first, rotate it, or choose another "
            "name",
            param="name",
        )
    if (facts.expires_s or inf) <= now_s:
        raise InvalidRequest(
            "the key would have expired already; choose a later end", param="expires"
        )
    is_first = not is_managed and not any(key.can_manage(now_s) for key in keys)
    if is_first and not (facts.role == "admin" and can_manage(facts)):
        raise InvalidRequest(
            "the first key must be an admin's, as nobody could make or revoke keys without one; "
            "make one of role admin that is not bound to other routes than management, then this",
            param="role",
            details={"parameter": "role", "received_value": facts.role, "expected": "admin"},
        )


def to_give_way(keys: Iterable[StoredKey], now_s: float) -> StoredKey:
    """The oldest that has ended. Raises `Conflict` where none has."""
    ended = [key for key in keys if key.state(now_s) != "active"]
    if not ended:
        raise Conflict(
            f"there are {MOST_KEYS} keys already; revoke those that nobody needs",
            code="too_many_keys",
        )
    return min(ended, key=lambda key: key.created_s)


def found(wanted: str, keys: Iterable[StoredKey]) -> StoredKey:
    """The key of an id or a name; of a name the one that has it, else the last that had it. Raises
    `ResourceNotFound`."""
    named: StoredKey | None = None
    for key in keys:
        if key.id == wanted or (key.name == wanted and key.revoked_s is None):
            return key
        if key.name == wanted:
            named = key
    if named is not None:
        return named
    raise ResourceNotFound(
        f"no key {wanted[:200]!r} is stored here; the list of keys has their ids and names (keys "
        "of the configuration are changed there)"
    )


def check_may_be_rotated(key: StoredKey, now_s: float) -> None:
    """Raises `Conflict` for one that has ended."""
    if (state := key.state(now_s)) != "active":
        raise Conflict(f"the key {key.name!r} is {state}; create another", code="key_ended")


def rotated(key: StoredKey, new: KeyVersion, *, overlap_s: float) -> StoredKey:
    """With a new text; the one before it ends after the overlap, any older one now."""
    last = key.versions[-1]
    before = structs.replace(last, ends_s=new.created_s + overlap_s)
    return structs.replace(key, rotated_s=new.created_s, versions=(before, new))


def _earlier(one: float | None, other: float | None) -> float | None:
    times = [at for at in (one, other) if at is not None]
    return min(times, default=None)
