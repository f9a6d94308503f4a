"""GET /openapi.json and GET /docs."""

from __future__ import annotations

from aiohttp.web import Response, StreamResponse

from balancer.http.answers import SECURITY_HEADERS, json_answer
from balancer.http.document.page import page
from balancer.http.exchange import Exchange, Port, Wiring


async def inference_document(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """That of :8080."""
    return _document(exchange, wiring, "inference")


async def management_document(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """That of :8081."""
    return _document(exchange, wiring, "management")


async def show_page(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """It asks for the document of the port that served it."""
    del wiring
    shown = page()
    headers = {
        **SECURITY_HEADERS,
        **exchange.headers(),
        "Content-Security-Policy": shown.policy,
    }
    return Response(body=shown.html, headers=headers, content_type="text/html", charset="utf-8")


def _document(exchange: Exchange, wiring: Wiring, port: Port) -> StreamResponse:
    return json_answer(exchange, wiring.documents[port])
