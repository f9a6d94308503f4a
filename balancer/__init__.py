"""The balancer: one process in front of many agents."""
