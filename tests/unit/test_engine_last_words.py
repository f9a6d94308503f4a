"""The engine's error output on its way into the agent's log."""

from __future__ import annotations

import asyncio

import pytest
from structlog.testing import capture_logs

from agent.engine.last_words import CHUNK_BYTES, MAX_LINE_CHARS, LastWords


async def lines_of(*chunks: bytes) -> tuple[list[str], str]:
    stream = asyncio.StreamReader(limit=1 << 20)
    for chunk in chunks:
        stream.feed_data(chunk)
    stream.feed_eof()
    words = LastWords()
    with capture_logs() as logged:
        await words.read(stream)
    return [entry["line"] for entry in logged], words.text


async def test_every_line_is_logged_and_the_last_one_kept() -> None:
    assert await lines_of(b"one\ntw", b"o\n\nthree\n") == (["one", "two", "three"], "three")


async def test_a_line_cut_short_by_a_death_counts() -> None:
    assert await lines_of(b"one\nGGML_ASSERT(x) fai") == (
        ["one", "GGML_ASSERT(x) fai"],
        "GGML_ASSERT(x) fai",
    )


async def test_bytes_that_are_no_text_do_no_harm() -> None:
    assert await lines_of(b"\xff\n") == (["\ufffd"], "\ufffd")


@pytest.mark.parametrize("size", [MAX_LINE_CHARS + 1, 5 * CHUNK_BYTES])
async def test_an_endless_line_is_cut(size: int) -> None:
    lines, last = await lines_of(b"x" * size + b"\nend")
    assert last == "end"
    assert max(map(len, lines)) == MAX_LINE_CHARS


async def test_no_stream_has_no_words() -> None:
    words = LastWords()
    await words.read(None)
    assert words.text == ""
