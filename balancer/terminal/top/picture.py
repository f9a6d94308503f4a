"""What is known of a balancer: the trees of its live sockets, and the recent past of two figures.

Pure. Nothing here trusts the balancer: what does not fit is a `NoSuchProtocol`, and so is more than
any balancer shows.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeGuard

from msgspec import Struct

Link = Literal["connecting", "live", "polling", "lost"]
Kind = Literal["control", "metrics"]

HISTORY = 600
"""Seconds of the past that are kept."""
_FIGURES = {"agents": "providers", "models": "models"}
HISTORY_PATHS = ("tokens.per_second", "requests.per_second")
MAX_CHANGES = 50_000
"""Of one message."""
MAX_MEMBERS = 20_000
"""Of one object."""
MAX_DEPTH = 12


class NoSuchProtocol(Exception):
    """The other side is no balancer that this program knows."""


class LinkState(Struct, frozen=True, kw_only=True):
    """How the balancer is reached: `why` it is not, and for how long nothing is tried."""

    link: Link = "connecting"
    why: str = ""
    retry_in_s: float = 0.0


class Picture:
    """One balancer as it was last told."""

    def __init__(self) -> None:
        self.state = LinkState()
        self.control: dict[str, Any] = {}
        self.figures: dict[str, Any] = {}
        self.history: dict[str, deque[float | None]] = {
            path: deque(maxlen=HISTORY) for path in HISTORY_PATHS
        }
        self.ahead_s = 0.0
        """How far the balancer's clock is ahead of ours."""
        self._seqs: dict[Kind, int | None] = {}

    @property
    def is_known(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.control)

    def figure(self, path: str) -> float | None:
        """A number of the tree; None where it is not known."""
        found: Any = self.figures
        for name in path.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        return found if _is_number(found) else None

    def rows(self, table: str) -> list[dict[str, Any]]:
        """The rows of `agents`, `models` or `requests`, each with its key as `key` and with the
        figures that the tree has of it."""
        found = self.control.get(table)
        beside = self.figures.get(_FIGURES.get(table, ""))
        if not isinstance(found, dict):
            return []
        of_rows = beside if isinstance(beside, dict) else {}
        return [
            {
                **(figures if isinstance(figures := of_rows.get(key), dict) else {}),
                **row,
                "key": key,
            }
            for key, row in found.items()
            if isinstance(row, dict)
        ]

    def hear(self, kind: Kind, message: Any, *, now_s: float) -> bool:
        """Take one message of a socket; False: something was missed, ask for a snapshot.

        Raises `NoSuchProtocol`.
        """
        if not isinstance(message, dict):
            raise NoSuchProtocol("a message is no object")
        match message.get("type"):
            case "snapshot":
                self._replace(kind, message)
            case "delta":
                if not self._follows(kind, message):
                    return False
                self._change(kind, message)
                self._note_point(message.get("point"), now_s=now_s)
        return True

    def replace_all(self, control: dict[str, Any], figures: dict[str, Any]) -> None:
        """What was polled."""
        self.control, self.figures = control, figures
        for path, past in self.history.items():
            past.append(self.figure(path))

    def _replace(self, kind: Kind, message: dict[str, Any]) -> None:
        data = _object(message.get("data"), "a snapshot's data")
        if kind == "control":
            self.control = data
        else:
            self.figures = _object(data.get("now"), "the figures")
            self._read_series(data.get("series"))
        self._seqs[kind] = message.get("seq")

    def _follows(self, kind: Kind, message: dict[str, Any]) -> bool:
        before, seq = self._seqs.get(kind), message.get("seq")
        if not isinstance(before, int) or not isinstance(seq, int) or seq != before + 1:
            self._seqs[kind] = None
            return False
        self._seqs[kind] = seq
        return True

    def _change(self, kind: Kind, message: dict[str, Any]) -> None:
        changed = _object(message.get("set", {}), "what is set")
        gone = message.get("gone", [])
        if not isinstance(gone, list) or len(changed) + len(gone) > MAX_CHANGES:
            raise NoSuchProtocol("a change is larger than any balancer's")
        root = self.control if kind == "control" else {"now": self.figures}
        for path in gone:
            _remove(root, _names(path))
        for path, value in changed.items():
            _set(root, _names(path), value)
        if kind == "metrics":
            self.figures = _object(root.get("now"), "the figures")

    def _read_series(self, series: Any) -> None:
        paths = series.get("paths") if isinstance(series, dict) else None
        if not isinstance(paths, dict):
            return
        for path, past in self.history.items():
            numbers = paths.get(path)
            past.clear()
            if isinstance(numbers, list):
                past.extend(_numbers(numbers[-HISTORY:]))

    def _note_point(self, point: Any, *, now_s: float) -> None:
        if not isinstance(point, dict):
            return
        at, values = point.get("at"), point.get("values")
        if _is_number(at):
            self.ahead_s = at - now_s
        if isinstance(values, dict):
            for path, past in self.history.items():
                past.extend(_numbers([values.get(path)]))


