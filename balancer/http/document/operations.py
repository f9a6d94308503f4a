"""What the document says of every route: a row for each of `http/routes.py`."""

from __future__ import annotations

from balancer.http.document import (
    anthropic,
    management,
    ollama,
    openai,
    questions,
    responses,
    system,
)
from balancer.http.document.operation import Operation

OPERATIONS: tuple[Operation, ...] = (
    *openai.OPERATIONS,
    *responses.OPERATIONS,
    *anthropic.OPERATIONS,
    *ollama.OPERATIONS,
    *questions.OPERATIONS,
    *system.OPERATIONS,
    *management.OPERATIONS,
)
