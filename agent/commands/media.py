"""A call's images and sounds, from its messages to the engine's frames.

Each is a marker in what the chat template is given, a random one that no text can hold by accident
or on purpose; where the markers come out is where the media stand in the prompt.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence

from agent.engine.frames import EngineFacts, Medium
from agent.errors import TemplateRefused
from agent.media.decoder import DecodedMedia
from protocol.chat import MAX_MEDIA, MAX_MEDIA_BYTES, ImagePart, MediaPart, TextPart
from protocol.generation import GenerationRequest
from protocol.refusals import RefusalCode


def media_of(request: GenerationRequest) -> tuple[MediaPart, ...]:
    """All media of a request's messages, in order."""
    return tuple(
        part
        for message in request.messages or ()
        if isinstance(message.content, tuple)
        for part in message.content
        if not isinstance(part, TextPart)
    )


def media_refusal(parts: Sequence[MediaPart], facts: EngineFacts) -> tuple[int, str] | None:
    """Why these media are not even looked at; None: they are."""
    if any(isinstance(part, ImagePart) for part in parts) and "vision" not in facts.modalities:
        return RefusalCode.UNSUPPORTED, "`messages` hold an image, and this model takes none"
    if not all(isinstance(part, ImagePart) for part in parts) and "audio" not in facts.modalities:
        return RefusalCode.UNSUPPORTED, "`messages` hold audio, and this model takes none"
    size_bytes = sum(len(part.data) for part in parts)
    if len(parts) > MAX_MEDIA or size_bytes > MAX_MEDIA_BYTES:
        return (
            RefusalCode.INVALID_MEDIA,
            f"{len(parts)} images and sounds of {size_bytes} bytes, at most {MAX_MEDIA} of "
            f"{MAX_MEDIA_BYTES} bytes together are taken",
        )
    return None


def new_marker() -> str:
    """What stands for a medium in one call's template."""
    return f"<__media_{secrets.token_hex(8)}__>"


def without_markers(rendered: str, marker: str, count: int) -> tuple[str, tuple[int, ...]]:
    """The prompt, and how many characters stand before each medium. Raises `TemplateRefused`."""
    texts = rendered.split(marker)
    if len(texts) != count + 1:
        raise TemplateRefused(
            f"The chat template shows {len(texts) - 1} of {count} images and sounds."
        )
    places = []
    done = 0
    for text in texts[:-1]:
        done += len(text)
        places.append(done)
    return "".join(texts), tuple(places)


def as_frames(decoded: DecodedMedia, places: Sequence[int]) -> tuple[Medium, ...]:
    """What the engine is told of the media."""
    return tuple(
        Medium(
            kind=medium.kind,
            at=at,
            path=medium.path,
            digest=medium.digest,
            width=medium.width,
            height=medium.height,
            samples=medium.samples,
        )
        for medium, at in zip(decoded.media, places, strict=True)
    )
