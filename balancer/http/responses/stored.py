"""/v1/responses/{id}: what is stored of a response, for the client that it was made for."""

from __future__ import annotations

import msgspec
from aiohttp.web import StreamResponse
from msgspec import Struct

from balancer.errors import InvalidRequest, ResourceNotFound
from balancer.http.answers import json_answer, value_answer
from balancer.http.exchange import Exchange, Wiring
from balancer.http.faults import refuse_value, unsupported
from balancer.http.responses.keeping import conversation_of
from balancer.storage.responses import Conversation, StoredResponse

MOST_ITEMS = 100
_DEFAULT_ITEMS = 20


class _Row(Struct):
    id: str


class _Answer(Struct):
    output: msgspec.Raw


_ANSWER = msgspec.json.Decoder(_Answer)
_ROWS = msgspec.json.Decoder(list[_Row])
_RAW_ROWS = msgspec.json.Decoder(list[msgspec.Raw])


class _Page(Struct, frozen=True):
    """Which of the items are asked for."""

    limit: int
    is_descending: bool
    after: str | None


async def show_response(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """The answer as it was given."""
    if exchange.wants("stream"):
        raise unsupported("stream", "true", '"false": a stored response comes as one body')
    return json_answer(exchange, (await _stored(exchange, wiring)).body)


async def delete_response(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Forget it: it cannot be shown or continued any more, nor what continues it."""
    response_id = exchange.places["id"]
    if not await wiring.responses.delete(response_id, exchange.principal.tenant):
        raise _unknown(response_id)
    return value_answer(exchange, {"id": response_id, "object": "response", "deleted": True})


async def cancel_response(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Nothing runs in the background, so nothing can be cancelled here."""
    await _stored(exchange, wiring)
    raise InvalidRequest(
        "only a response with `background: true` can be cancelled, and none are made here; to end "
        "one that runs, close its connection",
        code="unsupported_parameter",
        param="background",
    )


async def list_input_items(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """The conversation up to the answer, a page of it; without what is not stored any more."""
    page = _page(exchange)
    response_id = exchange.places["id"]
    conversation = await conversation_of(exchange, wiring, response_id)
    if not conversation.responses:
        raise _unknown(response_id)
    rows = _rows(conversation)
    if page.is_descending:
        rows.reverse()
    start = 0
    if page.after is not None:
        ids = [row_id for row_id, _ in rows]
        if page.after not in ids:
            raise refuse_value("after", page.after, "the id of one of the items")
        start = ids.index(page.after) + 1
    shown = rows[start : start + page.limit]
    listed = {
        "object": "list",
        "data": [row for _, row in shown],
        "first_id": shown[0][0] if shown else None,
        "last_id": shown[-1][0] if shown else None,
        "has_more": len(rows) > start + page.limit,
    }
    return value_answer(exchange, listed)


async def _stored(exchange: Exchange, wiring: Wiring) -> StoredResponse:
    response_id = exchange.places["id"]
    found = await wiring.responses.get(response_id, exchange.principal.tenant)
    if found is None:
        raise _unknown(response_id)
    return found


def _unknown(response_id: str) -> ResourceNotFound:
    return ResourceNotFound(
        f"there is no response {response_id[:200]!r}; it was deleted, not stored, dropped for "
        "newer ones, or is another client's"
    )


def _page(exchange: Exchange) -> _Page:
    query = exchange.request.query
    limit, order = query.get("limit", str(_DEFAULT_ITEMS)), query.get("order", "desc")
    is_number = limit.isascii() and limit.isdigit() and len(limit) < 4
    if not is_number or not 1 <= int(limit) <= MOST_ITEMS:
        raise refuse_value("limit", limit, f"1..{MOST_ITEMS}")
    if order not in ("asc", "desc"):
        raise refuse_value("order", order, '"asc" or "desc"')
    return _Page(int(limit), order == "desc", query.get("after"))


def _rows(conversation: Conversation) -> list[tuple[str, msgspec.Raw]]:
    """All items with their ids, oldest first."""
    rows: list[tuple[str, msgspec.Raw]] = []
    *earlier, last = conversation.responses
    for response in earlier:
        rows += _identified(response.input_items)
        rows += _identified(_ANSWER.decode(response.body).output)
    return rows + _identified(last.input_items)


def _identified(items: bytes | msgspec.Raw) -> list[tuple[str, msgspec.Raw]]:
    ids = (row.id for row in _ROWS.decode(items))
    return list(zip(ids, _RAW_ROWS.decode(items), strict=True))
