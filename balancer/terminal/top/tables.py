"""The three tables: which columns they have, and what stands in them. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

from msgspec import Struct

TableName = Literal["agents", "models", "requests"]
Value = str | float | None


class Column(Struct, frozen=True, kw_only=True):
    """`width` in cells; 0: what is left over. `read` gives what it is sorted by, `show` the text
    of that in a row, at a moment (unix seconds of the balancer)."""

    title: str
    width: int
    read: Callable[[dict[str, Any]], Value]
    show: Callable[[Value, dict[str, Any], float], str]
    is_right: bool = False


def cell(column: Column, row: dict[str, Any]) -> Value:
    """What a row has there."""
    return column.read(row)


def sort_key(value: Value) -> tuple[int, float, str]:
    """Nothing first, then numbers, then text."""
    if value is None:
        return (0, 0.0, "")
    if isinstance(value, str):
        return (2, 0.0, value.casefold())
    return (1, value, "")


def fits(row: dict[str, Any], columns: tuple[Column, ...], wanted: str) -> bool:
    """Whether every word of the filter is in one of the row's texts."""
    texts = [value.casefold() for column in columns if isinstance(value := column.read(row), str)]
    return all(any(word in text for text in texts) for word in wanted.casefold().split())


def duration(seconds: float) -> str:
    """At most four cells."""
    seconds = max(0.0, seconds)
    if seconds < 9.95:
        return f"{seconds:.1f}s"
    for most, unit_s, unit in ((600, 1, "s"), (36_000, 60, "m"), (864_000, 3600, "h")):
        if seconds < most:
            return f"{int(seconds // unit_s)}{unit}"
    return f"{int(seconds // 86_400)}d"


def count(number: float) -> str:
    """At most five cells."""
    for least, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e4, "k")):
        if abs(number) >= least:
            scaled = number / (1e3 if unit == "k" else least)
            return f"{scaled:.1f}{unit}" if scaled < 100 else f"{scaled:.0f}{unit}"
    return f"{number:.1f}" if number % 1 and abs(number) < 100 else f"{number:.0f}"


def number_at(row: dict[str, Any], *names: str) -> float | None:
    """A number within a row."""
    found: Any = row
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    is_number = isinstance(found, int | float) and not isinstance(found, bool)
    return found if is_number else None


def text_at(row: dict[str, Any], *names: str) -> str | None:
    """A text within a row."""
    found: Any = row
    for name in names:
        found = found.get(name) if isinstance(found, dict) else None
    return found if isinstance(found, str) else None


def condition(agent: dict[str, Any]) -> str:
    """An agent's state, with how far its model is loaded."""
    state = text_at(agent, "state") or "?"
    progress = number_at(agent, "load_progress")
    return f"loading {100 * progress:.0f}%" if progress is not None else state.replace("_", " ")


def issues(agent: dict[str, Any]) -> list[dict[str, Any]]:
    """What is wrong with an agent."""
    found = agent.get("issues")
    return [one for one in found if isinstance(one, dict)] if isinstance(found, list) else []


def share(row: dict[str, Any], part: str, whole: str) -> float | None:
    """A part of a whole; None where there is none."""
    used, total = number_at(row, part), number_at(row, whole)
    return None if used is None or not total else used / total


def _agents_of(model: dict[str, Any]) -> float | None:
    found = model.get("agents")
    return len(found) if isinstance(found, list) else number_at(model, "agents")


def _plain(value: Value, row: dict[str, Any], now_s: float) -> str:
    del row, now_s
    return "-" if value is None else value if isinstance(value, str) else count(value)


def _percent(value: Value, row: dict[str, Any], now_s: float) -> str:
    del row, now_s
    return f"{100 * value:.0f}%" if isinstance(value, int | float) else "-"


def _slots(value: Value, row: dict[str, Any], now_s: float) -> str:
    """`2/4` and a cell for each slot, where they are few."""
    del value, now_s
    used, total = int(number_at(row, "slots_used") or 0), int(number_at(row, "slots_total") or 0)
    cells = "#" * min(used, total) + "." * max(0, total - used) if total <= MAX_CELLS else ""
    return f"{used}/{total} {cells}".rstrip()


MAX_CELLS = 8
"""Slots of an agent that are drawn one by one."""


def _since(value: Value, row: dict[str, Any], now_s: float) -> str:
    del row
    return duration(now_s - value) if isinstance(value, int | float) else "-"


def _number(title: str, width: int, *names: str, show: Callable[..., str] = _plain) -> Column:
    def read(row: dict[str, Any]) -> Value:
        return number_at(row, *names)

    return Column(title=title, width=width, read=read, show=show, is_right=True)


def _text(title: str, width: int, *names: str) -> Column:
    def read(row: dict[str, Any]) -> Value:
        return text_at(row, *names)

    return Column(title=title, width=width, read=read, show=_plain)


_AGENTS = (
    _text("agent", 0, "id"),
    Column(title="state", width=11, read=condition, show=_plain),
    _text("model", 13, "model", "name"),
    Column(
        title="slots",
        width=12,
        read=lambda row: share(row, "slots_used", "slots_total"),
        show=_slots,
    ),
    Column(
        title="kv",
        width=4,
        read=lambda row: share(row, "kv_cells_used", "kv_cells_total"),
        show=_percent,
        is_right=True,
    ),
    _number("tok/s", 6, "tokens_per_second"),
    _number("heard", 5, "last_heard", show=_since),
    Column(title="warn", width=4, read=lambda row: len(issues(row)), show=_plain, is_right=True),
)
_MODELS = (
    _text("model", 0, "key"),
    _text("quant", 8, "quantization"),
    _number("context", 7, "context_window"),
    Column(title="agents", width=6, read=_agents_of, show=_plain, is_right=True),
    Column(
        title="slots",
        width=12,
        read=lambda row: share(row, "slots_used", "slots_total"),
        show=_slots,
    ),
    _number("requests", 8, "requests_total"),
    _number("tokens", 7, "tokens_total"),
)
_REQUESTS = (
    Column(title="request", width=0, read=lambda row: row["key"].removesuffix("#0"), show=_plain),
    _text("state", 8, "state"),
    _text("model", 13, "model"),
    _text("agent", 13, "agent"),
    _number("tokens", 6, "completion_tokens"),
    _number("age", 5, "arrived", show=_since),
    _number("place", 5, "position"),
    _number("tries", 5, "attempts"),
)
TABLES: dict[TableName, tuple[Column, ...]] = {
    "agents": _AGENTS,
    "models": _MODELS,
    "requests": _REQUESTS,
}
