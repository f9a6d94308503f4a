"""A tree of plain values that is addressed by dotted paths, and what changed between two of them.

Pure. A tree is a dictionary of trees and values; lists are values. In a path a name's `~` is
written `~0` and its `.` is written `~1`, as JSON pointers do with their own signs (RFC 6901).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from msgspec import Struct

Tree = Mapping[str, Any]
_ABSENT = object()


class Difference(Struct, frozen=True):
    """What makes the new tree of the old one. A value that is set replaces all that was there."""

    set: dict[str, Any]
    gone: list[str]

    def __bool__(self) -> bool:
        return bool(self.set or self.gone)


def dotted(*names: str) -> str:
    """The path through these names."""
    return ".".join(name.replace("~", "~0").replace(".", "~1") for name in names)


def value_at(tree: Tree, path: str) -> Any:
    """The value or the subtree at a path; None where there is none."""
    found: Any = tree
    for part in path.split("."):
        if not isinstance(found, Mapping):
            return None
        found = found.get(part.replace("~1", ".").replace("~0", "~"))
    return found


def leaves(tree: Tree) -> Iterator[tuple[str, Any]]:
    """Every value with its path. A subtree without anything in it is a value, too."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from ((f"{dotted(name)}.{path}", leaf) for path, leaf in leaves(value))
        else:
            yield dotted(name), value


def difference(old: Tree, new: Tree) -> Difference:
    """What is new or other, whole subtrees at their roots, and the roots of what is gone."""
    found = Difference({}, [])
    _compare(old, new, "", found)
    return found


def _compare(old: Tree, new: Tree, prefix: str, found: Difference) -> None:
    for name, value in new.items():
        before = old.get(name, _ABSENT)
        if before is value or before == value:
            continue
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            _compare(before, value, f"{prefix}{dotted(name)}.", found)
        else:
            found.set[prefix + dotted(name)] = value
    found.gone.extend(prefix + dotted(name) for name in old if name not in new)
