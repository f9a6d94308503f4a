"""`auth:` of the file. Keys are hashed as soon as they are read, and are nowhere afterwards."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from balancer.access import DEFAULT_KEY_HEADER, Auth, Credential, digest_of
from balancer.config_file.basic_section import holders, shown_holder
from balancer.config_file.jwt_section import (
    introspection,
    issuers,
    shown_introspection,
    shown_issuer,
)
from balancer.config_file.key_facts import KeyFacts, credential, shaped_facts, shown_facts
from balancer.config_file.secret_texts import SecretReader, secret_text
from balancer.config_file.sections import SectionFault, shaped, within

MOST_KEYS = 10_000
_ALLOWED = (
    "allowed: api_keys (a list), api_key_header (a name), jwt (a section or several), basic (a "
    "list), introspection (a section), metrics_token (a text, env or file)"
)
_ALLOWED_KEY = "1..4096 printable ASCII characters without spaces"
_KEY = re.compile(r"[!-~]{1,4096}")
_SCRAPER = "metrics token"
"""No key of `api_keys` can have this name."""
_IDS_OF_OTHERS = ("key_", "jwt:", "token:", "basic:")
"""How those begin of keys that are made here, of tokens and of names with passwords."""
_HEADER = re.compile(r"[A-Za-z0-9-]{1,64}")


class _Auth(Struct, forbid_unknown_fields=True):
    api_keys: list[Any] = []
    api_key_header: str = DEFAULT_KEY_HEADER
    jwt: Any = None
    basic: Any = None
    introspection: Any = None
    metrics_token: Any = None


class _Key(KeyFacts, kw_only=True, forbid_unknown_fields=True):
    key: str | None = None
    env: str | None = None
    file: str | None = None


def auth(raw: Any, secret: SecretReader) -> Auth:
    """What the section says. Raises `SectionFault`; no message holds a key."""
    given = shaped(raw, _Auth, _ALLOWED)
    if not _HEADER.fullmatch(given.api_key_header):
        problem = f"{given.api_key_header!r:.80} cannot be used"
        raise SectionFault(("api_key_header",), problem, "allowed: up to 64 letters, digits and -")
    with within("api_keys"):
        keys = _credentials(given.api_keys, secret)
    with within("jwt"):
        jwt = () if given.jwt is None else issuers(given.jwt, secret)
    with within("basic"):
        basic = () if given.basic is None else holders(given.basic, secret)
    with within("introspection"):
        asked = given.introspection
        provider = None if asked is None else introspection(asked, secret)
    with within("metrics_token"):
        scraper = _metrics_token(given.metrics_token, secret, keys)
    return Auth(
        api_keys=keys,
        api_key_header=given.api_key_header,
        jwt=jwt,
        basic=basic,
        introspection=provider,
        metrics_token=scraper,
    )


def shown_auth(given: Auth) -> dict[str, Any]:
    """What may be shown of it: no key, nor what it is known by."""
    shown: dict[str, Any] = {
        "api_key_header": given.api_key_header,
        "api_keys": [_shown(one) for one in given.api_keys],
    }
    if given.jwt:
        shown["jwt"] = [shown_issuer(one) for one in given.jwt]
    if given.basic:
        shown["basic"] = [shown_holder(one) for one in given.basic]
    if given.introspection is not None:
        shown["introspection"] = shown_introspection(given.introspection)
    if given.metrics_token is not None:
        shown |= {"metrics_token": "***"}
    return shown


def _credentials(raw: Sequence[Any], secret: SecretReader) -> tuple[Credential, ...]:
    if len(raw) > MOST_KEYS:
        raise SectionFault((), f"there are {len(raw)} keys", f"allowed: at most {MOST_KEYS}")
    found: list[Credential] = []
    for index, one in enumerate(raw):
        with within(index):
            found.append(_credential(one, index, secret))
    _check_differ([one.digest for one in found], "key")
    _check_differ([one.id for one in found], "name")
    return tuple(found)


def _check_differ(values: Sequence[object], what: str) -> None:
    first: dict[object, int] = {}
    for index, value in enumerate(values):
        if first.setdefault(value, index) != index:
            problem = f"its {what} is that of number {first[value] + 1} of the list"
            raise SectionFault((index,), problem, f"give each {what} once")


def _credential(raw: Any, index: int, secret: SecretReader) -> Credential:
    if isinstance(raw, str):
        digest = _digest(raw, "key")
        return Credential(digest=digest, id=f"configured-{index + 1}", is_named=False)
    if not isinstance(raw, dict):
        raise SectionFault((), "this is no key", "write the key, or a section with `key: …`")
    for name in ("key", "env", "file"):
        if name in raw and not isinstance(raw[name], str):  # a fault of the key does not repeat it
            raise SectionFault((name,), "this is no text", "put it in quotes")
    given = shaped_facts(raw, _Key)
    digest = _found_digest(given, secret)
    found = credential(given, digest, default_name=f"configured-{index + 1}")
    if found.id.startswith(_IDS_OF_OTHERS):  # they would share limits and lines of the log
        remedy = f"allowed: what does not begin with {', '.join(_IDS_OF_OTHERS)}"
        raise SectionFault(("name",), f"{found.id!r} begins as ids of others do", remedy)
    return found


def _metrics_token(raw: Any, secret: SecretReader, keys: Sequence[Credential]) -> Credential | None:
    if raw is None:
        return None
    digest = _digest(secret_text(raw, secret), "key")
    if any(one.digest == digest for one in keys):
        raise SectionFault((), "it is one of the api_keys, too", "give each key once")
    return Credential(digest=digest, id=_SCRAPER, role="admin", classes=("metrics",))


def _found_digest(given: _Key, secret: SecretReader) -> bytes:
    sources = {
        kind: value
        for kind, value in (("key", given.key), ("env", given.env), ("file", given.file))
        if value is not None
    }
    if len(sources) != 1:
        problem = f"there are {len(sources)} of key, env and file" if sources else "there is no key"
        remedy = "write one of key: TEXT, env: VARIABLE, file: PATH"
        raise SectionFault((), problem, remedy)
    kind, value = next(iter(sources.items()))
    if kind == "key":
        return _digest(value, "key")
    try:
        return _digest(secret(kind, value), kind)
    except ValueError as error:
        raise SectionFault((kind,), str(error), "put the key there, in one line") from error


def _digest(key: str, step: str) -> bytes:
    if not _KEY.fullmatch(key):
        steps = () if step == "key" else (step,)
        raise SectionFault(steps, "this key cannot be used", f"allowed: {_ALLOWED_KEY}")
    return digest_of(key)


def _shown(one: Credential) -> dict[str, Any]:
    shown = {"name": one.id, "key": "***", "role": one.role, **shown_facts(one)}
    return shown if one.expires_s is None else {**shown, "expires_s": one.expires_s}
