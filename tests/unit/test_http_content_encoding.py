"""Encoded bodies: the same bytes come out, within bounds, and what is wrong is told."""

from __future__ import annotations

import asyncio
import contextlib
import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from balancer.errors import InvalidRequest, RequestTooLarge, UnsupportedMediaType
from balancer.http.content_encoding import MAX_PARTS, MAX_WINDOW_LOG, decoded, encodings_of
from balancer.settings import MIB
from tests.support.encoded import ENCODE, bare_deflate, far_looking_zstd

BODY = b'{"messages": [{"role": "user", "content": "h\xc3\xa9"}]}' * 50
NOISE = random.Random(7).randbytes(700_000)
MULTIPLE = ("gzip", "zstd")


async def _decoded(body: bytes, *encodings: str, limit_bytes: int = MIB) -> bytes:
    return await decoded(body, encodings, limit_bytes=limit_bytes)


@pytest.mark.parametrize("encoding", ENCODE)
@pytest.mark.parametrize("body", [b"", b"x", BODY, NOISE, bytes(MIB)])
async def test_what_went_in_comes_out(encoding: str, body: bytes) -> None:
    assert await _decoded(ENCODE[encoding](body), encoding) == body


async def test_two_encodings_are_undone_the_last_one_first() -> None:
    body = ENCODE["zstd"](ENCODE["gzip"](BODY))
    assert await _decoded(body, "gzip", "zstd") == BODY
    with pytest.raises(InvalidRequest, match="not gzip"):
        await _decoded(body, "zstd", "gzip")


async def test_deflate_without_its_wrapping_is_read_too() -> None:
    assert await _decoded(bare_deflate(BODY), "deflate") == BODY


async def test_an_empty_body_stays_one() -> None:
    assert await _decoded(b"", "gzip", "zstd") == b""


@pytest.mark.parametrize("encoding", MULTIPLE)
async def test_members_and_frames_that_follow_one_another_are_one_body(encoding: str) -> None:
    encode = ENCODE[encoding]
    assert await _decoded(encode(BODY) + encode(b"") + encode(NOISE), encoding) == BODY + NOISE


@pytest.mark.parametrize("encoding", MULTIPLE)
async def test_a_body_of_very_many_empty_members_is_refused(encoding: str) -> None:
    empty = ENCODE[encoding](b"")
    assert await _decoded(empty * MAX_PARTS, encoding) == b""
    with pytest.raises(RequestTooLarge, match="members or frames"):
        await _decoded(empty * (MAX_PARTS + 1), encoding)


@pytest.mark.parametrize("encoding", ENCODE)
async def test_every_cut_of_a_body_is_told_as_one(encoding: str) -> None:
    whole = ENCODE[encoding](BODY)
    for end in range(1, len(whole)):
        with pytest.raises(InvalidRequest, match="ends before its"):
            await _decoded(whole[:end], encoding)


@pytest.mark.parametrize("encoding", ENCODE)
async def test_what_follows_the_end_is_told(encoding: str) -> None:
    with pytest.raises(InvalidRequest):
        await _decoded(ENCODE[encoding](BODY) + b"rest", encoding)


@pytest.mark.parametrize("encoding", ENCODE)
async def test_what_is_not_encoded_so_is_told_by_its_name(encoding: str) -> None:
    with pytest.raises(InvalidRequest, match=f"not {encoding}"):
        await _decoded(b'{"messages": []}', encoding)


@pytest.mark.parametrize("encoding", ENCODE)
async def test_the_limit_is_on_what_comes_out_and_exact(encoding: str) -> None:
    body = ENCODE[encoding](bytes(MIB))
    assert len(await _decoded(body, encoding, limit_bytes=MIB)) == MIB
    with pytest.raises(RequestTooLarge, match="larger than"):
        await _decoded(body, encoding, limit_bytes=MIB - 1)


@pytest.mark.parametrize("encodings", [("gzip",), ("deflate",), ("zstd",), ("gzip", "zstd")])
async def test_a_bomb_costs_no_more_memory_than_the_limit_allows(
    encodings: tuple[str, ...],
) -> None:
    bomb = bytes(16 * MIB)
    for encoding in encodings:
        bomb = ENCODE[encoding](bomb)
    tracemalloc.start()
    try:
        with pytest.raises(RequestTooLarge):
            await _decoded(bomb, *encodings, limit_bytes=MIB)
        assert tracemalloc.get_traced_memory()[1] < 3 * MIB
    finally:
        tracemalloc.stop()


async def test_a_bomb_inside_a_bomb_is_stopped_at_the_outer_one() -> None:
    inner = ENCODE["gzip"](b"") * 100_000
    with pytest.raises(RequestTooLarge, match="larger than"):
        await _decoded(ENCODE["zstd"](inner), "gzip", "zstd", limit_bytes=MIB)


async def test_a_frame_that_looks_far_back_is_refused_before_anything_is_set_aside_for_it() -> None:
    near, far = (far_looking_zstd(BODY, window) for window in (MAX_WINDOW_LOG, MAX_WINDOW_LOG + 1))
    assert await _decoded(near, "zstd") == BODY
    with pytest.raises(InvalidRequest, match="cannot be undone here"):
        await _decoded(far, "zstd")


@settings(max_examples=100, deadline=None)
@given(
    encodings=st.lists(st.sampled_from(sorted(ENCODE)), min_size=1, max_size=2),
    body=st.binary(max_size=300),
    at=st.integers(0, 400),
    damage=st.binary(max_size=6),
)
def test_damaged_bytes_come_out_or_are_told_as_the_client_s_mistake(
    encodings: list[str], body: bytes, at: int, damage: bytes
) -> None:
    sent = body
    for encoding in encodings:
        sent = ENCODE[encoding](sent)
    damaged = sent[:at] + damage + sent[at + len(damage) :]
    with contextlib.suppress(InvalidRequest, RequestTooLarge):
        assert len(asyncio.run(_decoded(damaged, *encodings, limit_bytes=1000))) <= 1000


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ([], ()),
        (["identity"], ()),
        (["GZIP"], ("gzip",)),
        (["x-gzip"], ("gzip",)),
        (["gzip,, identity , zstd"], ("gzip", "zstd")),
        (["deflate", "zstd"], ("deflate", "zstd")),
    ],
)
def test_the_header_s_names_are_read_in_their_order(
    headers: list[str], expected: tuple[str, ...]
) -> None:
    assert encodings_of(headers) == expected


@pytest.mark.parametrize("header", ["br", "gzip br", "gzip;q=1", "gzip, br", "gzip, gzip, gzip"])
def test_other_names_and_more_of_them_are_refused_with_those_that_are_taken(header: str) -> None:
    with pytest.raises(UnsupportedMediaType, match="gzip, deflate, zstd") as refused:
        encodings_of([header])
    assert refused.value.details == {"accepted_encodings": ["gzip", "deflate", "zstd"]}
