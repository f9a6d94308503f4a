"""A YAML file as texts with the lines where they stand.

Values stay as they are written: `010`, `1e3` and `2024-01-01` are for the setting's own rule to
read, as in a variable. Only true, false and nothing are taken from YAML. Nothing is built from
tags, and there are no aliases, so that a small file cannot grow.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml
from msgspec import Struct
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from balancer.config_file.faults import FaultyConfiguration, shown_name
from balancer.config_file.files import faulty_file, read_bounded

_MAX_DEPTH = 8
_KEY = re.compile(r"\s*(?:- +)?[\"']?([\w.-]+)[\"']?\s*:")
_BOOL, _NULL = "tag:yaml.org,2002:bool", "tag:yaml.org,2002:null"
_YES = frozenset({"yes", "true", "on"})
_OWN_TAGS = re.compile(
    r"tag:yaml\.org,2002:(str|int|float|bool|null|timestamp|merge|value|seq|map)"
)


class Entry(Struct, frozen=True):
    """A value with its line. Sections are dicts of entries, lists are plain."""

    value: Any
    line: int


class YamlFile(Struct, frozen=True):
    """What a file holds."""

    entries: dict[str, Entry]
    size_bytes: int


def read_yaml(path: Path) -> YamlFile:
    """Raises `FaultyConfiguration` with the first thing that is wrong with the file as YAML."""
    data = read_bounded(path, "file")
    text = _decoded(path, data)
    try:
        loader = _Loader(text, path)
        node = loader.get_single_node()
        entries = {} if node is None or node.tag == _NULL else _mapping(path, node)
    except yaml.MarkedYAMLError as error:
        raise _syntax_fault(path, text, error) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        problem = f"there is a character that YAML does not allow (#{error.character:#x})"
        raise _fault(path, line, "file", problem, "remove it") from error
    except (ValueError, OverflowError) as error:  # of PyYAML, which reads such numbers with int()
        line = loader.line + 1
        problem = "this is no YAML: a number of an escape or of a version is too large"
        raise _fault(path, line, _field_at(text, line), problem, "look at this line") from error
    return YamlFile(entries, len(data))


def _decoded(path: Path, data: bytes) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise _fault(path, line, "file", "this is not UTF-8", "save the file as UTF-8") from error


class _Loader(yaml.SafeLoader):
    """Composes nodes, without aliases and without depth."""

    def __init__(self, text: str, path: Path) -> None:
        self._path = path
        self._depth = 0
        self._field = "file"
        super().__init__(text)

    def compose_node(self, parent: Node | None, index: Any) -> Node | None:
        outer, self._field = self._field, _key_of(index) or self._field
        event = self.peek_event()  # type: ignore[no-untyped-call]  # of PyYAML
        if isinstance(event, yaml.AliasEvent):
            problem = f"*{shown_name(event.anchor or '')} refers to another place"
            raise self._fault_at(event, problem, "write the value itself")
        if self._depth == _MAX_DEPTH:
            problem = f"it is nested more than {_MAX_DEPTH} deep"
            raise self._fault_at(event, problem, "is it the right file?")
        self._depth += 1
        node = super().compose_node(parent, index)
        self._depth -= 1
        self._field = outer
        return node

    def _fault_at(self, event: yaml.Event, problem: str, remedy: str) -> FaultyConfiguration:
        mark: Any = event.start_mark  # what was read from a text has its place there
        line = mark.line + 1
        return _fault(self._path, line, self._field, problem, remedy)


def _key_of(index: Any) -> str | None:
    return shown_name(index.value) if isinstance(index, ScalarNode) else None


def _mapping(path: Path, node: Node) -> dict[str, Entry]:
    if not isinstance(node, MappingNode):
        line = node.start_mark.line + 1
        remedy = "write `name: value` lines, one a setting"
        raise _fault(path, line, "file", "there are no settings", remedy)
    entries: dict[str, Entry] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, ScalarNode):
            problem, remedy = "the name of a setting is a text", "write `name: value` lines"
            raise _fault(path, line, "file", problem, remedy)
        if (first := entries.get(key.value)) is not None:
            problem = f"it is there twice, first in line {first.line}"
            raise _fault(path, line, shown_name(key.value), problem, "remove one of the two")
        entries[key.value] = Entry(_value(path, value, key.value), line)
    return entries


def _value(path: Path, node: Node, name: str) -> Any:
    if not _OWN_TAGS.fullmatch(node.tag):
        line = node.start_mark.line + 1
        problem = f"the tag {shown_name(node.tag)} is not known here"
        raise _fault(path, line, shown_name(name), problem, "remove the tag")
    if isinstance(node, MappingNode):
        return _mapping(path, node)
    if isinstance(node, SequenceNode):
        return [_value(path, item, name) for item in node.value]
    if node.tag == _NULL:
        return None
    if node.tag == _BOOL:
        return str(node.value).lower() in _YES
    return node.value


def _syntax_fault(path: Path, text: str, error: yaml.MarkedYAMLError) -> FaultyConfiguration:
    mark = error.problem_mark or error.context_mark
    line = 1 if mark is None else mark.line + 1
    line = min(line, max(1, text.count("\n") + (not text.endswith("\n"))))
    said = error.problem or error.context or "it cannot be read"
    problem, remedy = f"this is no YAML: {said}", "look at this line and the one before it"
    if "'\\t'" in said:
        problem, remedy = "there is a tab where YAML wants spaces", "indent with spaces"
    elif "mapping values are not allowed" in said:
        remedy = "put a value with `: ` in it in quotes, and begin every name at the same column"
    elif "but found another document" in said:
        problem, remedy = "a second document begins here", "keep one, and remove the `---`"
    return _fault(path, line, _field_at(text, line), problem, remedy)


def _field_at(text: str, line: int) -> str:
    """The last name that stands at or before a line."""
    for candidate in reversed(text.splitlines()[:line]):
        if found := _KEY.match(candidate):
            return shown_name(found[1])
    return "file"


def _fault(path: Path, line: int, field: str, problem: str, remedy: str) -> FaultyConfiguration:
    return faulty_file(path, line, problem, remedy, field=field)
