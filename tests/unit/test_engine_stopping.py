"""Stop strings over a stream."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.engine.stopping import StopMatcher


def run(stops: tuple[str, ...], *pieces: str) -> tuple[list[str], str, str | None]:
    """What each piece lets out, what the end lets out, what matched."""
    matcher = StopMatcher(stops)
    out = [matcher.feed(piece) for piece in pieces]
    return out, matcher.flush(), matcher.matched


def test_without_stops_everything_passes_at_once() -> None:
    assert run((), "a", "b") == (["a", "b"], "", None)


def test_a_stop_over_three_pieces_never_leaks() -> None:
    assert run(("<end>",), "hi <", "en", "d> there") == (["hi ", "", ""], "", "<end>")


def test_a_start_that_comes_to_nothing_is_let_out_later() -> None:
    assert run(("<end>",), "a <en", "trance") == (["a ", "<entrance"], "", None)


def test_a_start_at_the_end_of_the_text_is_flushed() -> None:
    assert run(("<end>",), "a <en") == (["a "], "<en", None)


def test_nothing_is_taken_after_a_match() -> None:
    assert run(("x",), "axb", "more") == (["a", ""], "", "x")


def test_the_stop_that_completes_first_wins() -> None:
    assert run(("abcd", "bc"), "abcd") == (["a"], "", "bc")


def test_of_stops_that_complete_together_the_longest_wins() -> None:
    assert run(("c", "abc"), "xabc") == (["x"], "", "abc")


def test_only_the_longest_possible_start_is_held_back() -> None:
    assert run(("aab",), "aaa") == (["a"], "aa", None)
    assert run(("aab",), "aaa", "b") == (["a", ""], "", "aab")


def test_equal_and_empty_stops_do_no_harm() -> None:
    assert run(("", "x", "x"), "axb") == (["a"], "", "x")


@pytest.mark.parametrize("stop", ["ababac", "aaaa", "αβα", "🙂🙃"])
def test_self_similar_stops_are_found_wherever_they_begin(stop: str) -> None:
    for prefix in (stop[:-1], stop[0], stop[:2] + stop[:1]):
        text = prefix + stop
        end = min(i for i in range(len(text) + 1) if text[:i].endswith(stop))
        out, rest, matched = run((stop,), *text)
        assert ("".join(out), rest, matched) == (text[: end - len(stop)], "", stop)


TEXTS = st.text(alphabet="abc", max_size=40)
STOPS = st.lists(st.text(alphabet="abc", min_size=1, max_size=5), max_size=3).map(tuple)


def expected(stops: tuple[str, ...], text: str) -> tuple[str, str | None]:
    """The definition, written down naively."""
    for end in range(1, len(text) + 1):
        completed = [stop for stop in stops if text[:end].endswith(stop)]
        if completed:
            stop = max(completed, key=len)
            return text[: end - len(stop)], stop
    return text, None


@given(STOPS, TEXTS, st.lists(st.integers(0, 40), max_size=8))
def test_the_result_depends_on_the_text_and_never_on_its_cuts(
    stops: tuple[str, ...], text: str, cuts: list[int]
) -> None:
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(borders)]
    out, rest, matched = run(stops, *pieces)
    assert ("".join(out) + rest, matched) == expected(stops, text)


@given(STOPS, TEXTS)
def test_what_is_held_back_is_the_longest_end_that_could_become_a_stop(
    stops: tuple[str, ...], text: str
) -> None:
    out, rest, matched = run(stops, text)
    if matched is None:
        starts = {stop[:n] for stop in stops for n in range(len(stop))} | {""}
        assert rest == max((start for start in starts if text.endswith(start)), key=len)
        assert out == [text[: len(text) - len(rest)]]
