"""A call's images and sounds: read, placed among its tokens, encoded, kept for the next call.

Encoding holds the engine's thread, so it is done as late as possible: in a turn of its own before
the first decode of a medium, and not at all where its tokens are in the KV cache or its embeddings
are still here.
"""

from __future__ import annotations

import mmap
import os
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from agent.engine.frames import Medium, Submit
from agent.engine.llama.arrays import Floats, Ints
from agent.engine.llama.context import Context
from agent.engine.llama.projector import Image, Part, Piece, Projector, Sound
from agent.engine.media_ids import media_ids
from agent.engine.prompts import PromptRefused
from agent.engine.scheduler import Chunk, Run
from protocol.invariants import present
from protocol.refusals import RefusalCode

MAX_KEPT_BYTES = 256 * 1024 * 1024
"""Of embeddings; the newest is kept in any case."""
_PIXEL_BYTES, _SAMPLE_BYTES = 3, 4
_LEAST_SAMPLES = 2


@dataclass(frozen=True, slots=True, eq=False)
class MediaPrompt:
    """A prompt with media: its tokens, and which of them are embeddings."""

    tokens: Ints
    runs: tuple[Run, ...]
    _media: Media
    _names: tuple[bytes, ...]
    """Of what each run shows, and to whom: equal names are equal embeddings, and embeddings are
    shared within a scope only."""
    _indices: tuple[int, ...]
    """Of each run's piece."""
    _parts: tuple[Part, ...]
    _pieces: tuple[Piece, ...]

    def is_encoded(self, chunk: Chunk) -> bool:
        """Whether `decode` can be called."""
        return self._media.kept(self._names[self._nth(chunk)]) is not None

    def encode(self, chunk: Chunk) -> float:
        """Compute the embeddings of a chunk's run; how many ms it took. Raises `ValueError`."""
        started = time.perf_counter()
        nth = self._nth(chunk)
        rows = self._media.embeddings(self._parts, self._pieces, self._indices[nth])
        run = self.runs[nth]
        if len(rows) != run.end - run.start:
            raise ValueError(f"{len(rows)} embeddings came, {run.end - run.start} were announced")
        self._media.keep(self._names[nth], rows)
        return 1000 * (time.perf_counter() - started)

    def decode(self, context: Context, chunk: Chunk) -> int:
        """Decode a chunk that is encoded; llama.cpp's code, as of `Context.decode`."""
        nth = self._nth(chunk)
        run, rows = self.runs[nth], present(self._media.kept(self._names[nth]))
        first = chunk.start - run.start
        return context.decode_embeddings(
            rows[first : first + chunk.count],
            chunk.start,
            chunk.slot,
            output=chunk.last,
            whole=run.whole,
        )

    def _nth(self, chunk: Chunk) -> int:
        return next(nth for nth, run in enumerate(self.runs) if chunk.start < run.end)


