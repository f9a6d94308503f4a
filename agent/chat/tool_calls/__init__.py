"""How models write tool calls: one file a format, one parser, one table."""
