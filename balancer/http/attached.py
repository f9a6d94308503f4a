"""Images and sounds that come with a request, whatever its family of APIs. Pure: raises
`InvalidRequest`; nothing is fetched from anywhere.
"""

from __future__ import annotations

import binascii
from collections.abc import Iterable

from balancer.http.faults import refuse_value
from protocol.chat import MAX_MEDIA, MAX_MEDIA_BYTES, Message, TextPart

SHOWN_CHARS = 60


def check_media(messages: Iterable[Message], *, param: str = "messages") -> None:
    """Refuse more images and sounds than agents take."""
    sizes = [
        len(part.data)
        for message in messages
        if isinstance(message.content, tuple)
        for part in message.content
        if not isinstance(part, TextPart)
    ]
    if len(sizes) > MAX_MEDIA or sum(sizes) > MAX_MEDIA_BYTES:
        raise refuse_value(
            param,
            f"{len(sizes)} of {sum(sizes)} bytes",
            f"such that they hold at most {MAX_MEDIA} images and sounds of {MAX_MEDIA_BYTES} bytes "
            "together",
        )


def decoded(data: str, at: str) -> bytes:
    """A file that came in base64; `at` is its place in the request, for errors."""
    try:
        file = binascii.a2b_base64(data, strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise refuse_value(at, data[:SHOWN_CHARS], f"base64 ({error})") from error
    if not file:
        raise refuse_value(at, "", "a file in base64, not an empty one")
    return file
