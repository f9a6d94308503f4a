"""The balancer's decisions under a virtual clock. docs/simulator.md says what for.

`python -m tests.benchmarks.simulate [policies|fairness|estimate|capacity|calibrate] [--help]`;
without a command it compares the policies.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from math import inf
from pathlib import Path

from balancer.policy.routing.table import POLICIES
from balancer.settings import PolicyName
from tests.benchmarks.bench_engine_step import SHIPPED
from tests.benchmarks.simulate import plot
from tests.benchmarks.simulate.calibrate import measured
from tests.benchmarks.simulate.estimate import starts
from tests.benchmarks.simulate.fairness import short_waits, two_crowds
from tests.benchmarks.simulate.figures import Figures, quantile, table
from tests.benchmarks.simulate.loads import LOADS, Crowd, UnusableRecord, most_a_second, recorded
from tests.benchmarks.simulate.policies import (
    Scene,
    agents_needed,
    compared,
    compared_on_record,
)
from tests.benchmarks.simulate.site import Size
from tests.benchmarks.simulate.speed import CALIBRATION, Speed, load, save
from tests.support.cluster import PROJECT

OUT = PROJECT / "out" / "benchmarks"


def policies(arguments: argparse.Namespace) -> None:
    """Every policy over the same load: a table and a picture for each load."""
    if arguments.replay:
        scene, routes = _scene(arguments, 0.0), recorded(arguments.replay)
        print(f"\n{arguments.replay}: {len(routes)} requests, {_site_text(scene)}")
        found = compared_on_record(arguments.policies, scene, routes)
        _show("replay", list(found))
        return
    for name in arguments.loads:
        scene = _scene(arguments, _rate(arguments, name))
        crowd = f"{scene.crowd.requests} requests, {scene.crowd.rate:.1f} a second"
        print(f"\n{name}: {crowd}, {_site_text(scene)}")
        _show(name, list(compared(arguments.policies, scene, name)))


def fairness(arguments: argparse.Namespace) -> None:
    """A tenant with short requests beside a crowd, and two crowds."""
    print("95th percentile of the waits of a tenant that sends a short request each second")
    print("slots   200 long ones wait   just enough to fill the slots   ratio")
    for slots in arguments.slots_tried:
        waits = short_waits(
            Size(slots=slots), load(), short_requests=arguments.seconds, seed=arguments.seed
        )
        print(
            f"{slots:5d} {waits.crowded_s:18.3f} s {waits.just_full_s:29.3f} s {waits.ratio:7.2f}"
        )
    print("\ntwo tenants that always wait, with long and with short calls: service received")
    print("slots   largest difference   bound (docs/fairness.md)")
    for slots in arguments.slots_tried:
        apart = two_crowds(
            Size(slots=slots), load(), for_s=float(arguments.seconds), seed=arguments.seed
        )
        print(f"{slots:5d} {apart.seconds:18.1f} s {apart.bound_s:24.1f} s")


def estimate(arguments: argparse.Namespace) -> None:
    """Estimated and actual starts of requests that wait."""
    for rush in (2.0, inf):
        print(
            f"{arguments.waiting} requests wait, asked for at {rush:g} times the rate that can be "
            "answered: median of |estimated - actual| / actual"
        )
        print("                  20 tenants                    one tenant")
        print("agents   slots    GET /requests   at arrival    GET /requests   at arrival")
        for agents, slots in ((1, 1), (1, 4), (1, 8), (4, 8), (16, 8)):
            _estimate(Size(agents, slots), rush, arguments)


def _estimate(size: Size, rush: float, arguments: argparse.Namespace) -> None:
    many, one = (
        starts(
            size,
            load(),
            waiting=arguments.waiting,
            rush=rush,
            tenants=tenants,
            seed=arguments.seed,
        )
        for tenants in (20, 1)
    )
    errors = (many.listed_error(), many.arrival_error(), one.listed_error(), one.arrival_error())
    first, second, third, fourth = (f"{100 * error:5.1f} %" for error in errors)
    print(
        f"{size.agents:6d} {size.slots:7d} {first:>16s} {second:>12s} {third:>16s} {fourth:>12s}",
        flush=True,
    )
    where = f"{size.agents}x{size.slots}-{'burst' if rush == inf else 'overload'}"
    title = f"{size.agents} agent(s) of {size.slots} slots, by GET /requests"
    _write(f"simulate-estimate-{where}.svg", plot.estimates(title, many.listed))


def capacity(arguments: argparse.Namespace) -> None:
    """How many agents a load needs."""
    (name,), rate = arguments.loads[:1], arguments.rate or 10.0
    sought = f"99 % of first tokens within {arguments.ttft} s at {rate:g} requests a second"
    print(f"{name}, {arguments.policies[0]}: {sought}")
    tried = agents_needed(
        arguments.policies[0], _scene(arguments, rate), name, ttft_p99_s=arguments.ttft
    )
    for agents, figures in tried:
        print(f"{agents:5d} agents: {quantile(figures.ttft_s, 0.99):9.2f} s", flush=True)


def calibrate(arguments: argparse.Namespace) -> None:
    """Measure a real engine, and keep its numbers for every later simulation."""
    speed = measured(arguments.model, threads=arguments.threads, seconds=arguments.measure_s)
    save(speed)
    print(f"{speed}\nwritten to {CALIBRATION}")


COMMANDS: dict[str, Callable[[argparse.Namespace], None]] = {
    "policies": policies,
    "fairness": fairness,
    "estimate": estimate,
    "capacity": capacity,
    "calibrate": calibrate,
}


def _site_text(scene: Scene) -> str:
    """What the requests meet; the figures hold for nothing else."""
    speed = scene.speed.source
    calibrated = "not calibrated" if speed == Speed.source else "calibrated"
    return f"{scene.size.agents} agents of {scene.size.slots} slots, {calibrated} ({speed})"


def _scene(arguments: argparse.Namespace, rate: float) -> Scene:
    size = Size(arguments.agents, arguments.slots, arguments.cache_blocks)
    crowd = Crowd(arguments.requests, arguments.tenants, rate, arguments.seed)
    return Scene(size, load(), crowd, arguments.failure_s)


def _rate(arguments: argparse.Namespace, name: str) -> float:
    most = arguments.agents * most_a_second(name, load(), arguments.slots)
    return float(arguments.rate or arguments.load * most)


def _show(name: str, rows: list[tuple[str, Figures]]) -> None:
    print(table(rows), flush=True)
    columns: list[tuple[str, Callable[[Figures], float]]] = [
        ("time to first token, p50, s", lambda one: quantile(one.ttft_s, 0.5)),
        ("p99, s", lambda one: quantile(one.ttft_s, 0.99)),
        ("blocks from a cache, %", lambda one: 100 * one.hit_rate),
        ("services apart, s", lambda one: one.apart_s),
        ("a decision, p50, us", lambda one: 1e6 * quantile(one.decision_s, 0.5)),
    ]
    shown = [(title, [(policy, figure(one)) for policy, one in rows]) for title, figure in columns]
    _write(f"simulate-{name}.svg", plot.bars(f"routing policies: {name}", shown))


def _write(name: str, text: str) -> None:
    OUT.mkdir(parents=True, exist_ok=True)
    (OUT / name).write_text(text)


def _parser() -> argparse.ArgumentParser:
    names: list[PolicyName] = list(POLICIES)
    parser = argparse.ArgumentParser(prog="simulate", description=__doc__)
    parser.add_argument("command", nargs="?", choices=COMMANDS, default="policies")
    parser.add_argument("--seed", type=int, default=1)
    scene = parser.add_argument_group("policies, capacity")
    scene.add_argument("--agents", type=int, default=16)
    scene.add_argument("--slots", type=int, default=8)
    scene.add_argument("--cache-blocks", type=int, default=400, help="of an agent")
    scene.add_argument("--requests", type=int, default=20_000)
    scene.add_argument("--tenants", type=int, default=100)
    scene.add_argument("--load", type=float, default=0.5, help="of what could be answered at most")
    scene.add_argument("--rate", type=float, help="requests a second, in place of --load")
    scene.add_argument("--failure-s", type=float, default=0.0, help="between two; 0: nobody dies")
    scene.add_argument("--policies", nargs="*", choices=names, default=names)
    scene.add_argument("--loads", nargs="*", choices=LOADS, default=list(LOADS))
    scene.add_argument("--replay", type=Path, help="a file of `balancer --record-routes`")
    scene.add_argument("--ttft", type=float, default=5.0, help="capacity: 99 %% within, seconds")
    others = parser.add_argument_group("fairness, estimate")
    others.add_argument("--slots-tried", type=int, nargs="*", default=[1, 4, 8, 32])
    others.add_argument("--seconds", type=int, default=2000, help="virtual ones, for each line")
    others.add_argument("--waiting", type=int, default=500)
    engine = parser.add_argument_group("calibrate")
    engine.add_argument("--model", type=Path, default=SHIPPED)
    engine.add_argument("--threads", type=int, default=1)
    engine.add_argument("--measure-s", type=float, default=2.0, help="for each number of slots")
    return parser


def main(given: list[str]) -> None:
    """Run a command. Exits with 2 where a record cannot be used."""
    arguments = _parser().parse_args(given)
    try:
        COMMANDS[arguments.command](arguments)
    except UnusableRecord as error:
        print(error, file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
