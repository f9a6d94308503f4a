"""`make soak`: ten minutes of churn by default (`--seconds`), with the slope of memory.

Both kinds of cache at once, each in a process of its own, for four fifths of the time: their host
memory fills and empties, by 30 MiB within half a minute, and over less than seven minutes such
swings alone have slopes of more than a MiB a minute. Then an engine that is killed. Ends with an
error if anything was wrong, or if memory grew by more than 1 MiB a minute.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from concurrent.futures import ProcessPoolExecutor

from tests.soak import churn, killed_engine

MOST_MIB_A_MINUTE = 1.0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=600, help="for all of it")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    part = arguments.seconds / 5
    with ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")) as pool:
        runs = {
            name: pool.submit(churn.churn, 4 * part, arguments.seed, **fields)
            for name, fields in churn.CACHES.items()
        }
        tallies = {name: run.result() for name, run in runs.items()}
    grows = False
    for name, tally in tallies.items():
        slope = tally.slope_mib_a_minute()
        grows = grows or slope > MOST_MIB_A_MINUTE
        print(f"{name}: {_words(tally)}; memory {slope:+.2f} MiB a minute", flush=True)
    killed = killed_engine.run(part, arguments.seed, kill_every_s=part / 8)
    print(f"killed engine: {_words(killed)}", flush=True)
    return int(grows)


def _words(tally: object) -> str:
    facts = {name: value for name, value in vars(tally).items() if name != "rss_mib"}
    return ", ".join(f"{name} {value}" for name, value in facts.items())


if __name__ == "__main__":
    sys.exit(main())
