"""What a shell completes from a running server: quickly, or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import ssl
from collections.abc import Callable
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from urllib.parse import urlsplit

import click

from balancer.terminal.api_key import headers_with, key_of
from balancer.terminal.trust import trust_of

_PATIENCE_S = 0.5
_MOST_BYTES = 1024 * 1024
_MOST_NAMES = 100
_DEFAULT_URL = "http://127.0.0.1:8080"
_CONNECTIONS: dict[str, Callable[[str, ssl.SSLContext], HTTPConnection]] = {
    "http": lambda place, _: HTTPConnection(place, timeout=_PATIENCE_S),
    "https": lambda place, trust: HTTPSConnection(place, timeout=_PATIENCE_S, context=trust),
}


def served_models(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
    """The models of the server at --url whose names begin so; none where it does not answer."""
    del param
    try:
        trust = trust_of(ctx.params.get("ca_file"))
        key = key_of(ctx.params.get("key_file"), os.environ.get("OPENAI_API_KEY"))
        names = _model_names(ctx.params.get("url") or _DEFAULT_URL, trust, key)
    except (OSError, HTTPException, ValueError, KeyError, TypeError, click.ClickException):
        return []
    fitting = [name for name in names if name.startswith(incomplete) and name.isprintable()]
    return fitting[:_MOST_NAMES]


def _model_names(url: str, trust: ssl.SSLContext, key: str) -> list[str]:
    base = urlsplit((url if "://" in url else f"http://{url}").rstrip("/").removesuffix("/v1"))
    connection = _CONNECTIONS[base.scheme](base.netloc, trust)
    with contextlib.closing(connection):
        connection.request("GET", f"{base.path}/v1/models", headers=headers_with(key))
        rows = json.loads(connection.getresponse().read(_MOST_BYTES))["data"]
    return [str(row["id"]) for row in rows]
