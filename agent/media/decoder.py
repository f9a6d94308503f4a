"""Images and sounds from the agent's side: files in, what the engine opens out.

Decoding one takes at most 5 s and 256 MiB; one that would take more is refused with a reason, and
the next one finds a worker again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Literal, Self

import msgspec
from msgspec import Struct

from agent.errors import MediaBusy, MediaRefused, WorkerBusy, WorkerDied, WorkerTooSlow
from agent.killable.worker import KillableWorker
from agent.media.frames import MAX_REPLY_BYTES, MediaJob, MediaReply, encode, reply_decoder
from agent.media.shared_file import SharedFile
from protocol.chat import ImagePart, MediaPart

DECODE_TIMEOUT_S = 5.0
MAX_REQUEST_BYTES = 128 * 1024 * 1024
"""Of one request, decoded; ten large images."""
MAX_HELD_BYTES = 512 * 1024 * 1024
"""Of all calls that the engine has not answered yet."""
MAX_HELD_FILES = 256
"""Likewise: each takes a descriptor of this process, which may have 1024."""

_KINDS: dict[type, Literal["image", "audio"]] = {ImagePart: "image"}


class DecodedMedium(Struct, frozen=True, kw_only=True):
    """As the engine opens it: `agent.engine.frames.Medium` says what lies in the file."""

    kind: Literal["image", "audio"]
    path: str
    digest: bytes
    width: int
    height: int
    samples: int


class DecodedMedia:
    """A call's media, in order. Leave it, or `close` it, once the engine has opened them."""

    def __init__(self, decoder: MediaDecoder, count: int) -> None:
        self._decoder = decoder
        self._count = count
        decoder.held_files += count
        self._files: list[SharedFile] = []
        self.media: list[DecodedMedium] = []
        self.size_bytes = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def add(self, medium: DecodedMedium, file: SharedFile) -> None:
        """Take over a medium and its file."""
        self._files.append(file)
        self.media.append(medium)
        self.size_bytes += file.size_bytes
        self._decoder.held_bytes += file.size_bytes

    def close(self) -> None:
        """Let go of the files."""
        while self._files:
            self._files.pop().close()
        self._decoder.held_bytes -= self.size_bytes
        self._decoder.held_files -= self._count
        self.size_bytes = self._count = 0


class MediaDecoder:
    """One worker process, one medium at a time; at most 256 wait, more are refused.

    The worker is started by the first job and again after it was killed. Close it at the end.
    """

    def __init__(self, *, timeout_s: float = DECODE_TIMEOUT_S) -> None:
        self._timeout_s = timeout_s
        self.held_bytes = 0
        """Of what was decoded and is not closed yet."""
        self.held_files = 0
        """Those that are still to be decoded count, too."""
        self._worker = KillableWorker(
            "agent.media.worker",
            decode=reply_decoder.decode,
            max_reply_bytes=MAX_REPLY_BYTES,
            spoils=lambda reply: reply.kind == "out_of_memory",
        )

    @property
    def pid(self) -> int | None:
        """The worker's process id, if one runs."""
        return self._worker.pid

    async def decode(
        self,
        parts: Sequence[MediaPart],
        *,
        sample_rate: int,
        is_wanted: Callable[[], bool] = lambda: True,
    ) -> DecodedMedia:
        """All media of a call, fewer if it is not wanted any more meanwhile.

        Raises `MediaRefused` with what the client may read, `MediaBusy`, and `OSError` where no
        worker can be started. Cancelling is safe.
        """
        if self.held_files + len(parts) > MAX_HELD_FILES:
            raise MediaBusy("too many images and sounds are held for calls")
        decoded = DecodedMedia(self, len(parts))
        try:
            for number, part in enumerate(parts, 1):
                if self.held_bytes > MAX_HELD_BYTES:
                    raise MediaBusy("too many images and sounds are held for calls")
                if not await self._decoded(part, number, sample_rate, is_wanted, decoded):
                    break
        except BaseException:
            decoded.close()
            raise
        return decoded

    async def close(self) -> None:
        """End the worker."""
        await self._worker.close()

    async def _decoded(
        self,
        part: MediaPart,
        number: int,
        sample_rate: int,
        is_wanted: Callable[[], bool],
        decoded: DecodedMedia,
    ) -> bool:
        """Add the next medium; False if it is not wanted any more."""
        kind = _KINDS.get(type(part), "audio")
        file = SharedFile()
        try:
            job = MediaJob(kind=kind, data=part.data, target=file.path, sample_rate=sample_rate)
            reply = await self._asked(job, f"Medium {number} ({kind})", is_wanted)
            if reply is not None:
                file.seal()
        except BaseException:
            file.close()
            raise
        if reply is None:
            file.close()
            return False
        decoded.add(
            DecodedMedium(
                kind=kind,
                path=file.path,
                digest=reply.digest,
                width=reply.width,
                height=reply.height,
                samples=reply.samples,
            ),
            file,
        )
        if decoded.size_bytes > MAX_REQUEST_BYTES:
            raise MediaRefused(
                f"The images and sounds take {decoded.size_bytes} bytes when they are decoded, "
                f"at most {MAX_REQUEST_BYTES} are allowed: send fewer or smaller ones."
            )
        return True

    async def _asked(
        self, job: MediaJob, what: str, is_wanted: Callable[[], bool]
    ) -> MediaReply | None:
        try:
            reply = await self._worker.ask(encode(job), self._timeout_s, is_wanted)
        except WorkerBusy as error:
            raise MediaBusy("too many images and sounds wait to be decoded") from error
        except WorkerTooSlow as error:
            raise MediaRefused(
                f"{what} could not be decoded within {self._timeout_s:g} s."
            ) from error
        except (WorkerDied, msgspec.MsgspecError) as error:
            raise MediaRefused(f"{what} ended the process that decodes.") from error
        if reply is None or reply.kind == "decoded":
            return reply
        if reply.kind == "out_of_memory":
            raise MediaRefused(f"{what} takes more memory to be decoded than the 256 MiB it may.")
        raise MediaRefused(f"{what} cannot be taken: {reply.text}.")
