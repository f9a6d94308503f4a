"""Under which bounds a request comes in: by its key, its class of routes, its address. Pure."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

from balancer.access import NO_ALLOWANCE, NO_LIMITS, Limits, LimitTable, RouteClass
from balancer.policy.identity.principal import Principal
from balancer.policy.limits.amounts import Bound

_IPV6_NETWORK_BITS = 64
"""What one household has: it may call from any address within."""


def bounds_of(
    principal: Principal,
    route_class: RouteClass,
    address: str,
    table: LimitTable,
    *,
    is_for_all: bool = False,
) -> tuple[Bound, ...]:
    """Those that limit anything. What a key says goes before its tier's, that before its role's;
    a class's own limit binds those of whom none of these says anything about that class. Routes
    that are for all, as probes and pages, have that of their class alone."""
    if principal.is_unlimited:
        return ()
    allowances = (
        principal.allowance,
        table.tiers.get(principal.tier, NO_ALLOWANCE) if principal.tier else NO_ALLOWANCE,
        table.roles.get(principal.role, NO_ALLOWANCE),
    )
    whole = NO_LIMITS
    of_class: Limits | None = None
    for allowance in allowances:
        whole = whole.over(allowance.limits)
        own = allowance.classes.get(route_class)
        if own is not None:
            of_class = own if of_class is None else of_class.over(own)
    if of_class is None:
        of_class = table.classes.get(route_class, NO_LIMITS)
    where = subject_of_address(address)
    who = f"key {principal.id}" if principal.id else where
    candidates = (
        Bound(who, NO_LIMITS if is_for_all else whole),
        Bound(f"{who} {route_class}", of_class),
        Bound(f"all of {where}", table.address),
    )
    return tuple(bound for bound in candidates if not bound.limits.is_none)


def subject_of_address(address: str) -> str:
    """Who calls from an address: of IPv6, everybody of its network."""
    try:
        found = ip_address(address.partition("%")[0])
    except ValueError:
        return f"address {address}"
    if found.version == 4:
        return f"address {found}"
    if found.ipv4_mapped is not None:
        return f"address {found.ipv4_mapped}"
    return f"address {ip_network((found, _IPV6_NETWORK_BITS), strict=False)}"
