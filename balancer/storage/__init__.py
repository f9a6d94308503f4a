"""What outlives a request: in memory, or in a file."""
