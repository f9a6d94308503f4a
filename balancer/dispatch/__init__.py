"""The conductor: finds a slot for each generation, relays it, and cleans up after it."""
