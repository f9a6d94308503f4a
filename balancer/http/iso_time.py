"""Dates as answers show them."""

from __future__ import annotations

from datetime import UTC, datetime


def iso_time(unix_s: float) -> str:
    """UTC, ISO 8601, whole seconds."""
    return datetime.fromtimestamp(int(unix_s), UTC).isoformat().replace("+00:00", "Z")
