"""The codec that reads a method, and a method's message as it is written."""

from __future__ import annotations

from msgspec import Struct

from protocol import codec, to_agent, to_balancer


def encoded(params: Struct, method: str) -> bytes:
    if method in to_agent.REQUESTS | to_balancer.REQUESTS:
        return codec.encode_request(1, params)
    return codec.encode_notification(params)


def codec_for(method: str) -> codec.Codec:
    return codec.AGENT_RECEIVES if method in to_agent.METHODS else codec.BALANCER_RECEIVES
