"""What stands around the events of a stream that OpenAI's clients read."""

from __future__ import annotations

import msgspec

from balancer.errors import BalancerError
from balancer.http.answers import error_object
from balancer.http.shape import StreamForm
from balancer.http.sse import COMMENT, CONTENT_TYPE


def _error_event(error: BalancerError, request_id: str) -> bytes:
    """No `[DONE]` comes after it."""
    return b"data: " + msgspec.json.encode({"error": error_object(error, request_id)}) + b"\n\n"


SSE = StreamForm(content_type=CONTENT_TYPE, comment=COMMENT, error_event=_error_event)
