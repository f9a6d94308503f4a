"""Draws what is known into the lines of a terminal: as wide as it is, never longer. Pure.

Everything that a balancer wrote goes through `clean`: a name cannot move the cursor. What a colour
says, a word says, too.
"""

from __future__ import annotations

from typing import Any

from rich.cells import set_cell_size
from rich.text import Text

from balancer.terminal.top.picture import Picture
from balancer.terminal.top.tables import (
    TABLES,
    Column,
    cell,
    condition,
    count,
    duration,
    issues,
    number_at,
)
from balancer.terminal.top.view import View

MIN_WIDTH = 20
_LOOKS = {
    "live": "green",
    "polling": "yellow",
    "connecting": "yellow",
    "lost": "bold red",
    "healthy": "green",
    "degraded": "yellow",
    "unhealthy": "red",
    "draining": "yellow",
    "ready": "green",
    "busy": "cyan",
    "not ready": "red",
    "running": "green",
    "waiting": "yellow",
}
_BARS = " \u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
_ASCII_BARS = " .:-=+*#%@"[:9]
_KEYS_ALWAYS = ("? help", "q quit")
_KEYS = ("/ filter", "s sort", "Tab tables")
_KEYS_OF: dict[str, tuple[str, ...]] = {
    "agents": ("d drain", "u undrain", "x remove"),
    "models": (),
    "requests": ("c cancel",),
}
_LEAST_BELOW = 8
"""Lines of a low terminal that figures are not given: the title, a table's head and three rows of
it, the foot."""
HELP = (
    "1 2 3, Tab      agents, models, requests",
    "Up Down, j k    choose a row; PgUp PgDn Home End",
    "s S             sort by the next, the last column",
    "r               reverse the order",
    "/               filter: words that a row's texts hold; Esc: all rows again",
    "d               drain the agent: it gets nothing new",
    "u               undrain: use it again",
    "x               remove: end its connection and keep it out until undrain",
    "c               cancel the request: its client gets 409",
    "q, Ctrl-C       quit",
    "",
    "Any key goes back.",
)


def clean(text: str) -> str:
    """Text of others, without anything that a terminal would act upon."""
    return "".join(sign if sign.isprintable() else "\N{REPLACEMENT CHARACTER}" for sign in text)


