"""What the operator sees: every metric in one file, and the logs' form."""
