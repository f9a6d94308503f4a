"""The process that decodes images and sounds, so that a hostile file can do no harm.

Started as `python -m agent.media.worker FD PARENT_PID`; serves one job at a time until its socket
closes (`agent.killable`).
"""

from __future__ import annotations

import os
import sys
from hashlib import blake2b
from typing import Any

import numpy as np
from numpy.typing import NDArray

from agent.errors import MediaRefused
from agent.killable.job_loop import serve
from agent.media.frames import (
    MAX_REASON_CHARS,
    MediaJob,
    MediaReply,
    encode,
    job_decoder,
)
from agent.media.image_file import pixels_of
from agent.media.wave_file import samples_of

DIGEST_BYTES = 16


def decode(job: MediaJob) -> MediaReply:
    """Do one job; whatever the file does short of killing the process is a reply."""
    try:
        if job.kind == "image":
            pixels = pixels_of(job.data)
            height, width, _ = pixels.shape
            return MediaReply(
                kind="decoded",
                width=width,
                height=height,
                digest=_written(pixels, job.target, b"%d %d" % (width, height)),
            )
        samples = samples_of(job.data, job.sample_rate)
        digest = _written(samples, job.target, b"%d" % job.sample_rate)
        return MediaReply(kind="decoded", samples=len(samples), digest=digest)
    except MediaRefused as refusal:
        return MediaReply(kind="refused", text=str(refusal)[:MAX_REASON_CHARS])
    except MemoryError:
        return MediaReply(kind="out_of_memory")


def _written(data: NDArray[Any], target: str, shape: bytes) -> bytes:
    """Write an array to a file; the hash of what it is."""
    content = np.ascontiguousarray(data).data.cast("B")
    descriptor = os.open(target, os.O_WRONLY | os.O_CLOEXEC)
    try:
        done = 0
        while done < len(content):
            done += os.write(descriptor, content[done:])
    finally:
        os.close(descriptor)
    return blake2b(content, digest_size=DIGEST_BYTES, person=shape[:16]).digest()


def _reply_to(job: bytes) -> bytes:
    return encode(decode(job_decoder.decode(job)))


if __name__ == "__main__":
    serve(int(sys.argv[1]), int(sys.argv[2]), _reply_to)