class Canvas:
    """How large a frame is, and whether it may hold more than ASCII."""

    def __init__(self, width: int, height: int | None, *, is_ascii: bool) -> None:
        self.width = max(MIN_WIDTH, width)
        self.height = height
        self.is_ascii = is_ascii

    def line(self, *parts: str | tuple[str, str]) -> Text:
        """Texts, each plain or with its style, in one line that fits."""
        found = Text(no_wrap=True, overflow="crop")
        for part in parts:
            text, style = (part, "") if isinstance(part, str) else part
            found.append(self.plain(text), style)
        if found.cell_len > self.width:
            found.truncate(self.width)
        return found

    def fitted(self, text: str, width: int, *, is_right: bool = False) -> str:
        """A text in so many cells; one that is cut says so."""
        shown = self.plain(clean(text))
        wide = Text(shown).cell_len
        if wide > width:
            mark = "~" if self.is_ascii else "\u2026"
            return set_cell_size(shown, max(0, width - 1)) + mark[:width]
        return " " * (width - wide) + shown if is_right else shown + " " * (width - wide)

    def plain(self, text: str) -> str:
        """As it is, or what ASCII has of it."""
        return text.encode("ascii", "replace").decode() if self.is_ascii else text

    def bars(self, past: list[float | None], width: int) -> str:
        """The past as a row of bars, the newest at its end; a bar is the mean of its seconds."""
        signs = _ASCII_BARS if self.is_ascii else _BARS
        each = max(1, -(-len(past) // width)) if width else 1
        means = [_mean(past[max(0, end - each) : end]) for end in range(len(past), 0, -each)][::-1]
        most = max((mean for mean in means if mean is not None), default=0.0)
        shown = "".join(_bar(mean, most, signs) for mean in means[-width:])
        return shown.rjust(width)


def draw(picture: Picture, view: View, canvas: Canvas, *, url: str, now_s: float) -> list[Text]:
    """A frame's lines; as many as the canvas is high, or as the rows need. `now_s`: unix seconds
    here. Tells the view how many rows a page has."""
    figures = _figures(picture, canvas)
    if canvas.height is not None:
        figures = figures[: max(0, canvas.height - _LEAST_BELOW)]
    head = [_title(picture, canvas, url, now_s), *figures]
    foot = _foot(picture, view, canvas)
    if view.mode == "help":
        body = [canvas.line(text) for text in ("", *HELP)]
    else:
        body = _table(picture, view, canvas, room=_room(canvas, head, foot), now_s=now_s)
    if canvas.height is None:
        return [*head, *body]
    body = body[: _room(canvas, head, foot)]
    empty = canvas.height - len(head) - len(body) - len(foot)
    return [*head, *body, *[canvas.line("")] * empty, *foot][: canvas.height]


def _room(canvas: Canvas, head: list[Text], foot: list[Text]) -> int | None:
    return None if canvas.height is None else max(0, canvas.height - len(head) - len(foot))


def _title(picture: Picture, canvas: Canvas, url: str, now_s: float) -> Text:
    state, balancer = picture.state, picture.control.get("balancer")
    about: dict[str, Any] = balancer if isinstance(balancer, dict) else {}
    status = clean(str(about.get("status") or ""))
    parts: list[str | tuple[str, str]] = [
        ("paddler-py top", "bold"),
        f"  {clean(url)}  ",
        (state.link, _LOOKS[state.link]),
    ]
    if state.why:
        parts.append((f": {clean(state.why)}; again in {state.retry_in_s:.0f} s", _LOOKS["lost"]))
    if status:
        parts += ["  ", (status, _LOOKS.get(status, ""))]
    if about.get("version"):
        parts.append(f"  {clean(str(about['version']))}")
    started = number_at(about, "started")
    if started:
        parts.append(f"  up {duration(now_s + picture.ahead_s - started)}")
    return canvas.line(*parts)


def _figures(picture: Picture, canvas: Canvas) -> list[Text]:
    """Four lines of pairs in columns that stay where they are, and two of bars."""
    named = _named_figures(picture)
    width = max(1, canvas.width // 4)
    lines = [
        canvas.line(*(part for pair in row for part in _pair(canvas, *pair, width)))
        for row in named
    ]
    bars = canvas.width // 2 - 11
    halves: list[str | tuple[str, str]] = []
    for title, path in (("tokens/s", "tokens.per_second"), ("requests/s", "requests.per_second")):
        halves += [
            (f"{title:<10}", "dim"),
            (canvas.bars(list(picture.history[path]), bars), "cyan"),
        ]
        halves.append(" ")
    return [*lines, canvas.line(*halves)]


def _pair(canvas: Canvas, title: str, value: str, width: int) -> tuple[tuple[str, str], str]:
    return (f"{title} ", "dim"), canvas.fitted(value, max(1, width - len(title) - 1))


def _named_figures(picture: Picture) -> tuple[tuple[tuple[str, str], ...], ...]:
    figure = picture.figure
    return (
        (
            ("requests/s", _count(figure("requests.per_second"))),
            ("running", _count(figure("requests.running"))),
            ("waiting", _count(figure("requests.waiting"))),
            ("failed", _count(figure("requests.failed"))),
        ),
        (
            ("tokens/s", _count(figure("tokens.per_second"))),
            ("prompt/s", _count(figure("tokens.prompt_per_second"))),
            ("slots", f"{_count(figure('slots.used'))}/{_count(figure('slots.total'))}"),
            ("cache hits", _percent(figure("cache.hit_rate"), 100)),
        ),
        (
            ("ttft p50", _ms(figure("latency.ttft_p50_ms"))),
            ("p95", _ms(figure("latency.ttft_p95_ms"))),
            ("wait p50", _ms(figure("queue.wait_p50_ms"))),
            ("p95", _ms(figure("queue.wait_p95_ms"))),
        ),
        (
            ("agents", _agents(picture)),
            ("failovers", _count(figure("failovers.total"))),
            ("cpu", _percent(figure("system.cpu_percent"), 1)),
            ("memory", _percent(figure("system.memory_percent"), 1)),
        ),
    )


def _agents(picture: Picture) -> str:
    total, healthy = picture.figure("agents.total"), picture.figure("agents.healthy")
    return f"{_count(healthy)}/{_count(total)} ok"


def _table(
    picture: Picture, view: View, canvas: Canvas, *, room: int | None, now_s: float
) -> list[Text]:
    rows = view.rows(picture)
    widths = _widths(view.columns, canvas.width)
    lines = [_tabs(picture, view, canvas, shown=len(rows)), _titles(view, canvas, widths)]
    view.page = max(1, (room or len(rows) + len(lines)) - len(lines))
    at = view.position(rows)
    first = max(0, min(at - view.page // 2, len(rows) - view.page))
    for index, row in enumerate(rows[first : first + view.page], first):
        chosen = index == at and canvas.height is not None
        lines.append(_row(view.columns, row, canvas, widths, picture, now_s, is_chosen=chosen))
    if not rows:
        lines.append(canvas.line((_nothing(picture, view), "dim")))
    return lines


def _nothing(picture: Picture, view: View) -> str:
    if not picture.is_known:
        return "  nothing is known yet"
    return "  no row fits the filter" if view.filter else f"  no {view.table}"


def _tabs(picture: Picture, view: View, canvas: Canvas, *, shown: int) -> Text:
    parts: list[str | tuple[str, str]] = []
    for number, name in enumerate(TABLES, 1):
        total = len(picture.rows(name))
        is_open = name == view.table
        counted = f"{shown} of {total}" if is_open and view.filter else f"{total}"
        text = f"{number} {name} ({counted})"
        parts.append((f"[{text}]" if is_open else f" {text} ", "bold" if is_open else "dim"))
    if view.filter:
        parts.append((f"  filter: {clean(view.filter)}", "yellow"))
    return canvas.line(*parts)


def _titles(view: View, canvas: Canvas, widths: list[int]) -> Text:
    order = view.orders[view.table]
    shown = []
    for index, (column, width) in enumerate(zip(view.columns, widths, strict=True)):
        mark = ("-" if order.is_reversed else "+") if index == order.column else ""
        shown.append(canvas.fitted(column.title + mark, width, is_right=column.is_right))
    return canvas.line(("  " + " ".join(shown), "underline"))


def _row(
    columns: tuple[Column, ...],
    row: dict[str, Any],
    canvas: Canvas,
    widths: list[int],
    picture: Picture,
    now_s: float,
    *,
    is_chosen: bool,
) -> Text:
    parts: list[str | tuple[str, str]] = [("> " if is_chosen else "  ", "bold")]
    for column, width in zip(columns, widths, strict=True):
        text = column.show(cell(column, row), row, now_s + picture.ahead_s)
        look = _LOOKS.get(text, "") if column.title == "state" else ""
        parts += [(canvas.fitted(text, width, is_right=column.is_right), look), " "]
    return canvas.line(*parts[:-1])


def _widths(columns: tuple[Column, ...], width: int) -> list[int]:
    """The first column has what the others leave; in a wide terminal texts have more."""
    fixed = sum(column.width for column in columns) + len(columns) + 1
    spare = max(0, width - fixed - 24)
    flexible = [column for column in columns if column.width >= 13 and not column.is_right]
    each = min(24, spare // (len(flexible) + 1)) if flexible else 0
    widened = [column.width + (each if column in flexible else 0) for column in columns[1:]]
    return [max(6, width - sum(widened) - len(columns) - 1), *widened]


def _foot(picture: Picture, view: View, canvas: Canvas) -> list[Text]:
    """What is wrong with the chosen agent, and what keys do or what was done."""
    if canvas.height is None:
        return []
    match view.mode:
        case "confirm" if view.asked is not None:
            last = canvas.line((f"{clean(view.asked.question)}  y: yes, any other key: no", "bold"))
        case "filter":
            last = canvas.line(("filter: ", "bold"), clean(view.filter) + "_  Enter, Esc: all")
        case _ if view.said:
            last = canvas.line((clean(view.said), "bold"))
        case _:
            last = canvas.line((_keys(view.table, canvas.width), "dim"))
    return [_detail(picture, view, canvas), last]


def _keys(table: str, width: int) -> str:
    """As many as fit; of help and of the way out the narrowest terminal has to tell."""
    others = [*_KEYS_OF[table], *_KEYS]
    while others and len("  ".join((*others, *_KEYS_ALWAYS))) > width:
        others.pop()
    return "  ".join((*others, *_KEYS_ALWAYS))


def _detail(picture: Picture, view: View, canvas: Canvas) -> Text:
    rows = view.rows(picture)
    if not rows:
        return canvas.line("")
    row = rows[view.position(rows)]
    if view.table == "requests":
        return canvas.line((clean(str(row.get("id", ""))), "dim"))
    found = issues(row) if view.table == "agents" else []
    if not found:
        name = clean(f"{row['key']}: {condition(row)}") if view.table == "agents" else ""
        return canvas.line((name, "dim"))
    more = f" (+{len(found) - 1})" if len(found) > 1 else ""
    words = clean(f"{found[0].get('code', '')}{more}: {found[0].get('message', '')}")
    return canvas.line((words, "yellow"))


def _count(number: float | None) -> str:
    return "-" if number is None else count(number)


def _percent(number: float | None, scale: float) -> str:
    return "-" if number is None else f"{scale * number:.0f}%"


def _ms(number: float | None) -> str:
    if number is None:
        return "-"
    return f"{number:.0f}ms" if number < 9_950 else duration(number / 1000)


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


def _bar(value: float | None, most: float, signs: str) -> str:
    if not value or value < 0 or most <= 0:
        return signs[0]
    return signs[max(1, min(len(signs) - 1, round((len(signs) - 1) * value / most)))]
