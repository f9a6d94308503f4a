"""What the balancer can ask of an agent: one file a command, one table of them."""
