"""What answers carry beside OpenAI's fields: `performance` and `_proxy_info`; and `usage`. Pure."""

from __future__ import annotations

from typing import Any

from balancer.dispatch.sink import Outcome
from protocol.generation import Usage


def usage_fields(usage: Usage) -> dict[str, Any]:
    """OpenAI's `usage`; the end token is counted."""
    return {
        "prompt_tokens": usage.prompt_tokens,
        "completion_tokens": usage.completion_tokens,
        "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        "prompt_tokens_details": {"cached_tokens": usage.cached_tokens},
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
    }


def extra_fields(outcome: Outcome, request_id: str) -> dict[str, Any]:
    """Our own fields of the last chunk, or of the JSON answer. `response_time` is in seconds."""
    inference_ms = max(outcome.total_ms - outcome.queue_ms, 0.0)
    return {
        "performance": {
            "queue_time_ms": round(outcome.queue_ms, 3),
            "time_to_first_token_ms": round(outcome.ttft_ms, 3),
            "inference_time_ms": round(inference_ms, 3),
            "tokens_per_second": _tokens_per_second(outcome, inference_ms),
            "cached_prompt_tokens": outcome.usage.cached_tokens,
            "gpu_utilization": None,
            "draft_steps": outcome.timings.draft_steps,
            "drafted_tokens": outcome.timings.drafted_tokens,
            "accepted_draft_tokens": outcome.timings.accepted_draft_tokens,
        },
        "_proxy_info": {
            "provider": outcome.agent,
            "attempt_number": outcome.attempts,
            "response_time": round(outcome.total_ms / 1000, 6),
            "request_id": request_id,
        },
    }


def _tokens_per_second(outcome: Outcome, inference_ms: float) -> float:
    """Of decoding where one agent measured all of it, of what followed the first token where
    several worked on it, else of the whole inference."""
    is_whole = outcome.attempts == 1
    decode_ms = outcome.timings.decode_ms if is_whole else outcome.total_ms - outcome.ttft_ms
    spent_ms = decode_ms if decode_ms > 0 else inference_ms
    return round(1000 * outcome.usage.completion_tokens / spent_ms, 3) if spent_ms else 0.0
