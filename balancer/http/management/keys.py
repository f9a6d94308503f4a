"""/keys: API keys that are made here. A key is shown once, when it is made; stored is a digest."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import msgspec
import structlog

from balancer.access import Credential
from balancer.config_file.key_facts import key_facts
from balancer.config_file.sections import SectionFault
from balancer.errors import InvalidRequest, ResourceNotFound
from balancer.http.calls import Call, audited
from balancer.http.exchange import Wiring
from balancer.http.faults import missing
from balancer.http.iso_time import iso_time
from balancer.http.management.key_rows import KeyRow, key_row
from balancer.storage.keys import LONGEST_OVERLAP_S, OVERLAP_S, MadeKey, Overview

log = structlog.get_logger(__name__)

MOST_SHOWN = 1000
LONGEST_DAYS = 36_500
MEMBERS = (
    "name", "role", "tier", "tenant", "models", "routes", "networks", "agents", "labels",
    "limits", "expires", "expires_in_days",
)  # fmt: skip
"""Of the body that makes a key."""

_SHOWN_ONCE = "the key is shown this once; keep it where its user finds it"
_IN_MEMORY = (
    "data_dir is not set: keys are in memory and end with the balancer; set data_dir to keep them"
)
_DOOR_CLOSED = (
    "from now on everybody needs a key. Agents need one of role system (--token-file FILE), whose "
    "routes should be `agents` alone: those that had none were disconnected and try again until "
    "they have one"
)
_IS_AN_ADMIN = (
    "role system may do all that an admin may; a key that lets agents in and nothing else has "
    '`routes` ["agents"]'
)


async def list_keys(call: Call, wiring: Wiring) -> dict[str, Any]:
    """Those that were made here, oldest first, with those that have ended. Raises
    `InvalidRequest`."""
    most = call.whole("limit", least=1, most=MOST_SHOWN, default=MOST_SHOWN)
    after, gate = call.text("after", ""), wiring.gate

    def shown(overview: Overview) -> dict[str, Any]:
        keys, now_s = overview.keys, time.time()
        start = _start(after, [key.id for key in keys])
        rows = [
            key_row(key, now_s=now_s, used_s=gate.keys.used_s(key.id))
            for key in keys[start : start + most]
        ]
        return {"object": "list", "data": rows, "has_more": start + most < len(keys)}

    found = await wiring.keys.overview(shown)
    return {**found, "kept": "file" if wiring.keys.is_kept else "memory"}


def _id_and_name(answer: Any) -> dict[str, str]:
    """Of the key that an answer tells of: whoever calls may name it by either."""
    row = answer if isinstance(answer, dict) else msgspec.structs.asdict(answer)
    return {"id": row["id"], "name": row["name"]}


@audited("key.create", target="name", facts_of=_id_and_name)
async def create_key(call: Call, wiring: Wiring) -> dict[str, Any]:
    """A new one, in force at once. Raises `InvalidRequest`, `Conflict` for a name in use."""
    facts = _facts(call)
    was_open = wiring.gate.is_open
    made = await wiring.keys.create(facts.id, facts, is_managed=not was_open)
    log.warning("key created", id=made.key.id, role=facts.role, by=_who(call), request_id=call.id)
    notes = [_SHOWN_ONCE]
    if was_open:
        notes.append(_DOOR_CLOSED)
    if facts.role == "system" and not facts.classes:
        notes.append(_IS_AN_ADMIN)
    if not wiring.keys.is_kept:
        notes.append(_IN_MEMORY)
    return _made(made, notes)


@audited("key.revoke", facts_of=_id_and_name)
async def revoke_key(call: Call, wiring: Wiring) -> KeyRow:
    """It opens nothing any more; what was let in by it ends. Raises `ResourceNotFound`."""
    key = await wiring.keys.revoke(call.text("id"))
    log.warning("key revoked", id=key.id, by=_who(call), request_id=call.id)
    return key_row(key, now_s=time.time())


@audited("key.rotate", facts_of=_id_and_name)
async def rotate_key(call: Call, wiring: Wiring) -> dict[str, Any]:
    """Another text for the same key; the one before goes on for `overlap_s`. Raises
    `ResourceNotFound`, `Conflict` for a key that has ended."""
    overlap_s = call.number("overlap_s", least=0, most=LONGEST_OVERLAP_S, unit=" of seconds")
    made = await wiring.keys.rotate(
        call.text("id"), overlap_s=OVERLAP_S if overlap_s is None else overlap_s
    )
    log.warning("key rotated", id=made.key.id, by=_who(call), request_id=call.id)
    return _made(made, [_SHOWN_ONCE])


def _made(made: MadeKey, notes: list[str]) -> dict[str, Any]:
    row: dict[str, Any] = msgspec.to_builtins(key_row(made.key, now_s=time.time()))
    return {**row, "key": made.text, "notes": notes}


def _who(call: Call) -> str:
    return call.principal.id or call.principal.tenant


def _start(after: str, ids: list[str]) -> int:
    """Where the page behind this id begins."""
    if not after:
        return 0
    if after not in ids:
        raise ResourceNotFound(f"no key {after[:200]!r} is stored here", param="after")
    return ids.index(after) + 1


def _facts(call: Call) -> Credential:
    given: Mapping[str, Any] = {
        name: value for name, value in call.params.items() if value is not None
    }
    if "name" not in given:
        raise missing("name")
    days = call.number("expires_in_days", least=0.001, most=LONGEST_DAYS)
    if days is not None:
        if "expires" in given:
            raise InvalidRequest(
                "send one of `expires` and `expires_in_days`", param="expires_in_days"
            )
        rest = {name: value for name, value in given.items() if name != "expires_in_days"}
        given = {**rest, "expires": iso_time(time.time() + 86_400 * days)}
    try:
        return key_facts(given)
    except SectionFault as fault:
        param = fault.field("").removeprefix(".")
        raise InvalidRequest(
            f"`{param}`: {fault}; {fault.remedy}",
            param=param,
            details={"parameter": param, "issue": str(fault), "expected": fault.remedy},
        ) from fault
