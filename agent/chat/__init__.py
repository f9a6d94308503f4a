"""Text <-> messages on the agent's side: chat templates in, reasoning and tool calls out."""
