"""The ratios of a run as an SVG: one row each, a dot with its 95 % interval, 1.0 in the middle."""

from __future__ import annotations

import math
from html import escape
from typing import Any

ROW, LEFT, WIDTH, RIGHT, TOP = 22, 430, 420, 150, 54
TICKS = (0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.25, 1.5, 2.0, 3.0, 4.0, 8.0)
GOOD, BAD, NEUTRAL = "#2e7d32", "#b3261e", "#5f6368"


def svg(document: dict[str, Any]) -> str:
    """The picture of a summary; with no ratio in it, only its title."""
    rows = _rows(document)
    reach = max((abs(math.log(v)) for row in rows for v in row["bounds"]), default=0.1) * 1.1
    reach = max(reach, math.log(1.1))
    height = TOP + ROW * len(rows) + 30
    title = f"{document['workload']}: first side / other side"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LEFT + WIDTH + RIGHT}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="12" y="20" font-size="14" font-weight="bold">{escape(title)}</text>',
        f'<text x="12" y="38" fill="{NEUTRAL}">{escape(document["about"])}</text>',
    ]
    for tick in TICKS:
        if abs(math.log(tick)) <= reach:
            parts += _tick(_x(tick, reach), tick, height - 24)
    for index, row in enumerate(rows):
        parts += _row(row, TOP + ROW * index + ROW / 2, reach)
    return "\n".join([*parts, "</svg>", ""])


def _rows(document: dict[str, Any]) -> list[dict[str, Any]]:
    better = {metric["name"]: metric["better"] for metric in document["metrics"]}
    found = []
    listed = [(cell["label"], row) for cell in document["cells"] for row in cell["figures"]]
    listed += [("mean over all cells", row) for row in document["over_all_cells"]]
    for label, row in listed:
        ratio = row.get("first_over_this")
        if not ratio:
            continue
        bounds = (ratio["low"] or ratio["mean"], ratio["mean"], ratio["high"] or ratio["mean"])
        found.append(
            {
                "text": f"{label}  {row['metric']}  vs {row['side']}",
                "bounds": bounds,
                "color": _color(better[row["metric"]], bounds),
            }
        )
    return found


def _color(better: str, bounds: tuple[float, float, float]) -> str:
    low, _, high = bounds
    if low <= 1 <= high:
        return NEUTRAL
    return GOOD if (low > 1) == (better == "higher") else BAD


def _x(ratio: float, reach: float) -> float:
    return LEFT + WIDTH / 2 * (1 + math.log(ratio) / reach)


def _tick(x: float, ratio: float, bottom: float) -> list[str]:
    stroke = "#202124" if ratio == 1 else "#dadce0"
    return [
        f'<line x1="{x:.1f}" y1="{TOP - 4}" x2="{x:.1f}" y2="{bottom}" stroke="{stroke}"/>',
        f'<text x="{x:.1f}" y="{bottom + 14}" text-anchor="middle">{ratio:g}</text>',
    ]


def _row(row: dict[str, Any], y: float, reach: float) -> list[str]:
    low, mean, high = row["bounds"]
    left, right, color = _x(low, reach), _x(high, reach), row["color"]
    interval = f"{mean:.3f}" if low == high else f"{mean:.3f} ({low:.3f} to {high:.3f})"
    return [
        f'<text x="12" y="{y + 4:.1f}">{escape(row["text"])}</text>',
        f'<line x1="{left:.1f}" y1="{y:.1f}" x2="{right:.1f}" y2="{y:.1f}" stroke="{color}" '
        'stroke-width="2"/>',
        f'<circle cx="{_x(mean, reach):.1f}" cy="{y:.1f}" r="4" fill="{color}"/>',
        f'<text x="{LEFT + WIDTH + 8}" y="{y + 4:.1f}" fill="{color}">{interval}</text>',
    ]