class Media:
    """The senses of a model. Runs that must stay whole have at most `most_whole` tokens."""

    def __init__(self, projector: Projector, *, most_whole: int) -> None:
        self._projector = projector
        self._most_whole = most_whole
        self._kept: OrderedDict[bytes, Floats] = OrderedDict()
        self._kept_bytes = 0

    def read(self, submit: Submit) -> MediaPrompt:
        """A call's prompt with its media. Raises `PromptRefused`."""
        if not isinstance(submit.prompt, str) or submit.suffix is not None:
            raise _unsupported("images and sounds go with a prompt that is text")
        parts, digests = self._parts(submit.prompt, submit.media)
        try:
            pieces = self._projector.pieces(parts)
        except ValueError as error:
            raise PromptRefused(RefusalCode.INVALID_MEDIA, f"the media: {error}") from error
        return self._placed(submit.scope, parts, digests, pieces)

    def embeddings(self, parts: Sequence[Part], pieces: Sequence[Piece], index: int) -> Floats:
        """Those of one of the pieces: float32 [tokens, width]. Raises `ValueError`."""
        return self._projector.embeddings(parts, pieces, index)

    def kept(self, name: bytes) -> Floats | None:
        """The embeddings of this name, if they are still here."""
        if name in self._kept:
            self._kept.move_to_end(name)
        return self._kept.get(name)

    def keep(self, name: bytes, rows: Floats) -> None:
        """Keep embeddings that are not here; the ones that were not used the longest give way."""
        self._kept[name] = rows
        self._kept_bytes += rows.nbytes
        while self._kept_bytes > MAX_KEPT_BYTES and len(self._kept) > 1:
            _, old = self._kept.popitem(last=False)
            self._kept_bytes -= old.nbytes

    def _parts(
        self, text: str, media: tuple[Medium, ...]
    ) -> tuple[tuple[Part, ...], dict[int, bytes]]:
        """Texts and media in order, no text empty, and each medium's digest by its place."""
        parts: list[Part] = []
        digests: dict[int, bytes] = {}
        done = 0
        for medium in media:
            if not done <= medium.at <= len(text):
                raise _unsupported(f"a medium at {medium.at} in a prompt of {len(text)} characters")
            _append_text(parts, text[done : medium.at])
            digests[len(parts)] = medium.digest
            parts.append(self._read(medium))
            done = medium.at
        _append_text(parts, text[done:])
        return tuple(parts), digests

    def _read(self, medium: Medium) -> Part:
        is_image = medium.kind == "image"
        if not (self._projector.sees if is_image else self._projector.hears):
            raise _unsupported(f"this model takes no {'images' if is_image else 'sounds'}")
        if is_image:
            size = medium.width * medium.height * _PIXEL_BYTES
            least = _PIXEL_BYTES
        else:
            size, least = medium.samples * _SAMPLE_BYTES, _LEAST_SAMPLES * _SAMPLE_BYTES
        if size < least:
            raise PromptRefused(RefusalCode.INVALID_MEDIA, f"an {medium.kind} part is empty")
        try:
            data = _mapped(medium.path, size)
        except (OSError, ValueError) as error:
            raise PromptRefused(
                RefusalCode.ENGINE_FAILED, f"the {medium.kind} cannot be read: {error}"
            ) from error
        if is_image:
            pixels = np.frombuffer(data, dtype=np.uint8).reshape(medium.height, medium.width, 3)
            return Image(pixels)
        return Sound(np.frombuffer(data, dtype=np.float32))

    def _placed(
        self,
        scope: str,
        parts: tuple[Part, ...],
        digests: dict[int, bytes],
        pieces: list[Piece],
    ) -> MediaPrompt:
        rows: list[Ints] = []
        runs: list[Run] = []
        indices: list[int] = []
        names: list[bytes] = []
        length = 0
        for index, piece in enumerate(pieces):
            if piece.tokens is None:
                self._check_whole(piece)
                # the pieces of one image follow each other: counted from the first of them
                nth = sum(before.part == piece.part for before in pieces[:index])
                content = b"%d/%d/" % (nth, piece.count) + digests[piece.part]
                names.append(scope.encode() + b"/" + content)
                rows.append(media_ids(content, piece.count))
                runs.append(Run(length, length + piece.count, whole=piece.whole))
                indices.append(index)
            else:
                rows.append(piece.tokens)
            length += piece.count
        tokens = np.concatenate(rows)
        return MediaPrompt(
            tokens, tuple(runs), self, tuple(names), tuple(indices), parts, tuple(pieces)
        )

    def _check_whole(self, piece: Piece) -> None:
        if piece.whole and piece.count > self._most_whole:
            raise _unsupported(
                f"an image is {piece.count} tokens, which this model must see at once, and the "
                f"agent decodes {self._most_whole}: start it with --micro-batch {piece.count}"
            )


def _append_text(parts: list[Part], text: str) -> None:
    if text:
        parts.append(text.encode("utf-8", "replace"))


def _mapped(path: str, size: int) -> mmap.mmap:
    """The first `size` bytes of a file; they stay when it is gone."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        # a shorter one would be a bus error later on
        if os.fstat(descriptor).st_size < size:
            raise ValueError(f"it has less than {size} bytes")
        return mmap.mmap(descriptor, size, prot=mmap.PROT_READ)
    finally:
        os.close(descriptor)


def _unsupported(message: str) -> PromptRefused:
    return PromptRefused(RefusalCode.UNSUPPORTED, message, param="messages")
