"""Images that a request names by their URLs: fetched, and put where the client could have put them.

Each family of APIs finds them in its own bodies. Without hosts to ask (`image_hosts`) nothing is
looked for, and the families refuse such URLs as they refuse others.
"""

from __future__ import annotations

from binascii import b2a_base64
from collections.abc import Callable, Iterable
from itertools import islice
from typing import TypeVar

from msgspec import Struct

from balancer.errors import ImageNotFetched, InvalidRequest
from balancer.http.attached import SHOWN_CHARS
from balancer.http.exchange import Exchange, Wiring
from balancer.http.faults import refuse_value
from protocol.chat import MAX_MEDIA, MAX_MEDIA_BYTES

_SCHEMES = ("http://", "https://")
_T = TypeVar("_T")


class RemoteImage(Struct, frozen=True):
    """A URL at a place in a body; `put` puts the image there: its media type, and it in base64."""

    at: str
    url: str
    put: Callable[[str, str], None]


def is_remote(url: object) -> bool:
    """Whether it is the URL of something that would have to be fetched."""
    return isinstance(url, str) and url[: len(_SCHEMES[1])].lower().startswith(_SCHEMES)


def data_url(media_type: str, data: str) -> str:
    """A URL that holds its content."""
    return f"data:{media_type};base64,{data}"


async def fetch_images(
    exchange: Exchange, wiring: Wiring, body: _T, find: Callable[[_T], Iterable[RemoteImage]]
) -> int:
    """Fetch what `find` finds in the body, into it; the bytes that were added. Raises
    `InvalidRequest` and `QueueFull`."""
    if not wiring.images.is_open:
        return 0
    images = list(islice(find(body), MAX_MEDIA + 1))
    if not images:
        return 0
    if len(images) > MAX_MEDIA:
        param = images[0].at.partition("[")[0]
        raise refuse_value(param, "more", f"such that it holds at most {MAX_MEDIA} images")
    try:
        fetched = await wiring.images.fetch(dict.fromkeys(image.url for image in images))
    except ImageNotFetched as error:
        exchange.facts["image_refused"] = error.reason
        raise _refusal(next(image for image in images if image.url == error.url), error) from error
    # one that is named often was fetched once, and would be written and read each time
    if sum(len(fetched[image.url].data) for image in images) > MAX_MEDIA_BYTES:
        param = images[0].at.partition("[")[0]
        most = f"such that its images have at most {MAX_MEDIA_BYTES} bytes together"
        raise refuse_value(param, "more", most)
    written = {
        url: (file.media_type, b2a_base64(file.data, newline=False).decode())
        for url, file in fetched.items()
    }
    for image in images:
        image.put(*written[image.url])
    exchange.facts["images_fetched"] = len(fetched)
    return sum(len(written[image.url][1]) for image in images)


def _refusal(image: RemoteImage, error: ImageNotFetched) -> InvalidRequest:
    return InvalidRequest(
        f"`{image.at}` cannot be fetched: {error.reason}. Send the image itself: as a URL that "
        "begins data:image/png;base64, or in the way that this API has for it.",
        code="invalid_value",
        param=image.at,
        details={
            "parameter": image.at,
            "received_value": image.url[:SHOWN_CHARS],
            "issue": error.reason,
        },
    )
