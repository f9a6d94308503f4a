"""The tree of figures, its paths, and what changes in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from balancer.observability.tree import Tree, difference, dotted, leaves, value_at

NAMES = st.text(alphabet="ab.~1", min_size=1, max_size=3)
VALUES = st.none() | st.integers(0, 2) | st.lists(st.integers(0, 1), max_size=2)
TREES: st.SearchStrategy[dict[str, Any]] = st.dictionaries(
    NAMES,
    st.recursive(VALUES, lambda inner: st.dictionaries(NAMES, inner, max_size=3), max_leaves=6),
    max_size=3,
)


def _plain(tree: Tree) -> dict[str, Any]:
    return {k: _plain(v) if isinstance(v, Mapping) else v for k, v in tree.items()}


def _names(path: str) -> list[str]:
    return [part.replace("~1", ".").replace("~0", "~") for part in path.split(".")]


def _applied(tree: dict[str, Any], change: Any) -> dict[str, Any]:
    """As a reader does it."""
    for path in change.gone:
        *parents, last = _names(path)
        node = tree
        for name in parents:
            node = node[name]
        del node[last]
    for path, value in change.set.items():
        *parents, last = _names(path)
        node = tree
        for name in parents:
            node = node.setdefault(name, {})
        node[last] = _plain(value) if isinstance(value, Mapping) else value
    return tree


@given(old=TREES, new=TREES)
def test_a_reader_that_takes_every_change_has_the_same_tree(
    old: dict[str, Any], new: dict[str, Any]
) -> None:
    assert _applied(_plain(old), difference(old, new)) == new


@given(tree=TREES)
def test_nothing_changes_in_what_stands_still(tree: dict[str, Any]) -> None:
    assert not difference(tree, _plain(tree))


@given(tree=TREES)
def test_every_leaf_is_found_at_its_path(tree: dict[str, Any]) -> None:
    for path, value in leaves(tree):
        assert value_at(tree, path) == value


def test_only_what_changed_is_told_and_new_subtrees_whole() -> None:
    old = {"a": {"x": 1, "y": 2}, "gone": {"z": 3}}
    new = {"a": {"x": 1, "y": 5}, "b": {"c": {"d": 1}}}
    change = difference(old, new)
    assert change.set == {"a.y": 5, "b": {"c": {"d": 1}}}
    assert change.gone == ["gone"]


def test_a_name_with_a_dot_or_a_tilde_is_one_name() -> None:
    tree = {"agents": {"gpu.1~a": {"state": "ready"}}}
    path = dotted("agents", "gpu.1~a", "state")
    assert path == "agents.gpu~11~0a.state"
    assert value_at(tree, path) == "ready"
    assert value_at(tree, "agents.gpu.1") is None
    assert value_at(tree, f"{path}.deeper") is None


def test_an_empty_subtree_is_a_leaf() -> None:
    assert dict(leaves({"requests": {}, "a": {"b": None}})) == {"requests": {}, "a.b": None}
