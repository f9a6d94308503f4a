"""GET /v1/streams/{id}: take up again a stream that was asked for with `X-Paddler-Resumable: 1`."""

from __future__ import annotations

from aiohttp.web import StreamResponse

from balancer.errors import ResourceNotFound
from balancer.http.answering import read_replay
from balancer.http.exchange import Exchange, Wiring
from balancer.http.faults import refuse_value
from balancer.http.sse import EventStream


async def take_up_stream(exchange: Exchange, wiring: Wiring) -> StreamResponse:
    """Everything after `Last-Event-ID`, or from the beginning without it."""
    request_id = exchange.places["id"]
    replay = wiring.replays.find(request_id, exchange.principal.tenant)
    if replay is None:
        raise ResourceNotFound(
            f"there is no stream {request_id[:200]!r} to take up; it must have been asked for with "
            "`X-Paddler-Resumable: 1`, and is kept for a minute after its end"
        )
    last = exchange.request.headers.get("Last-Event-ID")
    start = 0 if last is None else replay.number_after(last)
    if start is None:
        raise refuse_value("Last-Event-ID", last, f"the id of an event of {request_id}")

    def head() -> dict[str, str]:
        """With the id by which it can be taken up once more, not that of this exchange."""
        return {**replay.headers(), "X-Paddler-Request-Id": replay.request_id}

    stream = EventStream(
        exchange, settings=wiring.settings, metrics=wiring.metrics, form=replay.form, head=head
    )
    return await read_replay(exchange, replay, stream, start=start)
