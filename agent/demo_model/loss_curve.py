"""Draw losses.csv as an SVG: `python -m agent.demo_model.loss_curve losses.csv curve.svg`."""

import csv
import math
import sys
from collections.abc import Sequence
from pathlib import Path

_WIDTH, _HEIGHT, _LEFT, _BOTTOM, _TOP = 640, 300, 56, 36, 14
_TICKS = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
Points = Sequence[tuple[float, float]]


def read(path: Path) -> list[tuple[float, float]]:
    """(million tokens, loss) of each row."""
    with path.open(newline="") as file:
        return [(int(row[1]) / 1e6, float(row[4])) for row in csv.reader(file)]


def svg(points: Points) -> str:
    """The curve with a logarithmic loss axis."""
    most = max(x for x, _ in points)
    low, high = math.log(_TICKS[0]), math.log(6.0)

    def at(x: float, y: float) -> tuple[float, float]:
        share = (math.log(max(y, _TICKS[0])) - low) / (high - low)
        across = _LEFT + x / most * (_WIDTH - _LEFT - 12)
        return across, _HEIGHT - _BOTTOM - share * (_HEIGHT - _BOTTOM - _TOP)

    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
        ' font-family="sans-serif" font-size="12" fill="#555">',
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
    ]
    for tick in _TICKS:
        y = at(0, tick)[1]
        lines.append(f'<path d="M{_LEFT} {y:.1f}H{_WIDTH - 12}" stroke="#ddd"/>')
        lines.append(f'<text x="{_LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">{tick}</text>')
    for tick in range(0, int(most) + 1, 5):
        x = at(tick, 1.0)[0]
        lines.append(f'<text x="{x:.1f}" y="{_HEIGHT - 18}" text-anchor="middle">{tick}</text>')
    lines.append(f'<text x="{_WIDTH // 2}" y="{_HEIGHT - 3}">million tokens</text>')
    path = " ".join("{:.1f},{:.1f}".format(*at(x, y)) for x, y in points)
    lines.append(f'<polyline points="{path}" fill="none" stroke="#2563eb" stroke-width="1.5"/>')
    return "\n".join([*lines, "</svg>"]) + "\n"


if __name__ == "__main__":
    Path(sys.argv[2]).write_text(svg(read(Path(sys.argv[1]))), encoding="utf-8")
