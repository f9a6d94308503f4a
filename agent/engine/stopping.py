"""Stop strings over a stream of text: nothing of a match is ever let out. Pure.

Every stop string has a matcher that advances one character at a time (Knuth, Morris, Pratt 1977),
so the work is linear and the result is a function of the text alone, not of how it was cut. The
stop that completes first wins; of those that complete together, the longest.
"""

from __future__ import annotations


class StopMatcher:
    """Feed text, get the text that became certain.

    Held back is the longest end of the text that could still become a stop string. After a match
    `matched` names the stop; the text before it was returned, the stop itself never is.
    """

    def __init__(self, stops: tuple[str, ...]) -> None:
        self.matched: str | None = None
        self._patterns = [_Pattern(stop) for stop in dict.fromkeys(stops) if stop]
        self._held = ""

    def feed(self, text: str) -> str:
        """The certain part of everything held and `text`. Nothing is taken after a match."""
        if not self._patterns:
            return text
        if self.matched is not None:
            return ""
        pending = self._held + text
        for end in range(len(self._held), len(pending)):
            stop = self._advance(pending[end])
            if stop is not None:
                self.matched = stop
                self._held = ""
                return pending[: end + 1 - len(stop)]
        held = max(pattern.length_matched for pattern in self._patterns)
        certain = len(pending) - held
        self._held = pending[certain:]
        return pending[:certain]

    def flush(self) -> str:
        """What is still held: the text is over, it can become no stop string any more."""
        held, self._held = self._held, ""
        return held

    def _advance(self, character: str) -> str | None:
        completed = [p.text for p in self._patterns if p.completes_with(character)]
        return max(completed, key=len) if completed else None


class _Pattern:
    """One stop string and how much of it the text so far ends with."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.length_matched = 0
        self._fallbacks = _fallbacks(text)

    def completes_with(self, character: str) -> bool:
        length = self.length_matched
        while length and self.text[length] != character:
            length = self._fallbacks[length - 1]
        if self.text[length] == character:
            length += 1
        if length == len(self.text):
            return True
        self.length_matched = length
        return False


def _fallbacks(text: str) -> list[int]:
    """For each prefix: the length of its longest proper prefix that is also its end."""
    table = [0] * len(text)
    length = 0
    for index in range(1, len(text)):
        while length and text[index] != text[length]:
            length = table[length - 1]
        if text[index] == text[length]:
            length += 1
        table[index] = length
    return table
