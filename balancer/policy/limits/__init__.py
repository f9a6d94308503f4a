"""How much of everything somebody may have: windows of arrivals and tokens, days, places. Pure."""