def polled_control(agents: Any, requests: Any, health: Any, *, now_s: float) -> dict[str, Any]:
    """The tree of `/ws/control` from the answers of GET /agents, /requests and /health."""
    rows = {str(row.get("id")): _with_moments(row, now_s) for row in _listed(agents)}
    asked = {
        f"{row.get('id')}#{row.get('choice', 0)}": _with_moments(row, now_s)
        for row in _listed(requests)
    }
    status = _object(health, "the health")
    return {
        "agents": rows,
        "models": _models_of(rows.values()),
        "requests": asked,
        "balancer": {"status": status.get("status"), "version": None, "started": None},
    }


def polled_figures(control: Mapping[str, Any], health: Any) -> dict[str, Any]:
    """The tree of figures, as far as the same answers have it."""
    status = _object(health, "the health")
    agents = control["agents"].values()
    states = [row.get("state") for row in control["requests"].values()]
    performance = status.get("performance") or {}
    return {
        "requests": {
            "per_second": performance.get("requests_per_second"),
            "in_flight": len(states),
            "running": len(states) - states.count("waiting"),
            "waiting": states.count("waiting"),
        },
        "latency": {
            "response_ms": performance.get("avg_response_time_ms") or None,
        },
        "slots": {
            "total": sum(_whole(row.get("slots_total")) for row in agents),
            "used": sum(_whole(row.get("slots_used")) for row in agents),
        },
        "agents": status.get("providers") or {},
        "system": status.get("system") or {},
    }


def _listed(answer: Any) -> list[dict[str, Any]]:
    rows = _object(answer, "a list").get("data")
    if not isinstance(rows, list) or len(rows) > MAX_MEMBERS:
        raise NoSuchProtocol("a list has no rows, or more than any balancer's")
    return [row for row in rows if isinstance(row, dict)]


_MOMENTS = (
    ("last_heard_s_ago", "last_heard", 1.0),
    ("connected_for_s", "connected", 1.0),
    ("age_ms", "arrived", 0.001),
)


def _with_moments(row: dict[str, Any], now_s: float) -> dict[str, Any]:
    """The row with moments in place of ages, as live rows have it."""
    kept = dict(row)
    for age, moment, seconds in _MOMENTS:
        if _is_number(kept.get(age)):
            kept[moment] = now_s - seconds * kept.pop(age)
    return kept


def _models_of(agents: Iterable[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for agent in agents:
        model = agent.get("model")
        name = model.get("name") if isinstance(model, dict) else None
        if not isinstance(name, str):
            continue
        row = found.setdefault(name, {"id": name, "agents": [], "slots_used": 0, "slots_total": 0})
        row["agents"].append(agent.get("id"))
        row["slots_used"] += _whole(agent.get("slots_used"))
        row["slots_total"] += _whole(agent.get("slots_total"))
    return found


def _object(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise NoSuchProtocol(f"{what} is no object")
    return value


def _names(path: Any) -> list[str]:
    """A path's names (`~1` is a dot, `~0` a tilde)."""
    if not isinstance(path, str):
        raise NoSuchProtocol("a path is no text")
    names = path.split(".", MAX_DEPTH)
    if len(names) > MAX_DEPTH:
        raise NoSuchProtocol("a path is deeper than any balancer's")
    return [name.replace("~1", ".").replace("~0", "~") for name in names]


def _set(root: dict[str, Any], names: list[str], value: Any) -> None:
    for name in names[:-1]:
        below = root.get(name)
        if not isinstance(below, dict):
            below = root[name] = {}
        root = below
    root[names[-1]] = value
    if len(root) > MAX_MEMBERS:
        raise NoSuchProtocol("there is more than any balancer shows")


def _remove(root: dict[str, Any], names: list[str]) -> None:
    for name in names[:-1]:
        below = root.get(name)
        if not isinstance(below, dict):
            return
        root = below
    root.pop(names[-1], None)


def _numbers(values: list[Any]) -> list[float | None]:
    return [value if _is_number(value) else None for value in values]


def _is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _whole(value: Any) -> int:
    return int(value) if _is_number(value) else 0
