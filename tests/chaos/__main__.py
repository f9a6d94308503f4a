"""`make chaos`: a minute of faults, one every two seconds, under 32 streams (`--seconds`), then an
agent that is drained, black holes, an engine that stands still, all agents gone at once, agents
killed in the middle of a stream of each family of APIs (`--kills`), and limits of tokens under
attack for a minute and a half, before a thousand requests end badly (half of `--requests`).

Ends with an error if a stream failed, or said anything else than on a quiet day, or if more than
one in a hundred requests failed beside a black hole. `--only` runs one part.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tests.chaos.all_gone import all_gone, all_gone_words
from tests.chaos.black_hole import FORMS, black_hole, black_hole_words
from tests.chaos.drain import Drained, drain
from tests.chaos.families import families
from tests.chaos.gray import equal_and_failed, gray, gray_words
from tests.chaos.storm import KINDS, Tally, storm
from tests.chaos.token_limits import token_limits

Result = TypeVar("Result")
GROUPS = (("counting",), ("dice",), ("reasoning", "tools", "schema", "stops", "logprobs"))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", choices=PARTS, help="instead of all parts")
    parser.add_argument("--seconds", type=float, default=60, help="of each group of requests")
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--every", type=float, default=2.0, help="seconds between two faults")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--kinds", nargs="*", choices=tuple(KINDS), help="one group of these")
    parser.add_argument("--requests", type=int, default=2000, help="beside each black hole")
    parser.add_argument("--kills", type=int, default=20, help="in streams of each family of APIs")
    parser.add_argument("--policy", default="prefix_aware", help="beside the black holes")
    arguments = parser.parse_args()
    parts = ("storm",) if arguments.kinds else (arguments.only,) if arguments.only else tuple(PARTS)
    results = [PARTS[part](arguments) for part in parts]  # all of them, whatever went wrong
    return int(any(results))


def _in_a_folder(play: Callable[[Path], Coroutine[Any, Any, Result]]) -> Result:
    with tempfile.TemporaryDirectory() as folder:
        return asyncio.run(play(Path(folder)))


def _storm(arguments: argparse.Namespace) -> bool:
    is_bad = False
    for kinds in (tuple(arguments.kinds),) if arguments.kinds else GROUPS:
        tally = _in_a_folder(
            partial(
                storm,
                seconds=arguments.seconds,
                streams=arguments.streams,
                every_s=arguments.every,
                kinds=kinds,
                seed=arguments.seed,
            )
        )
        print(f"{', '.join(kinds)}: {words(tally)}", flush=True)
        is_bad = is_bad or bool(tally.failed or tally.different)
    return is_bad


def _drain(arguments: argparse.Namespace) -> bool:
    drained = _in_a_folder(partial(drain, seed=arguments.seed))
    print(f"drain: {drained_words(drained)}", flush=True)
    return any(one.error for one in drained.said)


def _black_hole(arguments: argparse.Namespace) -> bool:
    is_bad = False
    for form in FORMS:
        run = partial(black_hole, form=form, requests=arguments.requests, policy=arguments.policy)
        outcome = _in_a_folder(run)
        print(black_hole_words(outcome), flush=True)
        is_bad = is_bad or len(outcome.failures) > arguments.requests // 100
    return is_bad


def _gray(arguments: argparse.Namespace) -> bool:
    outcome = _in_a_folder(partial(gray, seed=arguments.seed))
    print(gray_words(outcome), flush=True)
    return equal_and_failed(outcome.said, outcome.expected) != (len(outcome.said), 0)


def _all_gone(arguments: argparse.Namespace) -> bool:
    outcome = _in_a_folder(partial(all_gone, seed=arguments.seed))
    print(all_gone_words(outcome), flush=True)
    return equal_and_failed(outcome.said, outcome.expected) != (len(outcome.said), 0)


def _families(arguments: argparse.Namespace) -> bool:
    outcome = _in_a_folder(partial(families, kills=arguments.kills, seed=arguments.seed))
    print(f"{arguments.kills} agents killed: {outcome.words}", flush=True)
    return bool(outcome.different)


def _token_limits(arguments: argparse.Namespace) -> bool:
    run = partial(
        token_limits,
        seconds=1.5 * arguments.seconds,
        requests=arguments.requests // 2,
        seed=arguments.seed,
    )
    outcome = _in_a_folder(run)
    print(outcome.words, flush=True)
    return not outcome.is_good


PARTS: dict[str, Callable[[argparse.Namespace], bool]] = {
    "storm": _storm,
    "drain": _drain,
    "black_hole": _black_hole,
    "gray": _gray,
    "all_gone": _all_gone,
    "families": _families,
    "token_limits": _token_limits,
}
"""Each says whether something went wrong."""


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
