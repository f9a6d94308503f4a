"""Fail when coverage falls under its floors: 100 % where decisions are made, 90 % overall."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

OVERALL_PERCENT = 90.0
COMPLETE = (
    "protocol/",
    "balancer/policy/",
    "agent/engine/scheduler.py",
    "agent/engine/prefix_tree.py",
    "agent/engine/cells.py",
    "agent/engine/benefit.py",
)


def percent_of(files: dict[str, Any], prefix: str) -> float:
    """Statement and branch coverage of the files under a prefix, in percent."""
    summaries = [row["summary"] for name, row in files.items() if name.startswith(prefix)]
    covered = sum(s["covered_lines"] + s["covered_branches"] for s in summaries)
    total = sum(s["num_statements"] + s["num_branches"] for s in summaries)
    return 100.0 * covered / total if total else 0.0


def main() -> int:
    """Print one line a floor; exit 1 when one is not reached."""
    report = json.loads(Path(sys.argv[1]).read_text())
    rows = [("overall", report["totals"]["percent_covered"], OVERALL_PERCENT)]
    rows += [(prefix, percent_of(report["files"], prefix), 100.0) for prefix in COMPLETE]
    low = False
    for name, percent, floor in rows:
        verdict = "" if percent >= floor else "  TOO LOW"
        low = low or percent < floor
        print(f"coverage {name:<28} {percent:6.2f} % (floor {floor:.0f} %){verdict}")
    return int(low)


if __name__ == "__main__":
    raise SystemExit(main())
