"""What was measured, as JSON for programs and as a table for people."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tests.benchmarks.peers.contest import CellResult
from tests.benchmarks.peers.ratios import Estimate, estimate, over_cells, paired_ratios
from tests.benchmarks.peers.workload import Metric, Workload


def summary(workload: Workload, cells: Sequence[CellResult]) -> dict[str, Any]:
    """Everything about a workload's run but the machine and the settings."""
    return {
        "workload": workload.name,
        "about": workload.about,
        "metrics": [asdict(metric) for metric in workload.metrics],
        "cells": [_cell(workload, cell) for cell in cells],
        "over_all_cells": _over_cells(workload, cells) if len(cells) > 1 else [],
    }


def table(document: dict[str, Any]) -> str:
    """The summary as text."""
    lines = [f"{document['workload']}: {document['about']}", ""]
    header = f"{'cell':<26}{'metric':<24}{'better':<8}{'side':<34}{'value':>10}  "
    lines += [header + "ratio to the first (95 % over starts)", "-" * 142]
    units = {metric["name"]: metric for metric in document["metrics"]}
    for cell in document["cells"]:
        for row in cell["figures"]:
            metric = units[row["metric"]]
            name = f"{row['metric']} [{metric['unit']}]"
            lines.append(
                f"{cell['label']:<26}{name:<24}{metric['better']:<8}{row['side']:<34}"
                f"{row['value']['mean']:>10.4g}  {_shown(row.get('first_over_this'))}"
            )
        for side, same in cell["same_texts"].items():
            lines.append(f"{cell['label']:<26}texts equal to the first's: {same:.1%}  {side}")
        for side, problem in cell["problems"].items():
            lines.append(f"{cell['label']:<26}left out: {side}: {problem}")
    for row in document["over_all_cells"]:
        lines.append(
            f"{'mean over all cells':<26}{row['metric']:<32}{row['side']:<34}{'':>10}  "
            f"{_shown(row['first_over_this'])}"
        )
    return "\n".join(lines)


def _shown(ratio: dict[str, Any] | None) -> str:
    if ratio is None:
        return ""
    if ratio["low"] is None:
        return f"{ratio['mean']:.3f} ({ratio['rounds']} pairs, 1 start: no interval)"
    return (
        f"{ratio['mean']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f}; "
        f"median {ratio['median']:.3f}, {ratio['rounds']} pairs, {ratio['starts']} starts)"
    )


def _cell(workload: Workload, cell: CellResult) -> dict[str, Any]:
    figures = []
    for metric in workload.metrics:
        for side in cell.sides:
            value = estimate(list(_by_start(cell, side, metric).values()))
            if value is None:
                continue
            row: dict[str, Any] = {"metric": metric.name, "side": side, "value": asdict(value)}
            if side != cell.sides[0]:
                ratio = estimate(list(_ratios(cell, side, metric).values()))
                row["first_over_this"] = asdict(ratio) if ratio else None
            figures.append(row)
    return {
        "label": cell.label,
        "figures": figures,
        "same_texts": _same_texts(cell),
        "problems": cell.problems,
        "commands": cell.commands,
        "rounds": [asdict(played) for played in cell.rounds],
    }


def _over_cells(workload: Workload, cells: Sequence[CellResult]) -> list[dict[str, Any]]:
    rows = []
    for metric in workload.metrics:
        for side in cells[0].sides[1:]:
            ratios = [_ratios(cell, side, metric) for cell in cells]
            found: Estimate | None = over_cells(ratios) if all(ratios) else None
            if found is not None:
                rows.append({"metric": metric.name, "side": side, "first_over_this": asdict(found)})
    return rows


def _values(cell: CellResult, side: str, metric: Metric) -> dict[tuple[int, int], float]:
    return {
        (played.start, played.pair): played.metrics[metric.name]
        for played in cell.rounds
        if played.side == side and metric.name in played.metrics
    }


def _by_start(cell: CellResult, side: str, metric: Metric) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for (start, _), value in _values(cell, side, metric).items():
        found.setdefault(start, []).append(value)
    return found


def _ratios(cell: CellResult, side: str, metric: Metric) -> dict[int, list[float]]:
    return paired_ratios(_values(cell, cell.sides[0], metric), _values(cell, side, metric))


def _same_texts(cell: CellResult) -> dict[str, float]:
    """By side, the share of texts that equal the first side's in the same pair."""
    shares: dict[str, float] = {}
    first = {(r.start, r.pair): r.digests for r in cell.rounds if r.side == cell.sides[0]}
    for side in cell.sides[1:]:
        same = [
            mine == theirs
            for r in cell.rounds
            if r.side == side
            for mine, theirs in zip(first.get((r.start, r.pair), ()), r.digests, strict=False)
        ]
        if same:
            shares[side] = statistics.fmean(same)
    return shares
