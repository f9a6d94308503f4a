"""`make equal`: the same model and input, asked of us and of llama-server, and how far they differ.

llama-server is built from the source of the installed llama-cpp-python and kept; the models have
random weights. Every request is sent to us twice. Ends with 1 if something differs by more than
rounding: from theirs, or when sent again.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from tests.benchmarks.peers.process import CannotStart
from tests.equality import adapters, media, scores, vectors
from tests.equality.rows import Row, table

PARTS: dict[str, Callable[[Path], Iterator[Row]]] = {
    "embeddings": vectors.compare,
    "rerank": scores.compare,
    "adapters": adapters.compare,
    "media": media.compare,
}


def main() -> int:
    """Run what is named; 2 when llama-server cannot be built or started."""
    parser = argparse.ArgumentParser(prog="python -m tests.equality", description=__doc__)
    parser.add_argument("part", nargs="?", choices=PARTS, help="alone (all of them)")
    part = parser.parse_args().part
    started = time.monotonic()
    try:
        rows = [row for name in ([part] if part else PARTS) for row in _compared(name)]
    except CannotStart as problem:
        print(problem, file=sys.stderr)
        return 2
    print(table(rows))
    good = sum(row.is_good for row in rows)
    print(f"{good} of {len(rows)} equal within rounding, in {time.monotonic() - started:.0f} s")
    return int(good < len(rows))


def _compared(name: str) -> Iterator[Row]:
    with tempfile.TemporaryDirectory() as folder:
        for row in PARTS[name](Path(folder)):
            print(f"{row.feature}, {row.given}: {row.difference:.1e}", file=sys.stderr, flush=True)
            yield row


if __name__ == "__main__":
    raise SystemExit(main())
