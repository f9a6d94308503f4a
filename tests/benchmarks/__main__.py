"""`make bench`: every benchmark, one after the other, bounded to minutes. Figures, no verdicts."""

from __future__ import annotations

from tests.benchmarks import (
    bench_crowd,
    bench_dashboard_page,
    bench_dashboards,
    bench_engine_step,
    bench_gateway,
    bench_recovery,
    bench_routing,
    bench_waiting,
)
from tests.benchmarks.peers import __main__ as peers
from tests.benchmarks.simulate import __main__ as simulate

SHORT = ("--quick", "--starts", "1", "--pairs", "2")
SIMULATED = (["policies", "--requests", "5000"], ["fairness", "--seconds", "500"], ["estimate"])
COMPARED = ("decode", "shared_prefix", "long_prompt")


def main() -> None:
    """Run them all; each prints its own table."""
    for benchmark in (bench_engine_step, bench_gateway, bench_recovery, bench_crowd):
        print(f"\n== {(benchmark.__doc__ or '').splitlines()[0]}", flush=True)
        benchmark.main()
    print("\n== What a routing policy saves, in short", flush=True)
    bench_routing.main(["--quick", "--cells", "1", "--label", "short"])
    print("\n== Waiting on real processes, in short", flush=True)
    bench_waiting.main(["--seconds", "10", "--waiting", "20"])
    print("\n== What open dashboards cost the balancer, in short", flush=True)
    bench_dashboards.main(["--pairs", "1"])
    print("\n== What pages of the dashboard take under load, in short", flush=True)
    bench_dashboard_page.main(["--runs", "1", "--seconds", "5"])
    bench_dashboard_page.main(["agents", "--minutes", "2"])
    print("\n== The balancer under a virtual clock (docs/simulator.md)", flush=True)
    for command in SIMULATED:
        simulate.main(command)
    print("\n== Beside llama-server, in short (docs/benchmarks.md: the real form)", flush=True)
    peers.main([*COMPARED, *SHORT, "--label", "short"])


if __name__ == "__main__":
    main()
