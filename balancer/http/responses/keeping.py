"""Stored responses as requests need them: what was said before, and keeping what is said now."""

from __future__ import annotations

import asyncio
from functools import partial

import msgspec
import structlog
from msgspec import Struct

from balancer.dispatch.sink import Outcome
from balancer.errors import RequestTooLarge, ResourceNotFound, StoreFailed
from balancer.http.exchange import Exchange, Wiring
from balancer.http.responses.draft import Draft
from balancer.http.responses.items import items_in, kept_items
from balancer.http.responses.schema import ItemIn, ResponseRequest
from balancer.http.shape import AnswerHead
from balancer.settings import MIB
from balancer.storage.responses import MOST_LINKS, Conversation, StoredResponse

log = structlog.get_logger(__name__)

MOST_CONVERSATION_BYTES = 64 * MIB
"""Of the requests and answers that one conversation may have."""


class History(Struct, frozen=True):
    """What was said before a request, oldest first."""

    items: tuple[ItemIn, ...] = ()
    size_bytes: int = 0


class _Answer(Struct):
    output: list[ItemIn]


_ITEMS = msgspec.json.Decoder(list[ItemIn])
_ANSWER = msgspec.json.Decoder(_Answer)


async def conversation_of(exchange: Exchange, wiring: Wiring, response_id: str) -> Conversation:
    """A stored response of this caller and what it continues."""
    return await wiring.responses.conversation(
        response_id, exchange.principal.tenant, max_bytes=MOST_CONVERSATION_BYTES
    )


async def history_of(exchange: Exchange, wiring: Wiring, response_id: str | None) -> History:
    """What `previous_response_id` brings. Raises `ResourceNotFound` where some of it is gone,
    `RequestTooLarge` where it is more than a conversation may have."""
    if response_id is None:
        return History()
    found = await conversation_of(exchange, wiring, response_id)
    if found.missing_id is not None:
        raise _missing(response_id, found.missing_id)
    if found.is_too_long:
        raise RequestTooLarge(
            f"the conversation that {response_id!r} ends has more than {MOST_LINKS} responses or "
            f"{MOST_CONVERSATION_BYTES // MIB} MiB; begin a new one with what matters of it",
            param="previous_response_id",
            details={"limit_bytes": MOST_CONVERSATION_BYTES, "limit_responses": MOST_LINKS},
        )
    items: list[ItemIn] = []
    for response in found.responses:
        items += _ITEMS.decode(response.input_items)
        items += _ANSWER.decode(response.body).output
        await asyncio.sleep(0)  # others come between
    size_bytes = sum(response.size_bytes for response in found.responses)
    return History(tuple(items), size_bytes)


async def keep(
    exchange: Exchange,
    wiring: Wiring,
    draft: Draft,
    request: ResponseRequest,
    head: AnswerHead,
    outcome: Outcome,
) -> None:
    """Finish the draft and store it, if that is wanted. Where it cannot be stored, it says so:
    `store` is false."""
    head = draft.head or head
    make = partial(draft.finish, head, outcome)
    body = make()
    if request.store is False:
        return
    response = StoredResponse(
        id=head.id,
        tenant=exchange.principal.tenant,
        previous_id=request.previous_response_id,
        input_items=msgspec.json.encode(kept_items(items_in(request.input), suffix=draft.suffix)),
        body=body,
    )
    exchange.facts["is_stored"] = is_stored = await _is_put(exchange, wiring, response)
    if not is_stored:
        make(is_stored=False)


async def _is_put(exchange: Exchange, wiring: Wiring, response: StoredResponse) -> bool:
    try:
        return await wiring.responses.put(response)
    except StoreFailed as error:
        log.warning("response not stored", request_id=exchange.id, reason=str(error))
        return False


def _missing(response_id: str, missing_id: str) -> ResourceNotFound:
    which = f"there is no response {response_id[:200]!r}"
    if missing_id != response_id:
        which = f"{response_id[:200]!r} continues {missing_id[:200]!r}, which is not there any more"
    return ResourceNotFound(
        f"{which}; it was deleted, not stored, dropped for newer ones, or is another client's. "
        "Send the whole conversation as `input`",
        param="previous_response_id",
        details={"parameter": "previous_response_id", "missing": missing_id},
    )
