"""`limits:` of the file, and the limits of single keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar, get_args

from msgspec import Struct, structs

from balancer.access import Allowance, Limits, LimitTable, Role, RouteClass, Tier
from balancer.config_file.sections import SectionFault, listed, shaped, within

MOST = 10**12
NUMBERS = "a whole number 0..10^12"
_LIMIT_NAMES = Limits.__struct_fields__
_Name = TypeVar("_Name", bound=str)


class _Table(Struct, forbid_unknown_fields=True):
    roles: dict[str, Any] = {}
    tiers: dict[str, Any] = {}
    routes: dict[str, Any] = {}
    address: Any = None


def limit_table(raw: Any) -> LimitTable:
    """What the section says, over the defaults: of a role, tier or class that it names, what it
    says of it alone. Raises `SectionFault`."""
    given, table = shaped(raw, _Table, "allowed: roles, tiers, routes, address"), LimitTable()
    with within("routes"):
        classes = _by_class(given.routes)
    return LimitTable(
        roles={**table.roles, **_allowances("roles", given.roles, Role)},
        tiers={**table.tiers, **_allowances("tiers", given.tiers, Tier)},
        classes={**table.classes, **classes},
        address=table.address if given.address is None else _limits_at("address", given.address),
    )


def allowance(raw: Any) -> Allowance:
    """Limits, and under `routes` those of classes of routes. Raises `SectionFault`."""
    if not isinstance(raw, Mapping):
        raise SectionFault((), "this is no section", f"allowed: {_ALLOWED}, routes")
    own = {name: value for name, value in raw.items() if name != "routes"}
    classes = raw.get("routes", {})
    limits = _limits(own)
    with within("routes"):
        return Allowance(limits=limits, classes=_by_class(classes))


def shown_allowance(given: Allowance) -> dict[str, Any]:
    """As it is written."""
    shown = shown_limits(given.limits)
    if given.classes:
        shown["routes"] = {name: shown_limits(one) for name, one in given.classes.items()}
    return shown


def shown_limits(limits: Limits) -> dict[str, Any]:
    """As they are written."""
    return {name: value for name, value in structs.asdict(limits).items() if value is not None}


def shown_table(table: LimitTable) -> dict[str, Any]:
    """As it is written."""
    return {
        "roles": {name: shown_allowance(one) for name, one in table.roles.items()},
        "tiers": {name: shown_allowance(one) for name, one in table.tiers.items()},
        "routes": {name: shown_limits(one) for name, one in table.classes.items()},
        "address": shown_limits(table.address),
    }


_ALLOWED = ", ".join(_LIMIT_NAMES)


def _allowances(step: str, raw: Mapping[str, Any], names: Any) -> dict[Any, Allowance]:
    found: dict[Any, Allowance] = {}
    with within(step):
        for name, value in raw.items():
            _check_name(name, names)
            with within(name):
                found[name] = allowance(value)
    return found


def _by_class(raw: Any) -> dict[RouteClass, Limits]:
    if not isinstance(raw, Mapping):
        raise SectionFault((), "this is no section", f"allowed: {listed(RouteClass)}")
    found: dict[RouteClass, Limits] = {}
    for name, value in raw.items():
        _check_name(name, RouteClass)
        found[name] = _limits_at(name, value)
    return found


def _check_name(name: str, names: Any) -> None:
    if name not in get_args(names):
        raise SectionFault((name,), f"there is no {name!r:.80}", f"allowed: {listed(names)}")


def _limits_at(step: str, raw: Any) -> Limits:
    with within(step):
        return _limits(raw)


def _limits(raw: Any) -> Limits:
    if not isinstance(raw, Mapping):
        raise SectionFault((), "this is no section", f"allowed: {_ALLOWED}")
    for name in raw:
        if name not in _LIMIT_NAMES:
            raise SectionFault((name,), "there is no such limit", f"allowed: {_ALLOWED}")
    return Limits(**{name: _number(name, value) for name, value in raw.items()})


def _number(name: str, raw: Any) -> int | None:
    if raw is None:
        return None
    text = str(raw)
    if isinstance(raw, bool) or not text.isascii() or not text.isdigit() or int(text) > MOST:
        raise SectionFault((name,), f"{raw!r:.80} cannot be used", f"allowed: {NUMBERS}")
    return int(text)
