"""The two ports: translates between HTTP and the dispatcher, decides nothing."""
