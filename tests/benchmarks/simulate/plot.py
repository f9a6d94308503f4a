"""Pictures of simulations as SVG: bars for each policy, and estimates against what came."""

from __future__ import annotations

import math
from html import escape

LEFT, WIDTH, ROW, TOP = 130, 260, 22, 60
SIDE, MARGIN = 420, 60
SOONEST_S = 0.1
INK, GRID, BAR, DOT = "#202124", "#dadce0", "#3367d6", "#3367d6"


def bars(title: str, columns: list[tuple[str, list[tuple[str, float]]]]) -> str:
    """A column of bars for each figure: its name, then each policy's value."""
    rows = max(len(values) for _, values in columns)
    parts = _head(title, LEFT + len(columns) * (WIDTH + 70) + 20, TOP + ROW * rows + 20)
    for index, (name, values) in enumerate(columns):
        left = LEFT + index * (WIDTH + 70)
        parts.append(f'<text x="{left}" y="{TOP - 12}" fill="{INK}">{escape(name)}</text>')
        longest = max((value for _, value in values), default=0.0) or 1.0
        for row, (policy, value) in enumerate(values):
            y = TOP + ROW * row
            if index == 0:
                parts.append(f'<text x="12" y="{y + 14}">{escape(policy)}</text>')
            length = WIDTH * value / longest
            parts.append(
                f'<rect x="{left}" y="{y + 3}" width="{length:.1f}" height="15" fill="{BAR}"/>'
            )
            parts.append(f'<text x="{left + length + 5:.1f}" y="{y + 14}">{value:.4g}</text>')
    return "\n".join([*parts, "</svg>", ""])


def estimates(title: str, pairs: list[tuple[float, float]]) -> str:
    """A dot for each pair of seconds, estimated over actual; on the line it was right."""
    shown = [(max(said, SOONEST_S), max(was, SOONEST_S)) for said, was in pairs]
    values = [value for pair in shown for value in pair] or [1.0]
    low, high = math.log10(min(values)), math.log10(max(values))
    high = max(high, low + 1e-6)

    def x(seconds: float) -> float:
        return MARGIN + SIDE * (math.log10(seconds) - low) / (high - low)

    def y(seconds: float) -> float:
        return TOP + SIDE - (x(seconds) - MARGIN)

    parts = _head(title, SIDE + 2 * MARGIN, TOP + SIDE + 50)
    for power in range(math.ceil(low), math.floor(high) + 1):
        tick = 10.0**power
        parts += [
            f'<line x1="{x(tick):.1f}" y1="{TOP}" x2="{x(tick):.1f}" y2="{TOP + SIDE}" '
            f'stroke="{GRID}"/>',
            f'<line x1="{MARGIN}" y1="{y(tick):.1f}" x2="{MARGIN + SIDE}" y2="{y(tick):.1f}" '
            f'stroke="{GRID}"/>',
            f'<text x="{x(tick):.1f}" y="{TOP + SIDE + 16}" text-anchor="middle">{tick:g}</text>',
            f'<text x="{MARGIN - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>',
        ]
    parts += [
        f'<line x1="{MARGIN}" y1="{TOP + SIDE}" x2="{MARGIN + SIDE}" y2="{TOP}" stroke="{INK}"/>',
        f'<text x="{MARGIN + SIDE / 2}" y="{TOP + SIDE + 38}" text-anchor="middle">'
        "actual s until a slot</text>",
        f'<text x="14" y="{TOP - 10}">estimated s</text>',
    ]
    parts += [
        f'<circle cx="{x(was):.1f}" cy="{y(said):.1f}" r="2.5" fill="{DOT}" fill-opacity="0.6"/>'
        for said, was in shown
    ]
    return "\n".join([*parts, "</svg>", ""])


def _head(title: str, width: float, height: float) -> list[str]:
    return [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height:.0f}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        f'<text x="12" y="20" font-size="14" font-weight="bold">{escape(title)}</text>',
    ]
