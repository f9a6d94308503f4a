"""Images and sounds as runs of token ids."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.engine.media_ids import before_media, media_ids, without_media
from agent.engine.prefix_tree import PrefixTree


def test_equal_content_is_equal_ids_and_other_content_differs_from_the_first_on() -> None:
    assert media_ids(b"cat", 16).tolist() == media_ids(b"cat", 16).tolist()
    assert media_ids(b"cat", 16)[0] != media_ids(b"dog", 16)[0]


def test_no_id_is_one_of_a_vocabulary() -> None:
    ids = media_ids(b"cat", 4096)
    assert ids.dtype == np.int32
    assert (ids < 0).all()
    assert not len(without_media(ids))


def test_text_around_an_image_is_what_is_left_without_it() -> None:
    row = np.concatenate(([3, 0], media_ids(b"cat", 5), [7])).astype(np.int32)
    assert without_media(row).tolist() == [3, 0, 7]


@pytest.mark.parametrize(
    ("count", "kept"),
    [(0, 0), (1, 1), (2, 2), (3, 2), (6, 2), (7, 7), (8, 7), (9, 7), (10, 10), (11, 11), (12, 11)],
)
def test_a_row_is_cut_before_the_image_that_would_be_parted(count: int, kept: int) -> None:
    cat, dog, one = (media_ids(*of) for of in ((b"cat", 5), (b"dog", 3), (b"one", 1)))
    row = np.concatenate(([3, 4], cat, dog, one)).astype(np.int32)
    row = np.concatenate((row, media_ids(b"end", 2))).astype(np.int32)
    assert before_media(row, count) == kept


@given(st.lists(st.integers(0, 9) | st.binary(min_size=1, max_size=2), max_size=8), st.data())
def test_no_cut_is_inside_of_an_image_or_shorter_than_it_must_be(
    parts: list[int | bytes], data: st.DataObject
) -> None:
    row: list[int] = []
    borders = {0}
    for part in parts:
        row += [part] if isinstance(part, int) else media_ids(part, 1 + part[0] % 5).tolist()
        borders.add(len(row))
    count = data.draw(st.integers(0, len(row)))
    expected = max(border for border in borders if border <= count)
    assert before_media(np.array(row, dtype=np.int32), count) == expected


def test_the_prefix_tree_shares_an_image_as_a_whole_and_never_with_another() -> None:
    def prompt(image: bytes) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
        return np.concatenate(([1, 2], media_ids(image, 8), [5])).astype(np.int32)

    tree = PrefixTree()
    tree.put(0, "", prompt(b"cat"))
    assert tree.matches("", prompt(b"cat")) == {0: 11}
    assert tree.matches("", prompt(b"dog")) == {0: 2}
