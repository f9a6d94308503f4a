"""Parameters that are known and cannot be honoured: refused by name, never silently ignored. Pure.

Of OpenAI's, and of llama-server's, whose clients send them here, too.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from balancer.http.faults import refuse_unless_harmless

_SAMPLERS = ["penalties", "dry", "top_k", "typ_p", "top_p", "min_p", "xtc", "temperature"]
"""The order that is always kept; top_n_sigma, which is refused, would be the third."""

HARMLESS_CACHE_OPTIONS = ({"mode": "implicit"}, {"mode": "implicit", "ttl": "30m"}, {"ttl": "30m"})
"""What prompts have in common is found by its content, and kept as long as there is room."""

_HARMLESS: dict[str, tuple[Any, ...]] = {
    "store": (False,),
    "service_tier": ("auto", "default"),
    "audio": (),
    "modalities": (["text"],),
    "prediction": (),
    "web_search_options": (),
    "verbosity": ("medium",),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "moderation": (),
    "prompt_cache_options": HARMLESS_CACHE_OPTIONS,
    "samplers": (_SAMPLERS, [*_SAMPLERS[:2], "top_n_sigma", *_SAMPLERS[2:]]),
    "cache_prompt": (True,),
    "id_slot": (-1,),
    "n_probs": (0,),
    "n_keep": (0,),
    "min_keep": (0,),
    "top_n_sigma": (-1, -1.0),
    "dynatemp_range": (0, 0.0),
    "t_max_predict_ms": (0, -1),
    "return_tokens": (False,),
    "post_sampling_probs": (False,),
    "timings_per_token": (False,),
    "lora": ([],),
}
"""With the values that ask for nothing (null always does)."""


def refuse_unsupported(body: Struct) -> None:
    """Raises `InvalidRequest` naming the first one that asks for something."""
    refuse_unless_harmless(body, _HARMLESS)
