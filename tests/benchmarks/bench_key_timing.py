"""What the time of a look-up tells about keys that exist.

`python -m tests.benchmarks.bench_key_timing [--lookups N]`; nanoseconds. Wrong keys that share more
and more of their beginning with a right one, in turn, so that what else the machine does falls on
all of them. Somebody who guesses a key by its time needs these medians to grow with what is right.
"""

from __future__ import annotations

import argparse
import random
import secrets
import time
from collections.abc import Sequence
from statistics import median, quantiles

from balancer.policy.identity.known_keys import KnownKeys
from tests.support.keys import credential

KEYS = 1000
CHARS = 43
SHARED = (0, 10, 20, 30, 42)


def _wrong(right: str, shared: int) -> str:
    """Of the same length, and none of the keys."""
    other = secrets.token_urlsafe(32)
    differs = "A" if right[shared] != "A" else "B"
    return right[:shared] + differs + other[shared + 1 :]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a line for each kind of wrong key."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lookups", type=int, default=100_000)
    lookups = parser.parse_args(arguments).lookups
    keys = [secrets.token_urlsafe(32) for _ in range(KEYS)]
    known = KnownKeys(secrets.token_bytes(32))
    known.configure(credential(key) for key in keys)
    took_ns: dict[int, list[int]] = {shared: [] for shared in SHARED}
    for _ in range(lookups // len(SHARED)):
        for shared in random.sample(SHARED, len(SHARED)):
            key = _wrong(random.choice(keys), shared)
            started_ns = time.perf_counter_ns()
            known.find(key, address="127.0.0.1", unix_s=0.0)
            took_ns[shared].append(time.perf_counter_ns() - started_ns)
    for shared, each in took_ns.items():
        low, _, high = quantiles(each, n=4)
        print(
            f"{shared:>2} of {CHARS} characters right: median {median(each):.0f} ns, "
            f"half of them from {low:.0f} to {high:.0f}"
        )


if __name__ == "__main__":
    main()
