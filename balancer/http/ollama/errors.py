"""Errors as Ollama's clients read them in a stream: as the line that ends it badly."""

from __future__ import annotations

import msgspec

from balancer.errors import BalancerError
from balancer.http.answers import text_error_body
from balancer.http.shape import StreamForm

CONTENT_TYPE = "application/x-ndjson"


def _error_line(error: BalancerError, request_id: str) -> bytes:
    return msgspec.json.encode(text_error_body(error, request_id)) + b"\n"


LINES = StreamForm(content_type=CONTENT_TYPE, comment=b"", error_event=_error_line)
