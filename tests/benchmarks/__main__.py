"""`make bench`: every benchmark, one after the other, bounded to minutes. Figures, no verdicts."""

from __future__ import annotations

from tests.benchmarks import bench_engine_step, bench_gateway, bench_recovery
from tests.benchmarks.peers import __main__ as peers

SHORT = ("--quick", "--starts", "1", "--pairs", "2")
COMPARED = ("decode", "shared_prefix", "long_prompt")


def main() -> None:
    """Run them all; each prints its own table."""
    for benchmark in (bench_engine_step, bench_gateway, bench_recovery):
        print(f"\n== {(benchmark.__doc__ or '').splitlines()[0]}", flush=True)
        benchmark.main()
    print("\n== Beside llama-server, in short (docs/benchmarks.md: the real form)", flush=True)
    peers.main([*COMPARED, *SHORT, "--label", "short"])


if __name__ == "__main__":
    main()
