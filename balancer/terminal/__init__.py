"""Terminal programs: clients of our own HTTP API that import nothing else of the balancer."""
