"""`make chaos`: a minute of faults, one every two seconds, under 32 streams (`--seconds`).

Ends with an error if a stream failed, or said anything else than on a quiet day.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from pathlib import Path

from tests.chaos.drain import Drained, drain
from tests.chaos.storm import KINDS, Tally, storm

GROUPS = (("counting",), ("dice",), ("reasoning", "tools", "schema", "stops", "logprobs"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="of each group of requests")
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two faults")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="*", choices=tuple(KINDS), help="one group of these")
    arguments = parser.parse_args()
    groups = (tuple(arguments.kinds),) if arguments.kinds else GROUPS
    is_bad = False
    for kinds in groups:
        with tempfile.TemporaryDirectory() as folder:
            tally = asyncio.run(
                storm(
                    Path(folder),
                    seconds=arguments.seconds,
                    streams=arguments.streams,
                    every_s=arguments.every,
                    kinds=kinds,
                    seed=arguments.seed,
                )
            )
        print(f"{', '.join(kinds)}: {words(tally)}", flush=True)
        is_bad = is_bad or bool(tally.failed or tally.different)
    if not arguments.kinds:
        with tempfile.TemporaryDirectory() as folder:
            drained = asyncio.run(drain(Path(folder), seed=arguments.seed))
        print(f"drain: {drained_words(drained)}", flush=True)
        is_bad = is_bad or any(one.error for one in drained.said)
    return int(is_bad)


def drained_words(drained: Drained) -> str:
    """The figures of a drained agent's streams."""
    equal = sum(
        one.words == other.words for one, other in zip(drained.said, drained.expected, strict=True)
    )
    gaps = drained.gaps_s
    return (
        f"{len(drained.said)} streams, {drained.moves:.0f} moved, {equal} equal; cached tokens "
        f"{drained.cached_tokens}; longest silence p50 {gaps[len(gaps) // 2]:.3f} s, "
        f"most {gaps[-1]:.3f} s"
    )


def words(tally: Tally) -> str:
    """The figures, and the first few of what went wrong."""
    gaps = sorted(tally.gaps_s) or [0.0]
    p50, p99 = gaps[len(gaps) // 2], gaps[min(len(gaps) - 1, int(0.99 * len(gaps)))]
    faults = ", ".join(f"{count} {fault}" for fault, count in sorted(tally.faults.items()))
    lines = [
        f"{tally.streams} streams, {tally.moved} of them moved {tally.moves} times; "
        f"faults: {faults}; failed {len(tally.failed)}, different {len(tally.different)}; "
        f"longest silence of a moved stream p50 {p50:.2f} s, p99 {p99:.2f} s"
    ]
    lines += tally.failed[:5]
    lines += [
        f"{name}: expected {expected.words}, got {said.words}"
        for name, expected, said in tally.different[:5]
    ]
    return "\n  ".join(lines)


if __name__ == "__main__":
    sys.exit(main())
