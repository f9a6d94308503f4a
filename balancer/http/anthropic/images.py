"""The images of a request that have to be fetched. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

from balancer.http.anthropic.schema import BlockIn, MessageIn, SourceIn
from balancer.http.remote_images import RemoteImage, is_remote


def remote_images(messages: Sequence[MessageIn]) -> Iterator[RemoteImage]:
    """Those of messages, and of tools' results in them."""
    for i, message in enumerate(messages):
        blocks = message.content if isinstance(message.content, list) else ()
        for j, block in enumerate(blocks):
            at = f"messages[{i}].content[{j}]"
            source = block.source
            if source is not None and source.type == "url" and is_remote(source.url):
                yield RemoteImage(f"{at}.source.url", source.url or "", partial(_put, block))
            # the blocks of a result have no type of their own: it may be anything
            for k, given in enumerate(block.content if isinstance(block.content, list) else ()):
                match given:
                    case {"source": {"type": "url", "url": str() as url} as raw} if is_remote(url):
                        place = f"{at}.content[{k}].source.url"
                        yield RemoteImage(place, url, partial(_put_in_result, raw))


def _put(block: BlockIn, media_type: str, data: str) -> None:
    block.source = SourceIn(type="base64", media_type=media_type, data=data)


def _put_in_result(source: dict[str, Any], media_type: str, data: str) -> None:
    source.update({"type": "base64", "media_type": media_type, "data": data})
    del source["url"]
