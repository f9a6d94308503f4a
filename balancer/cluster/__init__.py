"""What several balancers may share: the counters of limits."""
