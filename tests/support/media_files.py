"""Images and sounds as the engine opens them: files in memory, gone with the process."""

from __future__ import annotations

import os
from hashlib import blake2b

import numpy as np
from numpy.typing import NDArray

from agent.engine.frames import Medium


def picture(seed: int, *, width: int = 48, height: int = 40) -> NDArray[np.uint8]:
    """A random image: uint8 [height, width, 3]."""
    numbers = np.random.default_rng(seed)
    return numbers.integers(0, 256, (height, width, 3), dtype=np.uint8)


def tone(hertz: float, *, seconds: float = 1.0, rate: int = 16_000) -> NDArray[np.float32]:
    """A sound of one pitch: float32 [samples]."""
    angles = np.arange(int(seconds * rate), dtype=np.float32) * np.float32(2 * np.pi * hertz / rate)
    sound: NDArray[np.float32] = np.sin(angles)
    return sound


class MediaFiles:
    """Holds the files; `close` it. Each medium stands behind `at` characters of its prompt."""

    def __init__(self) -> None:
        self._descriptors: list[int] = []

    def image(self, pixels: NDArray[np.uint8], *, at: int) -> Medium:
        height, width, _ = pixels.shape
        path, digest = self._written(pixels.tobytes())
        return Medium(kind="image", at=at, path=path, digest=digest, width=width, height=height)

    def sound(self, samples: NDArray[np.float32], *, at: int) -> Medium:
        path, digest = self._written(samples.tobytes())
        return Medium(kind="audio", at=at, path=path, digest=digest, samples=len(samples))

    def close(self) -> None:
        for descriptor in self._descriptors:
            os.close(descriptor)

    def _written(self, data: bytes) -> tuple[str, bytes]:
        descriptor = os.memfd_create("medium")
        self._descriptors.append(descriptor)
        os.write(descriptor, data)
        path = f"/proc/{os.getpid()}/fd/{descriptor}"
        return path, blake2b(data, digest_size=16).digest()
