"""`auth.basic` of the file: who signs in with a name and a password. Only hashes are read."""

from __future__ import annotations

import re
from typing import Any

from argon2 import Type, extract_parameters
from argon2.exceptions import InvalidHashError
from msgspec import structs

from balancer.access import Credential, PasswordHolder, digest_of
from balancer.config_file.key_facts import KeyFacts, credential, shaped_facts, shown_facts
from balancer.config_file.secret_texts import SecretReader, Unread, secret_text
from balancer.config_file.sections import SectionFault, within
from balancer.secret import Secret
from balancer.settings import KIB

MOST_HOLDERS = 1000
MOST_MEMORY_KIB = 256 * KIB
MOST_PASSES = 16
MOST_LANES = 16
LEAST_MEMORY_KIB = 7 * KIB
"""OWASP's weakest choice for Argon2id, with five passes."""
_REMEDY = "write what `paddler-py config hash-password` prints"
_SOURCES = ("password_hash", "env", "file")
_NAME = re.compile(r"[A-Za-z0-9._@-]{1,57}")
ID_PREFIX = "basic:"


class _Holder(KeyFacts, kw_only=True, forbid_unknown_fields=True):
    password_hash: str | None = None
    env: str | None = None
    file: str | None = None


def holders(raw: Any, read: SecretReader) -> tuple[PasswordHolder, ...]:
    """Raises `SectionFault`; no message holds a hash."""
    if not isinstance(raw, list) or len(raw) > MOST_HOLDERS:
        remedy = f"write a list of up to {MOST_HOLDERS} sections with name and password_hash"
        raise SectionFault((), "this is no list of names and passwords", remedy)
    found: dict[str, PasswordHolder] = {}
    for index, one in enumerate(raw):
        with within(index):
            holder = _holder(one, read)
            if holder.name in found:
                raise SectionFault(("name",), "it is there twice", "give each name once")
            found[holder.name] = holder
    return tuple(found.values())


def shown_holder(one: PasswordHolder) -> dict[str, Any]:
    """What may be shown of it."""
    held = one.credential
    shown = {"name": one.name, "password_hash": "***", "role": held.role, **shown_facts(held)}
    return shown if held.expires_s is None else {**shown, "expires_s": held.expires_s}


def _holder(raw: Any, read: SecretReader) -> PasswordHolder:
    if not isinstance(raw, dict):
        raise SectionFault((), "this is no section", "write name: NAME and password_hash: …")
    for name in _SOURCES:
        if name in raw and not isinstance(raw[name], str):  # a fault of it does not repeat it
            raise SectionFault((name,), "this is no text", "put it in quotes")
    given = shaped_facts(raw, _Holder)
    name = given.name or ""
    if not _NAME.fullmatch(name):
        problem = f"{name!r:.80} cannot be used" if name else "there is no name"
        raise SectionFault(("name",), problem, "allowed: up to 57 of letters, digits and ._@-")
    held: Credential = credential(given, b"", default_name="")
    password_hash = _hash(given, read)
    return PasswordHolder(
        name=name,
        password_hash=Secret(password_hash),
        credential=_standing_for(held, password_hash),
    )


def _standing_for(held: Credential, password_hash: str) -> Credential:
    """Its id is no key's, nor is its tenant if it has none."""
    own_id = ID_PREFIX + held.id
    return structs.replace(
        held, id=own_id, digest=digest_of(password_hash), tenant=held.tenant or own_id
    )


def _hash(given: _Holder, read: SecretReader) -> str:
    sources = [name for name in _SOURCES if getattr(given, name) is not None]
    if len(sources) != 1:
        problem = f"there are {len(sources)} of {', '.join(_SOURCES)}"
        raise SectionFault((), problem, _REMEDY)
    kind = sources[0]
    value = getattr(given, kind)
    text = value if kind == "password_hash" else secret_text({kind: value}, read)
    with within(kind):
        if not isinstance(text, Unread):
            _check_hash(text)
    return str(text)


def _check_hash(text: str) -> None:
    try:
        found = extract_parameters(text)
    except (InvalidHashError, ValueError) as error:
        raise SectionFault((), "this is no hash of Argon2", _REMEDY) from error
    if found.type is not Type.ID:
        raise SectionFault((), "this is not Argon2id", _REMEDY)
    if not LEAST_MEMORY_KIB <= found.memory_cost <= MOST_MEMORY_KIB:
        problem = f"it takes {found.memory_cost} KiB of memory"
        remedy = f"allowed: {LEAST_MEMORY_KIB}..{MOST_MEMORY_KIB} KiB; {_REMEDY}"
        raise SectionFault((), problem, remedy)
    if found.time_cost > MOST_PASSES or found.parallelism > MOST_LANES:
        problem = f"it takes {found.time_cost} passes and {found.parallelism} lanes"
        remedy = f"allowed: up to {MOST_PASSES} passes and {MOST_LANES} lanes; {_REMEDY}"
        raise SectionFault((), problem, remedy)
