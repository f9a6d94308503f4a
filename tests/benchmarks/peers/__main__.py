"""`python -m tests.benchmarks.peers WORKLOAD …`: paired runs against other servers.

For example `python -m tests.benchmarks.peers decode --starts 4 --pairs 3`. Tables go to standard
output; JSON, table and plot of every workload into `out/benchmarks/`. docs/benchmarks.md says how
it measures.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tests.benchmarks.peers.contest import Plan, compete
from tests.benchmarks.peers.machine import facts, pin_process, share_out
from tests.benchmarks.peers.plot import svg
from tests.benchmarks.peers.process import PROJECT
from tests.benchmarks.peers.report import summary, table
from tests.benchmarks.peers.workload import Scale, Workload
from tests.benchmarks.workloads import (
    copying,
    decode,
    embeddings,
    long_prompt,
    many_prefixes,
    multi_turn,
    shared_prefix,
    structured,
)

WORKLOADS: dict[str, Workload] = {
    module.WORKLOAD.name: module.WORKLOAD
    for module in (
        decode,
        shared_prefix,
        many_prefixes,
        long_prompt,
        multi_turn,
        copying,
        structured,
        embeddings,
    )
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the workloads named; 1 when a side had to be left out."""
    asked = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, _stop)
    failed = False
    for name in asked.workload or list(WORKLOADS):
        document = _run(WORKLOADS[name], asked)
        failed = failed or any(cell["problems"] for cell in document["cells"])
    return int(failed)


def _run(workload: Workload, asked: argparse.Namespace) -> dict[str, Any]:
    scale = Scale(
        model=asked.model, threads=asked.threads, quick=asked.quick, slots=tuple(asked.slots)
    )
    out = Path(asked.out)
    out.mkdir(parents=True, exist_ok=True)
    available = os.sched_getaffinity(0)
    cores = share_out(available, asked.threads)
    plan = Plan(
        starts=asked.starts,
        pairs=asked.pairs,
        cores=cores,
        patience_s=asked.patience,
        seed=asked.seed,
        log_folder=out / "logs" / workload.name,
    )
    sides = tuple(asked.side) or workload.sides
    machine = facts()
    started = time.monotonic()
    pin_process(os.getpid(), cores.rest)
    try:
        results = [compete(cell, sides, plan, _say) for cell in workload.cells(scale)]
    finally:
        pin_process(os.getpid(), frozenset(available))
    document = {
        **summary(workload, results),
        "settings": {
            **{key: value for key, value in vars(asked).items() if key not in {"out", "workload"}},
            "engine_cores": sorted(cores.engine),
            "other_cores": sorted(cores.rest),
            "seconds": round(time.monotonic() - started, 1),
        },
        "machine": machine,
    }
    _keep(document, out, asked.label)
    return document


def _keep(document: dict[str, Any], out: Path, label: str) -> None:
    stem = "-".join(filter(None, (document["workload"], label)))
    text = table(document)
    (out / f"{stem}.json").write_text(json.dumps(document, indent=1))
    (out / f"{stem}.txt").write_text(text + "\n")
    (out / f"{stem}.svg").write_text(svg(document))
    print(f"\n{text}\n", flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.peers", description=__doc__)
    parser.add_argument("workload", nargs="*", help=f"of {', '.join(WORKLOADS)}; none: all")
    parser.add_argument("--starts", type=_count, default=4, help="fresh starts of all sides (4)")
    parser.add_argument("--pairs", type=_count, default=3, help="rounds of each side a start (3)")
    parser.add_argument(
        "--side",
        action="append",
        default=[],
        help="instead of the workload's own; several times, the first is compared with the others",
    )
    parser.add_argument("--model", default="small", help="of random_gguf, or a GGUF's path (small)")
    parser.add_argument("--threads", type=_count, default=1, help="of each engine (1)")
    parser.add_argument("--slots", type=_count, nargs="*", default=[], help="instead of its own")
    parser.add_argument("--quick", action="store_true", help="small rounds: does it work?")
    parser.add_argument("--patience", type=float, default=300.0, help="seconds for a round (300)")
    parser.add_argument("--seed", type=int, default=1, help="of the prompts (1)")
    parser.add_argument("--label", default="", help="put into the files' names")
    parser.add_argument("--out", default=str(PROJECT / "out" / "benchmarks"))
    return parser


def _count(text: str) -> int:
    value = int(text)
    if not 1 <= value <= 1000:
        raise argparse.ArgumentTypeError("1 to 1000")
    return value


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def _stop(number: int, _frame: object) -> None:
    raise SystemExit(128 + number)


if __name__ == "__main__":
    raise SystemExit(main())
