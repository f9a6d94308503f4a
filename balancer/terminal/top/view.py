"""What the operator looks at: a table, its order, a filter, a chosen row; and what keys do to it.

Pure: a key changes the view, or gives an action to perform, or leaves.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from msgspec import Struct

from balancer.terminal.top.actions import Action, Deed
from balancer.terminal.top.picture import Picture
from balancer.terminal.top.tables import TABLES, Column, TableName, cell, fits, sort_key

_LONGEST_FILTER = 100
_DEEDS: dict[str, tuple[TableName, Deed]] = {
    "d": ("agents", "drain"),
    "u": ("agents", "undrain"),
    "x": ("agents", "remove"),
    "c": ("requests", "cancel"),
}
_TABS: tuple[TableName, ...] = ("agents", "models", "requests")

_FIRST_ORDER: dict[TableName, int] = {"agents": 0, "models": 0, "requests": 5}
"""Agents and models by name, requests by age."""

Mode = Literal["rows", "filter", "confirm", "help"]


class Order(Struct):
    """How a table is sorted."""

    column: int = 0
    is_reversed: bool = False


class View:
    """One operator's."""

    def __init__(self, table: TableName = "agents") -> None:
        self.table: TableName = table
        self.mode: Mode = "rows"
        self.filter = ""
        self.orders = {name: Order(column=_FIRST_ORDER[name]) for name in _TABS}
        self.chosen: str | None = None
        """The key of the chosen row."""
        self.asked: Action | None = None
        self.said = ""
        """How the last action went."""
        self.page = 1
        """Rows that fit; the frame says how many."""
        self.is_over = False

    @property
    def columns(self) -> tuple[Column, ...]:
        """Of the table that is shown."""
        return TABLES[self.table]

    def rows(self, picture: Picture) -> list[dict[str, Any]]:
        """Those that fit the filter, in order."""
        order = self.orders[self.table]
        column = self.columns[order.column]
        found = [row for row in picture.rows(self.table) if fits(row, self.columns, self.filter)]
        found.sort(key=lambda row: str(row["key"]))
        found.sort(key=lambda row: sort_key(cell(column, row)), reverse=order.is_reversed)
        return found

    def position(self, rows: list[dict[str, Any]]) -> int:
        """Where the chosen row is; the first one where it is gone."""
        for index, row in enumerate(rows):
            if row["key"] == self.chosen:
                return index
        return 0

    def press(self, key: str, picture: Picture) -> Action | None:
        """One key; the action that it confirms."""
        match self.mode:
            case "filter":
                self._type(key)
            case "confirm":
                return self._confirm(key)
            case "help":
                self.mode = "rows"
            case "rows":
                self._command(key, picture)
        return None

    def _type(self, key: str) -> None:
        if key == "enter":
            self.mode = "rows"
        elif key == "escape":
            self.filter, self.mode = "", "rows"
        elif key == "backspace":
            self.filter = self.filter[:-1]
        elif len(key) == 1:
            self.filter = (self.filter + key)[:_LONGEST_FILTER]

    def _confirm(self, key: str) -> Action | None:
        asked, self.asked, self.mode = self.asked, None, "rows"
        return asked if key in ("y", "Y") else None

    def _command(self, key: str, picture: Picture) -> None:
        if key in _DEEDS:
            self._ask(*_DEEDS[key], picture)
        elif key in _SWITCHES:
            _SWITCHES[key](self)
        else:
            self._move(key, picture)

    def _ask(self, table: TableName, deed: Deed, picture: Picture) -> None:
        rows = self.rows(picture)
        if table != self.table:
            self.said = f"{deed}: choose one of the {table} first ({_TABS.index(table) + 1})"
        elif rows:
            row = rows[self.position(rows)]
            self.chosen = row["key"]
            self.asked, self.mode = Action(deed, str(row.get("id", row["key"]))), "confirm"

    def _move(self, key: str, picture: Picture) -> None:
        rows = self.rows(picture)
        if not rows:
            return
        wanted = self._wanted(key, self.position(rows), len(rows))
        self.chosen = rows[min(max(wanted, 0), len(rows) - 1)]["key"]

    def _wanted(self, key: str, at: int, count: int) -> int:
        """Where a key goes from there; outside of the rows is their end."""
        match key:
            case "up" | "k":
                return at - 1
            case "down" | "j":
                return at + 1
            case "page up":
                return at - self.page
            case "page down":
                return at + self.page
            case "home":
                return 0
            case "end":
                return count
            case _:
                return at

    def show_table(self, index: int) -> None:
        """One of the three, counted from 0 round and round."""
        self.table = _TABS[index % len(_TABS)]
        self.chosen, self.said = None, ""

    def show_next(self, step: int) -> None:
        """The table beside this one."""
        self.show_table(_TABS.index(self.table) + step)

    def sort_by_next(self, step: int) -> None:
        """The column beside this one."""
        order = self.orders[self.table]
        order.column = (order.column + step) % len(self.columns)
        order.is_reversed = False

    def reverse(self) -> None:
        """The order from its other end."""
        order = self.orders[self.table]
        order.is_reversed = not order.is_reversed

    def enter(self, mode: Mode) -> None:
        """The help, or typing a filter."""
        self.mode, self.said = mode, ""

    def forget(self) -> None:
        """The filter and what was said."""
        self.filter = self.said = ""

    def leave(self) -> None:
        """The program ends."""
        self.is_over = True


_SWITCHES: dict[str, Callable[[View], None]] = {
    "1": lambda view: view.show_table(0),
    "2": lambda view: view.show_table(1),
    "3": lambda view: view.show_table(2),
    "tab": lambda view: view.show_next(1),
    "right": lambda view: view.show_next(1),
    "back tab": lambda view: view.show_next(-1),
    "left": lambda view: view.show_next(-1),
    "s": lambda view: view.sort_by_next(1),
    "S": lambda view: view.sort_by_next(-1),
    "r": View.reverse,
    "/": lambda view: view.enter("filter"),
    "?": lambda view: view.enter("help"),
    "h": lambda view: view.enter("help"),
    "escape": View.forget,
    "q": View.leave,
}
