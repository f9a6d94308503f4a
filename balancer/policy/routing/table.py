"""Every routing policy by the name that the setting `policy` takes."""

from __future__ import annotations

from balancer.policy.routing import (
    latency,
    least_busy,
    power_of_two,
    prefix_aware,
    round_robin,
)
from balancer.policy.routing.policy import RoutingPolicy
from balancer.settings import PolicyName

POLICIES: dict[PolicyName, RoutingPolicy] = {
    "least_busy": least_busy.choose,
    "round_robin": round_robin.choose,
    "power_of_two": power_of_two.choose,
    "latency": latency.choose,
    "prefix_aware": prefix_aware.choose,
}
