"""Image and sound files as the engine wants them."""

from __future__ import annotations

import io
import struct
import wave
import zlib
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from agent.errors import MediaRefused
from agent.media.image_file import MAX_PIXELS, pixels_of
from agent.media.wave_file import MAX_SECONDS, resampled, samples_of

RED, CLEAR = (255, 0, 0), (0, 0, 0, 0)


def as_file(image: Image.Image, form: str, **options: Any) -> bytes:
    out = io.BytesIO()
    image.save(out, form, **options)
    return out.getvalue()


def half_red(mode: str = "RGB") -> Image.Image:
    """The left half red, the right one of the mode's zero."""
    image = Image.new(mode, (6, 4))
    image.paste(Image.new("RGB", (3, 4), RED).convert(mode), (0, 0))
    return image


@pytest.mark.parametrize("form", ["PNG", "BMP", "GIF", "WEBP", "JPEG"])
def test_every_format_gives_the_pixels_that_are_in_it(form: str) -> None:
    options = {"lossless": True} if form == "WEBP" else {"quality": 100, "subsampling": 0}
    pixels = pixels_of(as_file(half_red(), form, **options))
    assert pixels.shape == (4, 6, 3)
    assert pixels.dtype == np.uint8
    assert np.abs(pixels[:, :2].astype(int) - RED).max() < 12
    assert pixels[:, 4:].max() < 12


@pytest.mark.parametrize(
    ("mode", "right"),
    [("RGBA", 255), ("LA", 255), ("L", 0), ("P", 0), ("1", 0), ("I;16", 0), ("CMYK", 255)],
)
def test_every_mode_becomes_rgb_on_white(mode: str, right: int) -> None:
    if mode == "I;16":
        numbers = np.zeros((4, 6), dtype=np.uint16)
        numbers[:, :3] = 0x4D00
        image = Image.fromarray(numbers)
    elif mode in ("RGBA", "LA"):
        image = Image.new(mode, (6, 4), CLEAR[-len(mode) :])
        image.paste(Image.new("RGB", (3, 4), RED).convert(mode), (0, 0))
    else:
        image = half_red(mode)
    data = as_file(image, "JPEG" if mode == "CMYK" else "PNG", quality=100)
    pixels = pixels_of(data)
    assert pixels.shape == (4, 6, 3)
    assert abs(int(pixels[0, 5, 0]) - right) < 12
    if mode == "I;16":
        assert pixels[0, 0].tolist() == [0x4D] * 3


def test_transparency_by_colour_is_white_too() -> None:
    image = Image.new("RGB", (2, 1), RED)
    pixels = pixels_of(as_file(image, "PNG", transparency=RED))
    assert pixels.tolist() == [[[255] * 3] * 2]


def test_a_photograph_is_turned_upright() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    data = as_file(half_red(), "PNG", exif=exif)
    pixels = pixels_of(data)
    assert pixels.shape == (6, 4, 3)
    assert pixels[0, 0].tolist() == list(RED)
    assert pixels[5, 0].tolist() == [0, 0, 0]


def test_a_large_image_is_made_smaller_and_keeps_its_shape() -> None:
    pixels = pixels_of(as_file(Image.new("L", (4096, 2048)), "PNG"))
    height, width, _ = pixels.shape
    assert MAX_PIXELS * 0.99 < height * width <= MAX_PIXELS
    assert width / height == pytest.approx(2, rel=0.01)


def test_a_jpeg_larger_than_what_is_decoded_is_decoded_smaller() -> None:
    pixels = pixels_of(as_file(Image.new("L", (6000, 4000), 200), "JPEG"))
    assert pixels.shape[0] * pixels.shape[1] <= MAX_PIXELS
    assert abs(int(pixels[9, 9, 0]) - 200) < 4


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no JPEG, PNG"),
        (b"hello", "no JPEG, PNG"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "no JPEG, PNG"),
        (as_file(half_red(), "TIFF"), "no JPEG, PNG"),
        (as_file(half_red(), "PNG")[:45], "damaged"),
        (as_file(half_red(), "JPEG")[:-30], "damaged"),
        (as_file(Image.new("1", (1001, 5)), "PNG"), "one side may be 200 times the other"),
        (as_file(Image.new("1", (5, 1001)), "PNG"), "one side may be 200 times the other"),
        (as_file(Image.new("1", (4097, 4096)), "PNG"), "at most 16777216 are decoded"),
    ],
)
def test_what_is_no_image_of_ours_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(MediaRefused, match=reason):
        pixels_of(data)


def test_a_bomb_is_refused_by_what_it_says_of_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it was decoded")

    monkeypatch.setattr("PIL.PngImagePlugin.PngImageFile.load", never)
    header = struct.pack(">IIBBBBB", 65000, 65000, 8, 2, 0, 0, 0)
    image = as_file(Image.new("RGB", (1, 1)), "PNG")
    with pytest.raises(MediaRefused, match="65000 x 65000"):
        pixels_of(image[:16] + header + _crc(b"IHDR" + header) + image[33:])


def _crc(data: bytes) -> bytes:
    return struct.pack(">I", zlib.crc32(data))


