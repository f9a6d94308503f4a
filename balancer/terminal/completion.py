"""What a shell completes from a running server: quickly, or not at all."""

from __future__ import annotations

import json
import os
import urllib.request

import click

_PATIENCE_S = 0.5
_MOST_BYTES = 1024 * 1024
_MOST_NAMES = 100
_DEFAULT_URL = "http://127.0.0.1:8080"


def served_models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The models of the server at --url whose names begin so; none where it does not answer."""
    del param
    try:
        names = _model_names(ctx.params.get("url") or _DEFAULT_URL)
    except (OSError, ValueError, KeyError, TypeError):
        return []
    fitting = [name for name in names if name.startswith(incomplete) and name.isprintable()]
    return fitting[:_MOST_NAMES]


def _model_names(url: str) -> list[str]:
    base = (url if "://" in url else f"http://{url}").rstrip("/").removesuffix("/v1")
    request = urllib.request.Request(f"{base}/v1/models")
    key = os.environ.get("OPENAI_API_KEY")
    if key:
        request.add_header("Authorization", f"Bearer {key}")
    with urllib.request.urlopen(request, timeout=_PATIENCE_S) as answer:
        rows = json.loads(answer.read(_MOST_BYTES))["data"]
    return [str(row["id"]) for row in rows]
