"""`make schemas`: random JSON schemas, each answered by the shipped model in processes of its own.

Ends with an error if a complete answer is no instance of its schema, if a refusal names nothing
that the schema has, or if a request got anything else than an answer or a 400. `--number N` asks
one again and shows it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.schemas.campaign import DOORS, TOOL_DOORS, Outcome, campaign
from tests.support.cluster import Cluster

SHOWN = 10


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300)
    parser.add_argument("--tools", type=int, default=100, help="of them, as parameters of a tool")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--max-tokens", type=int, default=300)
    parser.add_argument("--number", type=int, help="the schema of this number alone")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        cluster = Cluster(Path(folder))
        try:
            cluster.start_balancer()
            cluster.start_agent("one", "--slots", "4")
            return asyncio.run(_play(cluster.inference_url, arguments))
        finally:
            cluster.close()


async def _play(url: str, arguments: argparse.Namespace) -> int:
    seed, max_tokens = arguments.seed, arguments.max_tokens
    one = arguments.number is not None
    first = arguments.number if one else 0
    answers = range(first, first + (1 if one else arguments.count))
    calls = range(first, first + (1 if one else min(arguments.tools, arguments.count)))
    started_s = time.monotonic()
    asked = await campaign(url, answers, seed=seed, doors=DOORS, max_tokens=max_tokens)
    called = await campaign(url, calls, seed=seed, doors=TOOL_DOORS, max_tokens=max_tokens)
    took_s = time.monotonic() - started_s
    if one:
        for outcome in (*asked, *called):
            print(_in_full(outcome))
    print(f"seed {seed}, {took_s:.0f} s")
    print(_ends("answers", asked))
    print(_ends("arguments of tools", called))
    print(_table(asked))
    wrong = [outcome for outcome in (*asked, *called) if outcome.end == "wrong"]
    for outcome in wrong[:SHOWN]:
        print(_in_full(outcome))
    return int(bool(wrong))


def _ends(what: str, outcomes: list[Outcome]) -> str:
    ends = Counter(outcome.end for outcome in outcomes)
    return (
        f"{len(outcomes)} {what}: {ends['fits']} complete and valid, {ends['length']} cut by "
        f"length, {ends['refused']} refused, {ends['wrong']} wrong"
    )


def _table(outcomes: list[Outcome]) -> str:
    """A row for each construct: how many schemas have it, and what became of them."""
    lines = [f"{'construct':<32}{'schemas':>8}{'valid':>8}{'length':>8}{'refused':>9}{'for it':>8}"]
    names = {name for outcome in outcomes for name in (*outcome.constructs, *outcome.why)}
    for name in sorted(names):
        having = [one for one in outcomes if name in one.constructs or name in one.why]
        ends = Counter(one.end for one in having)
        for_it = sum(one.end == "refused" and name in one.why for one in having)
        lines.append(
            f"{name[:31]:<32}{len(having):>8}{ends['fits']:>8}{ends['length']:>8}"
            f"{ends['refused']:>9}{for_it:>8}"
        )
    return "\n".join(lines)


def _in_full(outcome: Outcome) -> str:
    schema = json.dumps(outcome.schema, ensure_ascii=False)
    why = ", ".join(outcome.why)
    return f"{outcome.number} {outcome.door}: {outcome.end} {why}\n  {schema}\n  {outcome.answer}"


if __name__ == "__main__":
    sys.exit(main())