@given(st.binary(max_size=200), st.integers(0, 300))
def test_no_damage_gives_anything_but_pixels_or_a_refusal(noise: bytes, at: int) -> None:
    data = bytearray(as_file(half_red(), "PNG"))
    data[at : at + len(noise)] = noise
    with suppress(MediaRefused):
        assert pixels_of(bytes(data)).shape[2] == 3


# --- sounds ---


def tone(hertz: float, rate: int, seconds: float = 0.5) -> NDArray[np.float32]:
    return np.sin(2 * np.pi * hertz * np.arange(int(rate * seconds)) / rate).astype(np.float32)


def wav(samples: NDArray[Any], rate: int, *, channels: int = 1, width: int = 2) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(width)
        file.setframerate(rate)
        file.writeframes(samples.tobytes())
    return out.getvalue()


def riff(code: int, bits: int, body: bytes, *, rate: int = 16_000, extra: bytes = b"") -> bytes:
    form = struct.pack("<HHIIHH", code, 1, rate, rate * bits // 8, bits // 8, bits) + extra
    chunks = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    chunks += b"fmt " + struct.pack("<I", len(form)) + form
    chunks += b"data" + struct.pack("<I", len(body)) + body
    return b"RIFF" + struct.pack("<I", len(chunks) + 4) + b"WAVE" + chunks


SOUND = tone(440, 16_000)


@pytest.mark.parametrize(
    "data",
    [
        wav((SOUND * 32767).astype("<i2"), 16_000),
        wav((SOUND * 127 + 128).astype("u1"), 16_000, width=1),
        wav((SOUND * 2**30 * 1.99).astype("<i4"), 16_000, width=4),
        wav((SOUND * 32767).astype("<i2").repeat(2), 16_000, channels=2),
        riff(1, 24, (SOUND * 8388607).astype("<i4").view("u1").reshape(-1, 4)[:, :3].tobytes()),
        riff(3, 32, SOUND.astype("<f4").tobytes()),
        riff(3, 64, SOUND.astype("<f8").tobytes()),
        riff(0xFFFE, 32, SOUND.tobytes(), extra=struct.pack("<HHIH", 22, 32, 4, 3) + bytes(14)),
    ],
    ids=["16", "8", "32", "stereo", "24", "float", "double", "extensible"],
)
def test_every_kind_of_wav_gives_the_sound_that_is_in_it(data: bytes) -> None:
    samples = samples_of(data, 16_000)
    assert samples.dtype == np.float32
    assert np.abs(samples - SOUND).max() < 0.02


def test_two_channels_are_mixed() -> None:
    both = np.stack((tone(440, 16_000), -tone(440, 16_000)), axis=1)
    data = wav((both * 32767).astype("<i2"), 16_000, channels=2)
    assert np.abs(samples_of(data, 16_000)).max() < 1e-3


@pytest.mark.parametrize("rate", [8_000, 11_025, 44_100, 48_000])
def test_a_sound_keeps_its_pitch_at_another_rate(rate: int) -> None:
    made = samples_of(wav((tone(440, rate) * 32767).astype("<i2"), rate), 16_000)
    middle = slice(1000, 7000)
    assert len(made) == pytest.approx(8000, abs=2)
    assert np.abs(made[middle] - tone(440, 16_000)[middle]).max() < 0.01


def test_what_a_lower_rate_cannot_hold_is_silent() -> None:
    made = resampled(tone(12_000, 48_000), 48_000, 16_000)
    assert np.abs(made[500:-500]).max() < 0.01


def test_not_a_number_is_silence() -> None:
    body = np.array([np.nan, np.inf, -np.inf, 0.5], dtype="<f4").tobytes()
    assert samples_of(riff(3, 32, body), 16_000).tolist() == [0.0, 1.0, -1.0, 0.5]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no WAV file"),
        (b"ID3\x04 an mp3", "no WAV file"),
        (b"RIFF1234WAVE", "no sound"),
        (riff(1, 16, b""), "no sound"),
        (riff(1, 16, b"ab"), "no sound"),
        (riff(85, 16, b"abcd"), "kind 85"),
        (riff(1, 12, b"abcd"), "12 bits"),
        (riff(1, 16, b"abcd", rate=999), "999 Hz"),
        (riff(1, 16, b"abcd", rate=200_000), "200000 Hz"),
        (b"RIFF1234WAVEfmt \x04\0\0\0abcd", "does not say"),
        (riff(1, 8, bytes(1000 * (MAX_SECONDS + 1)), rate=1000), "at most 120"),
    ],
)
def test_what_is_no_sound_of_ours_is_refused_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(MediaRefused, match=reason):
        samples_of(data, 16_000)


@given(st.binary(max_size=64), st.integers(0, 60))
def test_no_damage_gives_anything_but_samples_or_a_refusal(noise: bytes, at: int) -> None:
    data = bytearray(wav((SOUND[:50] * 32767).astype("<i2"), 16_000))
    data[at : at + len(noise)] = noise
    with suppress(MediaRefused):
        assert np.isfinite(samples_of(bytes(data), 16_000)).all()
