"""The images of a request that have to be fetched. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

from balancer.http.remote_images import RemoteImage, data_url, is_remote
from balancer.http.responses.schema import PartIn, ResponseRequest


def remote_images(body: ResponseRequest) -> Iterator[RemoteImage]:
    """Those of messages, and of what tools gave back."""
    for i, item in enumerate(body.input if isinstance(body.input, list) else ()):
        for j, part in enumerate(item.content if isinstance(item.content, list) else ()):
            if part.image_url is not None and is_remote(part.image_url):
                at = f"input[{i}].content[{j}].image_url"
                yield RemoteImage(at, part.image_url, partial(_put, part))
        # the parts of an output have no type of their own: it may be anything
        for j, given in enumerate(item.output if isinstance(item.output, list) else ()):
            if isinstance(given, dict) and is_remote(given.get("image_url")):
                at = f"input[{i}].output[{j}].image_url"
                yield RemoteImage(at, given["image_url"], partial(_put_in_output, given))


def _put(part: PartIn, media_type: str, data: str) -> None:
    part.image_url = data_url(media_type, data)


def _put_in_output(part: dict[str, Any], media_type: str, data: str) -> None:
    part["image_url"] = data_url(media_type, data)
