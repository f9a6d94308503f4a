"""Loops that watch; what they act on is given to them by `balancer.app`."""
