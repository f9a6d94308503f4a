"""What our own code takes for granted, checked where it does: also under `python -O`.

Nothing here judges what a peer sent. That is the codec's to do, with an answer that the peer can
use.
"""

from __future__ import annotations

from typing import TypeVar

_Value = TypeVar("_Value")


def present(value: _Value | None) -> _Value:
    """The value that the code before this saw to. Raises AssertionError where there is none."""
    if value is None:
        raise AssertionError("nothing is where our own code put something")
    return value


def instance_of(value: object, kind: type[_Value]) -> _Value:
    """The value, decoded as `kind` before. Raises AssertionError where it is of another."""
    if not isinstance(value, kind):
        raise AssertionError(f"{type(value).__name__} is where {kind.__name__} was decoded")
    return value
