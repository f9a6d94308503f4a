"""Text that nobody may see by accident."""

from __future__ import annotations


class Secret:
    """A setting's text that opens something. Who prints or lists it shows that there is one; only
    `reveal` tells it."""

    __slots__ = ("_text",)

    def __init__(self, text: str) -> None:
        self._text = text

    def reveal(self) -> str:
        """The text, for whom it is meant."""
        return self._text

    def __bool__(self) -> bool:
        return bool(self._text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)

    def __repr__(self) -> str:
        return "[secret]" if self._text else "[no secret]"
