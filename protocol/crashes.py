"""How a fault of ours is told: where in our code it happened, and nothing of what was in hand.

No local variables, and no text that an exception's own words quote: `float('…')` repeats what
somebody wrote. Standard library only.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections.abc import Iterator, Mapping
from typing import Any, TextIO

from protocol.redaction import redacted, without_quotes

_MOST_CAUSES = 10
_MOST_OF_GROUP = 10
_MOST_CHARS = 1000
"""Of an exception's words."""
_MOST_FRAMES = 60


def told(error: BaseException | None) -> str:
    """The traceback with those of its causes, the first one first; of a group each member's. Not
    for what comes without one: then it is empty."""
    return "\n".join(_lines(error, depth=0)) if error is not None else ""


def words(text: object) -> str:
    """What an exception says of itself, or asyncio of it."""
    return redacted(without_quotes(str(text)[: 4 * _MOST_CHARS]))[:_MOST_CHARS]


def what_asyncio_says(context: Mapping[str, Any]) -> tuple[str, BaseException | None]:
    """Of what a loop's exception handler is given: the message, and the error if there is one. What
    else there is, as the callback with its arguments, is nothing to write down."""
    return words(context.get("message", "")), context.get("exception")


def tell_crashes(stream: TextIO | None = None) -> None:
    """From now on what nobody catches is told so, on standard error: of the main thread, of others
    and of what Python cannot raise."""

    def say(title: str, error: BaseException | None) -> None:
        out = stream or sys.stderr
        out.write(f"{title}\n{told(error)}\n")
        out.flush()

    def of_main(_kind: object, error: BaseException, _where: object) -> None:
        say("crash", error)

    def of_thread(args: threading.ExceptHookArgs) -> None:
        name = args.thread.name if args.thread is not None else "?"
        say(f"crash of the thread {name}", args.exc_value)

    def unraisable(args: sys.UnraisableHookArgs) -> None:
        say(f"ignored in {type(args.object).__name__}", args.exc_value)

    sys.excepthook = of_main
    threading.excepthook = of_thread
    sys.unraisablehook = unraisable


def _lines(error: BaseException, *, depth: int) -> Iterator[str]:
    chain = [error]
    while len(chain) < _MOST_CAUSES and (cause := _cause(chain[-1])) is not None:
        if cause in chain:
            break
        chain.append(cause)
    indent = "  " * depth
    for one in reversed(chain):
        yield f"{indent}Traceback (most recent call last):"
        for frame in traceback.extract_tb(one.__traceback__, limit=-_MOST_FRAMES):
            yield f'{indent}  File "{frame.filename}", line {frame.lineno}, in {frame.name}'
        yield f"{indent}{type(one).__name__}: {words(one)}"
        if isinstance(one, BaseExceptionGroup) and depth < _MOST_CAUSES:
            for member in one.exceptions[:_MOST_OF_GROUP]:
                yield from _lines(member, depth=depth + 1)


def _cause(error: BaseException) -> BaseException | None:
    if error.__cause__ is not None:
        return error.__cause__
    return None if error.__suppress_context__ else error.__context__
