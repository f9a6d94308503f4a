"""What is told of a fault of ours: where it happened, and nothing of what was in hand."""

from __future__ import annotations

import io
import sys
import threading
from collections.abc import Iterator

import pytest

from protocol.crashes import tell_crashes, told, what_asyncio_says, words

WORD = "qzcanaryqz"


def raised(error: BaseException) -> BaseException:
    prompt = WORD
    try:
        assert prompt
        raise error
    except type(error) as caught:
        return caught


def test_a_traceback_says_where_and_not_with_what() -> None:
    text = told(raised(ValueError(f"no float: '{WORD}'")))
    first, frame, last = text.splitlines()
    assert first == "Traceback (most recent call last):"
    assert frame.startswith('  File "')
    assert frame.endswith(", in raised")
    assert last == "ValueError: no float: '...'"
    assert told(None) == ""


def test_causes_come_first_and_no_more_than_ten() -> None:
    error: BaseException = raised(KeyError(WORD))
    for number in range(20):
        following = RuntimeError(f"number {number}")
        if number % 2:
            following.__cause__ = error
        else:
            following.__context__ = error
        error = raised(following)
    ends = [line for line in told(error).splitlines() if line.startswith("RuntimeError")]
    assert ends == [f"RuntimeError: number {number}" for number in range(10, 20)]
    hidden = RuntimeError("alone")
    hidden.__context__ = KeyError(WORD)
    hidden.__suppress_context__ = True
    assert "KeyError" not in told(hidden)


def test_causes_in_a_circle_end() -> None:
    one, other = RuntimeError("one"), RuntimeError("other")
    one.__cause__, other.__cause__ = other, one
    assert told(one).splitlines()[-1] == "RuntimeError: one"
    assert told(one).count("RuntimeError") == 2


def test_the_members_of_a_group_are_told_each() -> None:
    inner: BaseExceptionGroup[BaseException] = BaseExceptionGroup(
        "inner", [raised(ValueError(f"'{WORD}'"))]
    )
    text = told(BaseExceptionGroup("outer", [inner, *(RuntimeError("more") for _ in range(50))]))
    assert "    ValueError: '...'" in text
    assert text.count("RuntimeError") == 9
    for _ in range(50):
        inner = BaseExceptionGroup("deeper", [inner])
    assert told(inner).count("deeper") == 11


@pytest.mark.parametrize(
    "error",
    [
        UnicodeEncodeError("ascii", f"{WORD}\ud800", 0, 1, "no"),
        KeyError(WORD),
        ValueError(f"invalid literal for int() with base 10: '{WORD}'"),
        RuntimeError(f'text "{WORD}'),
        RuntimeError(f"https://me:{WORD}@host/?key={WORD}"),
        RuntimeError(f"Authorization: Bearer {WORD}"),
    ],
)
def test_what_errors_quote_is_not_told(error: Exception) -> None:
    assert WORD not in told(raised(error))


def test_words_are_short() -> None:
    assert len(words("x" * 100_000)) == 1000


def test_asyncio_s_messages_are_told_without_the_callback_s_arguments() -> None:
    error = RuntimeError()
    context = {"message": f"Exception in callback f('{WORD}')", "exception": error, "handle": WORD}
    assert what_asyncio_says(context) == ("Exception in callback f('...')", error)
    assert what_asyncio_says({}) == ("", None)


@pytest.fixture
def hooks() -> Iterator[None]:
    before = sys.excepthook, threading.excepthook, sys.unraisablehook
    yield
    sys.excepthook, threading.excepthook, sys.unraisablehook = before


@pytest.mark.usefixtures("hooks")
def test_what_nobody_catches_is_told_so(capsys: pytest.CaptureFixture[str]) -> None:
    stream = io.StringIO()
    tell_crashes(stream)
    error = raised(ValueError(f"'{WORD}'"))
    sys.excepthook(ValueError, error, None)
    thread = threading.Thread(name="a thread")
    for one in (thread, None):
        args = threading.ExceptHookArgs((ValueError, error, None, one))
        threading.excepthook(args)

    class Unraisable:
        object = (WORD,)
        exc_value = error

    sys.unraisablehook(Unraisable())  # type: ignore[arg-type]  # cannot be made here
    text = stream.getvalue()
    titles = [line for line in text.splitlines() if not line.startswith((" ", "Tr", "Val"))]
    assert titles == [
        "crash",
        "crash of the thread a thread",
        "crash of the thread ?",
        "ignored in tuple",
    ]
    assert text.count("ValueError: '...'") == 4
    assert WORD not in text
    tell_crashes()
    sys.excepthook(ValueError, error, None)
    assert capsys.readouterr().err.startswith("crash\nTraceback")
