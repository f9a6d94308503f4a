"""Finding a marker in text that arrives in pieces."""

from __future__ import annotations


def partial_marker_chars(text: str, marker: str) -> int:
    """How many characters at the end of `text` could be the beginning of `marker`."""
    for length in range(min(len(marker) - 1, len(text)), 0, -1):
        if marker.startswith(text[-length:]):
            return length
    return 0


def certain_chars(text: str, marker: str) -> int:
    """How much of `text`, which holds no whole `marker`, surely stands before it.

    White space at the end is not certain: it belongs to the marker if that follows.
    """
    return len(text[: len(text) - partial_marker_chars(text, marker)].rstrip())
