"""The parts of a message's content as canonical ones. Pure: raises `InvalidRequest`.

Images and sounds are in the request here; those that had to be fetched were so before.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

from balancer.http.attached import SHOWN_CHARS, decoded
from balancer.http.faults import missing, refuse_value, unsupported
from balancer.http.openai.schema import ImageUrlIn, InputAudioIn, MessageIn, PartIn
from balancer.http.remote_images import RemoteImage, data_url, is_remote
from protocol.chat import AudioPart, ImagePart, Part, TextPart

DETAILS = (None, "auto", "high")
"""Images are looked at as large as the model can."""


def content_part(part: PartIn, at: str) -> Part:
    """One part; `at` is its place in the request, for errors."""
    match part.type:
        case "text":
            if part.text is None:
                raise missing(f"{at}.text")
            return TextPart(text=part.text)
        case "image_url":
            if part.image_url is None:
                raise missing(f"{at}.image_url")
            return ImagePart(data=_image(part.image_url, f"{at}.image_url"))
        case "input_audio":
            if part.input_audio is None:
                raise missing(f"{at}.input_audio")
            return AudioPart(data=_audio(part.input_audio, f"{at}.input_audio"))
        case _:
            raise unsupported(f"{at}.type", part.type, '"text", "image_url" or "input_audio"')


def remote_images(messages: Sequence[MessageIn]) -> Iterator[RemoteImage]:
    """The images that have to be fetched."""
    for i, message in enumerate(messages):
        for j, part in enumerate(message.content if isinstance(message.content, list) else ()):
            image = part.image_url
            at = f"messages[{i}].content[{j}].image_url"
            if isinstance(image, ImageUrlIn):
                image, at = image.url, f"{at}.url"
            if isinstance(image, str) and is_remote(image):
                yield RemoteImage(at, image, partial(_put, part))


def _put(part: PartIn, media_type: str, data: str) -> None:
    url = data_url(media_type, data)
    if isinstance(part.image_url, ImageUrlIn):
        part.image_url.url = url
    else:
        part.image_url = url


def _image(image: ImageUrlIn | str, at: str) -> bytes:
    url = image if isinstance(image, str) else image.url
    at_url = at if isinstance(image, str) else f"{at}.url"
    if not isinstance(image, str) and image.detail not in DETAILS:
        raise unsupported(f"{at}.detail", image.detail, '"auto"')
    scheme, _, rest = url.partition(":")
    head, comma, data = rest.partition(",")
    if scheme.lower() != "data" or not comma or not head.lower().endswith(";base64"):
        raise refuse_value(
            at_url,
            url[:SHOWN_CHARS],
            "the image itself as a URL that begins data:image/png;base64, (or jpeg, webp, gif, "
            "bmp); nothing is fetched from elsewhere",
        )
    return decoded(data, at_url)


def _audio(audio: InputAudioIn, at: str) -> bytes:
    if audio.format != "wav":
        raise unsupported(f"{at}.format", audio.format, '"wav"')
    return decoded(audio.data, f"{at}.data")
