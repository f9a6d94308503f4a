"""What a client is told of limits: what is left of them, and what is refused."""

from __future__ import annotations

import math

from balancer.cluster.bus import Entry
from balancer.errors import LimitExceeded
from balancer.policy.limits.amounts import Moment, Refusal, Standing

_CODES = {
    "requests": "rate_limit_exceeded",
    "burst": "rate_limit_exceeded",
    "concurrency": "concurrency_limit_exceeded",
    "tokens": "token_limit_exceeded",
    "requests_of_day": "quota_exceeded",
    "tokens_of_day": "quota_exceeded",
}
_WHAT = {
    "requests": "{limit} requests a minute",
    "burst": "{limit} requests a second",
    "concurrency": "{limit} requests at once",
    "tokens": "{limit} tokens a minute",
    "requests_of_day": "{limit} requests a day",
    "tokens_of_day": "{limit} tokens a day",
}


def refused(refusal: Refusal, at: Moment) -> LimitExceeded:
    """What a client is told of it."""
    retry_after_s = max(1, math.ceil(refusal.retry_after_s))
    what = _WHAT[refusal.excess].format(limit=refusal.limit)
    message = f"the limit is {what} ({_whose(refusal.subject)}); try again in {retry_after_s} s"
    if refusal.is_hopeless:
        message = (
            f"the limit is {what}, and this request alone could take more; lower `max_tokens`, or "
            "shorten the prompt"
        )
    return LimitExceeded(
        message,
        code=_CODES[refusal.excess],
        retry_after_s=retry_after_s,
        details={"limit": refusal.limit, "limited": refusal.excess},
        headers=_standing_headers(
            Standing(refusal.limit, 0, refusal.retry_after_s), at, refusal.excess
        ),
    )


def _whose(subject: str) -> str:
    """In words that tell no more than its owner knows."""
    kind = subject.split(" ", 1)[0]
    return {"key": "of this API key", "failures": "of wrong credentials from this address"}.get(
        kind, "of this address"
    )


def limit_headers(entry: Entry, at: Moment) -> dict[str, str]:
    """What is left, by the strictest of the bounds."""
    requests, tokens = entry.requests_standing(at), entry.tokens_standing(at)
    headers: dict[str, str] = {}
    if (strictest := requests or tokens) is not None:
        headers = _standing_headers(strictest, at)
    for name, standing in (("requests", requests), ("tokens", tokens)):
        if standing is not None:
            headers[f"x-ratelimit-limit-{name}"] = str(standing.limit)
            headers[f"x-ratelimit-remaining-{name}"] = str(standing.remaining)
            headers[f"x-ratelimit-reset-{name}"] = _duration(standing.reset_s)
    return headers


def _standing_headers(standing: Standing, at: Moment, excess: str | None = None) -> dict[str, str]:
    headers = {
        "X-RateLimit-Limit": str(standing.limit),
        "X-RateLimit-Remaining": str(standing.remaining),
        "X-RateLimit-Reset": str(math.ceil(at.unix_s + standing.reset_s)),
    }
    if excess is not None:
        name = "tokens" if excess.startswith("tokens") else "requests"
        headers[f"x-ratelimit-limit-{name}"] = str(standing.limit)
        headers[f"x-ratelimit-remaining-{name}"] = "0"
        headers[f"x-ratelimit-reset-{name}"] = _duration(standing.reset_s)
    return headers


def _duration(seconds: float) -> str:
    """As OpenAI writes one: `6m0s`, `1.5s`, `20ms`."""
    if seconds < 1:
        return f"{max(round(1000 * seconds), 0)}ms"
    minutes, rest = divmod(round(seconds, 3), 60)
    return f"{minutes:.0f}m{rest:g}s" if minutes else f"{rest:g}s"
