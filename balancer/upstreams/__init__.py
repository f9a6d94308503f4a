"""Outbound HTTP: every call that the balancer makes to a server of somebody else."""
