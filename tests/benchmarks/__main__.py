"""`make bench`: every benchmark, one after the other, bounded to minutes. Figures, no verdicts."""

from __future__ import annotations

from tests.benchmarks import bench_engine_step, bench_gateway, bench_recovery


def main() -> None:
    """Run them all; each prints its own table."""
    for benchmark in (bench_engine_step, bench_gateway, bench_recovery):
        print(f"\n== {(benchmark.__doc__ or '').splitlines()[0]}", flush=True)
        benchmark.main()


if __name__ == "__main__":
    main()
