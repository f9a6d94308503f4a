"""Bytes of tokens to text, and what a call lets out token by token."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from agent.engine.detokenizer import Detokenizer
from agent.engine.stopping import StopMatcher

BYTES = [bytes([value]) for value in range(256)]


def test_a_character_over_four_tokens_comes_out_whole() -> None:
    made = Detokenizer(BYTES)
    assert [made.feed(byte) for byte in "🙂".encode()] == ["", "", "", "🙂"]


def test_pieces_may_end_in_the_middle_of_a_character() -> None:
    first, second = "né".encode()[:2], "né".encode()[2:] + b"!"
    made = Detokenizer([first, second])
    assert [made.feed(0), made.feed(1), made.flush()] == ["n", "é!", ""]


def test_bytes_that_are_no_text_become_the_replacement_character() -> None:
    made = Detokenizer(BYTES)
    assert [made.feed(0xFF), made.feed(0xC3), made.feed(ord("a"))] == ["\ufffd", "", "\ufffda"]


def test_a_character_that_stays_incomplete_is_replaced_at_the_end() -> None:
    made = Detokenizer(BYTES)
    assert made.feed(0xE2) == ""
    assert made.flush() == "\ufffd"
    assert made.flush() == ""


def test_control_tokens_add_nothing_and_do_not_break_a_character() -> None:
    made = Detokenizer([b"\xc3", b"", b"\xa9"])
    assert [made.feed(0), made.feed(1), made.feed(2)] == ["", "", "é"]


@given(st.binary(max_size=60))
def test_the_whole_text_is_what_python_decodes_from_the_whole_bytes(data: bytes) -> None:
    made = Detokenizer(BYTES)
    text = "".join(made.feed(byte) for byte in data) + made.flush()
    assert text == data.decode("utf-8", "replace")


def let_out(pieces: list[bytes], stops: tuple[str, ...]) -> str:
    detokenizer, matcher = Detokenizer(pieces), StopMatcher(stops)
    text = "".join(matcher.feed(detokenizer.feed(token)) for token in range(len(pieces)))
    return text + matcher.feed(detokenizer.flush()) + matcher.flush()


@given(
    st.text(alphabet="aé🙂<end>", max_size=30),
    st.lists(st.integers(0, 120), max_size=20),
    st.lists(st.sampled_from(["<end>", "é🙂", "aa", "🙂"]), max_size=2).map(tuple),
)
def test_the_same_bytes_cut_into_any_tokens_let_out_the_same_text(
    text: str, cuts: list[int], stops: tuple[str, ...]
) -> None:
    data = text.encode()
    borders = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    pieces = [data[a:b] for a, b in pairwise(borders)]
    assert let_out(pieces, stops) == let_out([data], stops)
