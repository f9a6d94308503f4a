"""The engine process and the agent's side of it."""
