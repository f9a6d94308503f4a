"""The wire format and the domain types that both sides share; stdlib and msgspec only."""
