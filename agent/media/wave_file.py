"""A WAV file as samples of one channel at a given rate.

Runs in the media worker only, whose memory and time are bounded, too.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from math import gcd

import numpy as np
from numpy.typing import NDArray

from agent.errors import MediaRefused

MAX_SECONDS = 120
"""The engine's thread takes some 3 ms a second of sound before anything is encoded."""
LEAST_SAMPLES = 2
MAX_RATE = 192_000
MAX_CHANNELS = 32
_PCM, _FLOAT, _EXTENSIBLE = 1, 3, 0xFFFE
_HALF_WIDTH = 16
"""Zero crossings of the sinc on each side: 96 dB with the window below."""
_WINDOW_BETA = 9.0
_BLOCK_PRODUCTS = 1 << 22

Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class _Format:
    code: int
    channels: int
    rate: int
    bits: int


def samples_of(data: bytes, sample_rate: int) -> Floats:
    """The sound in a file: float32 [samples] from -1 to 1. Raises `MediaRefused`."""
    form, body = _parsed(data)
    frames = _decoded(form, body)
    seconds = len(frames) / form.rate
    if seconds > MAX_SECONDS:
        raise MediaRefused(f"it lasts {seconds:.0f} s, at most {MAX_SECONDS} are taken")
    sound = resampled(frames.mean(axis=1, dtype=np.float32), form.rate, sample_rate)
    if len(sound) < LEAST_SAMPLES:
        raise MediaRefused("it has no sound in it")
    return sound


def resampled(sound: Floats, rate: int, wanted: int) -> Floats:
    """The same sound at another rate, without what that cannot hold: windowed sinc, by phases."""
    common = gcd(rate, wanted)
    up, down = wanted // common, rate // common
    if up == down:
        return sound
    cutoff = min(1.0, up / down)
    reach = int(np.ceil(_HALF_WIDTH / cutoff))
    taps = np.arange(-reach + 1, reach + 1)
    # phase p of the output lies (p * down % up) / up behind an input sample
    behind = (np.arange(up) * down % up / up)[:, None] - taps[None, :]
    window = np.i0(_WINDOW_BETA * np.sqrt(np.maximum(1 - (behind / reach) ** 2, 0.0)))
    weights = (cutoff * np.sinc(cutoff * behind) * window / np.i0(_WINDOW_BETA)).astype(np.float32)
    count = -(-len(sound) * up // down)
    padded = np.pad(sound, reach)
    made = np.empty(count, dtype=np.float32)
    block = max(_BLOCK_PRODUCTS // len(taps), 1)
    for start in range(0, count, block):
        places = np.arange(start, min(start + block, count))
        first = places * down // up + taps[0] + reach
        near = padded[first[:, None] + np.arange(len(taps))]
        made[places] = np.einsum("nt,nt->n", near, weights[places % up])
    return made


def _parsed(data: bytes) -> tuple[_Format, bytes]:
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise MediaRefused("it is no WAV file")
    form: _Format | None = None
    at = 12
    while at + 8 <= len(data):
        name, size = struct.unpack_from("<4sI", data, at)
        body = data[at + 8 : at + 8 + size]
        if name == b"fmt ":
            form = _format(body)
        elif name == b"data" and form is not None:
            return form, body
        at += 8 + size + size % 2
    raise MediaRefused("the file is damaged: it has no sound in it")


def _format(body: bytes) -> _Format:
    if len(body) < 16:
        raise MediaRefused("the file is damaged: it does not say how its sound is written")
    code, channels, rate, _, _, bits = struct.unpack_from("<HHIIHH", body)
    if code == _EXTENSIBLE and len(body) >= 26:
        (code,) = struct.unpack_from("<H", body, 24)
    if not (1 <= channels <= MAX_CHANNELS and 1000 <= rate <= MAX_RATE):
        raise MediaRefused(
            f"it has {channels} channels at {rate} Hz; 1 to {MAX_CHANNELS} at 1000 to {MAX_RATE} "
            "are taken"
        )
    if (code, bits) not in _READERS:
        raise MediaRefused(f"its sound is of kind {code} with {bits} bits; PCM or float is taken")
    return _Format(code, channels, rate, bits)


def _decoded(form: _Format, body: bytes) -> Floats:
    """float32 [frames, channels]."""
    size = form.channels * form.bits // 8
    whole = body[: len(body) - len(body) % size]
    return _READERS[form.code, form.bits](whole).reshape(-1, form.channels)


def _read_8(body: bytes) -> Floats:
    return _scaled(np.frombuffer(body, dtype=np.uint8), 1 << 7) - np.float32(1)


def _read_16(body: bytes) -> Floats:
    return _scaled(np.frombuffer(body, dtype="<i2"), 1 << 15)


def _read_24(body: bytes) -> Floats:
    wide = np.zeros((len(body) // 3, 4), dtype=np.uint8)
    wide[:, 1:] = np.frombuffer(body, dtype=np.uint8).reshape(-1, 3)
    return _read_32(wide.tobytes())


def _read_32(body: bytes) -> Floats:
    return _scaled(np.frombuffer(body, dtype="<i4"), 1 << 31)


def _read_float(body: bytes) -> Floats:
    return _finite(np.frombuffer(body, dtype="<f4"))


def _read_double(body: bytes) -> Floats:
    return _finite(np.frombuffer(body, dtype="<f8"))


def _scaled(numbers: NDArray[np.integer], one: int) -> Floats:
    scaled: Floats = numbers.astype(np.float32) * np.float32(1 / one)
    return scaled


def _finite(numbers: NDArray[np.floating]) -> Floats:
    finite: Floats = np.nan_to_num(numbers, nan=0.0).clip(-1, 1).astype(np.float32)
    return finite


_READERS = {
    (_PCM, 8): _read_8,
    (_PCM, 16): _read_16,
    (_PCM, 24): _read_24,
    (_PCM, 32): _read_32,
    (_FLOAT, 32): _read_float,
    (_FLOAT, 64): _read_double,
}
