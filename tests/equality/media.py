"""Answers about images and sounds."""

from __future__ import annotations

import io
import wave
from base64 import b64encode
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tests.equality.rows import Row
from tests.equality.sites import Site, ours, theirs
from tests.equality.texts import ALLOWED, Said, greedy, row, said
from tests.support.media_files import picture, tone
from tests.support.tiny_gguf import write_tiny_gguf
from tests.support.tiny_projector_gguf import Kind, write_tiny_projector

Parts = Sequence[dict[str, Any]]
OTHER_DECODER = 0.1
"""We decode a JPEG with another library, whose pixels differ by up to 3 of 255, and have another
filter between sample rates."""
KINDS: dict[Kind, str] = {
    "mlp": "image",
    "gemma3": "image that sees itself",
    "ultravox": "sound",
}


def compare(folder: Path) -> Iterator[Row]:
    """Projectors of three kinds: images, images whose tokens see each other, sounds."""
    model = write_tiny_gguf(folder / "tiny.gguf")
    for kind, feature in KINDS.items():
        projector = write_tiny_projector(folder / f"{kind}.gguf", kind)
        contents = SOUNDS if kind == "ultravox" else IMAGES
        yield from _compared(folder / kind, model, projector, feature, contents)


def _compared(
    folder: Path, model: Path, projector: Path, feature: str, contents: Mapping[str, Parts]
) -> Iterator[Row]:
    flags = ("--mmproj", str(projector))
    with (
        ours(model, folder, *flags, "--gpu-layers", "0") as our_site,
        theirs(model, folder, *flags, "-c", "512") as their_site,
    ):
        for given, parts in contents.items():
            first, again, their = (_said(site, parts) for site in (our_site, our_site, their_site))
            allowed = OTHER_DECODER if given in DECODED_OTHERWISE else ALLOWED
            yield row(feature, given, [first], [again], [their], allowed=allowed)


def _said(site: Site, parts: Parts) -> Said:
    body = greedy(messages=[{"role": "user", "content": list(parts)}])
    return said(site.ask("/v1/chat/completions", body))


def text(words: str) -> dict[str, Any]:
    """A part of text."""
    return {"type": "text", "text": words}


def image(seed: int, *, width: int = 48, height: int = 40, form: str = "PNG") -> dict[str, Any]:
    """A part with a random image."""
    out = io.BytesIO()
    Image.fromarray(picture(seed, width=width, height=height)).save(out, form)
    data = b64encode(out.getvalue()).decode()
    return {"type": "image_url", "image_url": {"url": f"data:image/{form.lower()};base64,{data}"}}


def sound(hertz: float, *, seconds: float = 1.0, rate: int = 16_000) -> dict[str, Any]:
    """A part with a tone."""
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        samples = tone(hertz, seconds=seconds, rate=rate)
        file.writeframes((samples * 32767).astype("<i2").tobytes())
    data = b64encode(out.getvalue()).decode()
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}


IMAGES: Mapping[str, Parts] = {
    "one": [text("look at this: "), image(1), text(" what is it?")],
    "alone": [image(2)],
    "two": [text("here "), image(1), text(" and there "), image(2)],
    "large": [image(3, width=800, height=300), text("wide")],
    "unicode around": [text("Grüße 🙂 "), image(4), text(" 世界")],
    "long text": [text("abcdefghij klmnopqrst " * 10), image(5), text("?")],
    "JPEG": [image(6, form="JPEG"), text("what is it?")],
}
SOUNDS: Mapping[str, Parts] = {
    "one": [text("hear this: "), sound(440.0), text(" what is it?")],
    "two": [sound(440.0), text(" and "), sound(880.0)],
    "long": [sound(220.0, seconds=40.0)],
    "another rate": [sound(440.0, rate=44_100)],
}
DECODED_OTHERWISE = {"JPEG", "another rate"}
