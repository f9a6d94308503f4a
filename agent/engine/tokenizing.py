"""Texts to ids and back, for calls that want nothing else.

Tokenising runs at about 3 MB a second. Short texts are done on the engine's loop, longer ones on
the thread beside it. Bounds are in characters, of 1 to 4 bytes: between two steps one text more is
begun while fewer than 8192 are done, so at most 12,287 are tokenised. That is about 4 ms, and 16 ms
in the worst case.
"""

from __future__ import annotations

from collections import deque
from functools import partial

from agent.engine.llama.vocabulary import Vocabulary
from agent.engine.prompts import with_start
from agent.engine.query_frames import (
    DetokenizeCall,
    Detokenized,
    QueryAnswer,
    QueryRefused,
    TokenizeCall,
    Tokenized,
)
from agent.engine.text_thread import LONG_TEXT_CHARS, TextJob, TextThread
from protocol.refusals import RefusalCode

MAX_CALLS = 64
MAX_TEXT_BYTES = 1024 * 1024
MAX_IDS = 256 * 1024
TURN_TEXT_CHARS = 8 * 1024
"""Text that one turn begins to tokenise no more after."""
SLICE_IDS = 32 * 1024
"""Ids that one turn writes out: about 2 ms."""


class Tokenizing:
    """At most `MAX_CALLS` calls at once, more are refused."""

    def __init__(self, vocabulary: Vocabulary, thread: TextThread) -> None:
        self._vocabulary = vocabulary
        self._thread = thread
        self._short: deque[TokenizeCall] = deque()
        self._texts: deque[_Text] = deque()
        self._beside: dict[int, TextJob[QueryAnswer]] = {}
        self._answers: list[QueryAnswer] = []

    @property
    def has_work(self) -> bool:
        """Whether a turn would do something; what the thread works on does not count."""
        return bool(self._answers or self._short or self._texts)

    def submit(self, command: TokenizeCall | DetokenizeCall) -> None:
        """Take a call, or refuse it with the next turn's answers."""
        if len(self._short) + len(self._texts) + len(self._beside) >= MAX_CALLS:
            self._refuse(command.call, RefusalCode.NO_FREE_SLOT, f"{MAX_CALLS} calls wait")
        elif isinstance(command, TokenizeCall):
            self._submit_text(command)
        else:
            self._submit_ids(command)

    def cancel(self, call: int) -> None:
        """Forget a call; nothing more is said about it. Unknown: no effect."""
        job = self._beside.pop(call, None)
        if job is not None:
            self._thread.forget(job)
        self._short = deque(each for each in self._short if each.call != call)
        self._texts = deque(each for each in self._texts if each.call != call)
        self._answers = [answer for answer in self._answers if answer.call != call]

    def turn(self) -> list[QueryAnswer]:
        """Work for a few milliseconds; the answers that are complete now."""
        text_chars = TURN_TEXT_CHARS
        while self._short and text_chars > 0:
            command = self._short.popleft()
            text_chars -= len(command.text)
            self._answers.append(_tokenized(self._vocabulary, command))
        if self._texts:
            text = self._texts[0].written()
            if text is not None:
                self._answers.append(text)
                self._texts.popleft()
        answers, self._answers = self._answers, []
        return answers

    def _submit_text(self, command: TokenizeCall) -> None:
        size = len(command.text)
        if size > MAX_TEXT_BYTES:
            message = f"`text` has {size} characters, at most {MAX_TEXT_BYTES} are tokenised"
            self._refuse(command.call, RefusalCode.UNSUPPORTED, message, param="text")
        elif size <= LONG_TEXT_CHARS:
            self._short.append(command)
        else:
            work = partial(_tokenized, self._vocabulary, command)
            self._beside[command.call] = self._thread.do(work, self._found, first=False)

    def _submit_ids(self, command: DetokenizeCall) -> None:
        ids, size = command.token_ids, self._vocabulary.size
        if len(ids) > MAX_IDS:
            message = f"`token_ids` has {len(ids)} ids, at most {MAX_IDS} are written out"
            self._refuse(command.call, RefusalCode.UNSUPPORTED, message, param="token_ids")
        elif ids and not 0 <= min(ids) <= max(ids) < size:
            message = f"`token_ids` has ids outside of the vocabulary (0 to {size - 1})"
            self._refuse(command.call, RefusalCode.UNSUPPORTED, message, param="token_ids")
        else:
            vocabulary = self._vocabulary
            pieces = vocabulary.shown_pieces if command.show_special else vocabulary.pieces
            self._texts.append(_Text(command, pieces))

    def _found(self, job: TextJob[QueryAnswer]) -> None:
        answer = job.result()
        del self._beside[answer.call]
        self._answers.append(answer)

    def _refuse(self, call: int, code: int, message: str, **facts: int | str) -> None:
        refused = QueryRefused(call=call, code=int(code), message=message, facts=facts)
        self._answers.append(refused)


class _Text:
    """Ids that are written out, a slice a turn."""

    def __init__(self, command: DetokenizeCall, pieces: list[bytes]) -> None:
        self.call = command.call
        self._ids = command.token_ids
        self._pieces = pieces
        self._done = 0
        self._data = bytearray()

    def written(self) -> Detokenized | None:
        """Do a slice; the whole text when it was the last."""
        end = self._done + SLICE_IDS
        pieces = self._pieces
        self._data += b"".join([pieces[token] for token in self._ids[self._done : end]])
        self._done = end
        if end < len(self._ids):
            return None
        return Detokenized(call=self.call, text=self._data.decode("utf-8", "replace"))


def _tokenized(vocabulary: Vocabulary, command: TokenizeCall) -> QueryAnswer:
    try:
        ids = vocabulary.tokenize(
            command.text,
            add_special=command.add_special,
            parse_special=command.parse_special,
        )
    except ValueError as error:
        code = int(RefusalCode.ENGINE_FAILED)
        return QueryRefused(call=command.call, code=code, message=str(error))
    if command.as_prompt:
        ids = with_start(ids, vocabulary)
    token_ids = tuple(ids.tolist())
    shown = vocabulary.shown_pieces if command.with_pieces else []
    pieces = tuple(shown[token].decode("latin-1") for token in token_ids) if shown else ()
    return Tokenized(call=command.call, token_ids=token_ids, pieces=pieces)
