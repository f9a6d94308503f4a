"""Answers of /inference. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from balancer.dispatch.sink import Outcome
from balancer.http.openai.completion_answer import text_of
from protocol.generation import StepDelta, TokenLogprob


class GatheredText:
    """Gathers a generation's text."""

    def __init__(self) -> None:
        self._text: list[str] = []

    def take(
        self,
        delta: StepDelta,
        logprobs: tuple[TokenLogprob, ...],  # noqa: ARG002 (the contract)
    ) -> None:
        """One step's output."""
        self._text.append(text_of(delta))

    def choice(self, index: int, outcome: Outcome) -> str:  # noqa: ARG002 (the contract)
        """The whole of it."""
        return "".join(self._text)


def inference_body(
    texts: Sequence[msgspec.Raw], whole: Outcome, *, model_id: str, model_version: str
) -> bytes:
    """The answer's body; `texts` has one, as JSON. `token_count` is what was generated, the end
    token included, `processing_time_ms` the time without waiting."""
    outputs: dict[str, Any] = {
        "generated_text": texts[0],
        "token_count": whole.usage.completion_tokens,
        "processing_time_ms": round(max(whole.total_ms - whole.queue_ms, 0.0), 3),
    }
    return msgspec.json.encode(
        {"model_id": model_id, "model_version": model_version, "outputs": outputs}
    )
