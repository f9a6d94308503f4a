"""The only place where the agent link's messages become bytes and bytes become messages.

A text frame holds one JSON-RPC message or an array of them; arrays are framing only. `decode`
judges each message on its own: a bad one is returned as a `ProtocolError` beside its good
neighbours, and nothing but `ProtocolError` is ever raised, whatever the bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, TypeVar

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from protocol import to_agent, to_balancer
from protocol.errors import (
    DuplicateId,
    FrameTooDeep,
    FrameTooLarge,
    InvalidParams,
    MalformedFrame,
    ProtocolError,
    UnknownMethod,
)
from protocol.json_depth import is_too_deep
from protocol.jsonrpc import (
    MAX_ID_CHARS,
    CallId,
    ErrorObject,
    ErrorResponse,
    Message,
    Notification,
    Request,
    Response,
)

MAX_TEXT_FRAME_BYTES = 256 * 1024
"""What a sender puts into one text frame."""
MAX_FRAME_BYTES = 1024 * 1024
"""What a receiver accepts; more closes the link."""
MAX_DEPTH = 576
"""More than any body that HTTP lets in (`max_json_depth`, 512 at most), with the envelope around
it: a call that its receiver finds too deep is never answered, and takes its frame's neighbours
along. Fewer levels than Python's recursion limit, so that decoders never see that."""
MAX_BATCH = 4096

_T = TypeVar("_T", bound=Struct)
_D = TypeVar("_D")
_encoder = msgspec.json.Encoder()


class _Envelope(Struct, frozen=True):
    jsonrpc: Literal["2.0"]
    method: str | UnsetType = UNSET
    params: Raw = Raw(b"")
    id: CallId | None = None
    result: Raw = Raw(b"")
    error: ErrorObject | UnsetType = UNSET


class _Calls(Struct, frozen=True):
    """What is read of the parameters of a message that cannot be used."""

    calls: tuple[CallId, ...] | None = None


_calls_decoder = msgspec.json.Decoder(_Calls)
_envelope_decoder = msgspec.json.Decoder(_Envelope)
_batch_decoder = msgspec.json.Decoder(list[Raw])


class Codec:
    """Decodes what one side receives, given its methods; encoding is the same for both sides."""

    def __init__(self, methods: dict[str, type[Struct]], requests: frozenset[str]) -> None:
        self._decoders = {name: msgspec.json.Decoder(type_) for name, type_ in methods.items()}
        self._requests = requests

    def decode(
        self, frame: bytes | str, *, max_bytes: int = MAX_FRAME_BYTES
    ) -> list[Message | ProtocolError]:
        """The messages of a frame, bad ones as errors in their place.

        A message that came in pieces (`protocol.transfers`) may be bigger than a frame: its
        receiver says so with `max_bytes`. Raises `ProtocolError` when the whole is unusable.
        """
        data = _checked(frame, max_bytes)
        if data.lstrip()[:1] != b"[":
            return [self._message_or_error(data)]
        items = _decode(_batch_decoder, data)
        if not 0 < len(items) <= MAX_BATCH:
            raise MalformedFrame(f"a batch holds 1..{MAX_BATCH} messages, this one {len(items)}")
        return list(_without_duplicate_ids(self._message_or_error(bytes(item)) for item in items))

    def _message_or_error(self, data: bytes) -> Message | ProtocolError:
        try:
            return self._message(data)
        except ProtocolError as error:
            return error

    def _message(self, data: bytes) -> Message:
        envelope = _decode(_envelope_decoder, data)
        call_id = _checked_id(envelope.id)
        if envelope.method is not UNSET:
            return self._call(envelope.method, envelope.params, call_id)
        if envelope.error is not UNSET:
            return ErrorResponse(id=call_id, error=envelope.error)
        if not envelope.result:
            raise MalformedFrame("a message needs `method`, `result` or `error`")
        if call_id is None:
            raise MalformedFrame("`id` of a result must be an integer or a string")
        return Response(id=call_id, result=bytes(envelope.result))

    def _call(self, method: str, params: Raw, call_id: CallId | None) -> Message:
        decoder = self._decoders.get(method)
        if decoder is None:
            raise UnknownMethod(f"unknown method {method[:64]!r}", call_id=call_id, method=method)
        try:
            decoded = _decode(decoder, bytes(params) or b"{}")
        except MalformedFrame as error:
            raise InvalidParams(
                f"{method}: {error}", call_id=call_id, method=method, calls=_calls_in(params)
            ) from error
        if (method in self._requests) != (call_id is not None):
            wanted = "needs" if method in self._requests else "takes no"
            raise MalformedFrame(f"`{method}` {wanted} `id`", call_id=call_id, method=method)
        if call_id is None:
            return Notification(method=method, params=decoded)
        return Request(id=call_id, method=method, params=decoded)


AGENT_RECEIVES = Codec(to_agent.METHODS, to_agent.REQUESTS)
BALANCER_RECEIVES = Codec(to_balancer.METHODS, to_balancer.REQUESTS)

_METHOD_OF: dict[type[Struct], str] = {
    type_: name
    for table in (to_agent.METHODS, to_balancer.METHODS)
    for name, type_ in table.items()
}
_HEADS = {
    type_: b'{"jsonrpc":"2.0","method":"' + name.encode() + b'","params":'
    for type_, name in _METHOD_OF.items()
}


def encode_notification(params: Struct) -> bytes:
    """A notification; its method follows from the type of `params`."""
    return _HEADS[type(params)] + _encoder.encode(params) + b"}"


def encode_request(call_id: CallId, params: Struct) -> bytes:
    """A call; its method follows from the type of `params`."""
    head = _HEADS[type(params)]
    # joined: a prompt is copied once, not with each of the pieces
    return b"".join((head, _encoder.encode(params), b',"id":', _encoder.encode(call_id), b"}"))


def encode_result(call_id: CallId, result: Struct) -> bytes:
    """The good answer to a call."""
    head = b'{"jsonrpc":"2.0","id":' + _encoder.encode(call_id)
    return head + b',"result":' + _encoder.encode(result) + b"}"


def encode_error(call_id: CallId | None, error: ErrorObject) -> bytes:
    """The bad answer to a call."""
    head = b'{"jsonrpc":"2.0","id":' + _encoder.encode(call_id)
    return head + b',"error":' + _encoder.encode(error) + b"}"


def decode_result(data: bytes, type_: type[_T]) -> _T:
    """The result of a call as its Struct; raises `InvalidParams`."""
    try:
        return _decode(msgspec.json.Decoder(type_), data)
    except MalformedFrame as error:
        raise InvalidParams(f"result: {error}") from error


def frames(messages: Iterable[bytes]) -> Iterator[bytes]:
    """Encoded messages packed into as few text frames as the size allows, in order.

    Raises `FrameTooLarge` for a message that fits no frame by itself.
    """
    batch: list[bytes] = []
    size = 2
    for message in messages:
        if len(message) > MAX_TEXT_FRAME_BYTES:
            raise FrameTooLarge(f"a message of {len(message)} bytes fits no text frame")
        if batch and (size + len(message) > MAX_TEXT_FRAME_BYTES or len(batch) == MAX_BATCH):
            yield _joined(batch)
            batch, size = [], 2
        batch.append(message)
        size += len(message) + 1
    if batch:
        yield _joined(batch)


def _joined(batch: list[bytes]) -> bytes:
    return batch[0] if len(batch) == 1 else b"[" + b",".join(batch) + b"]"


def _checked(frame: bytes | str, max_bytes: int) -> bytes:
    try:
        data = frame.encode() if isinstance(frame, str) else frame
    except UnicodeEncodeError as error:
        raise MalformedFrame("not valid Unicode") from error
    if len(data) > max_bytes:
        raise FrameTooLarge(f"{len(data)} bytes, at most {max_bytes} are allowed")
    if is_too_deep(data, MAX_DEPTH):
        raise FrameTooDeep(f"nested deeper than {MAX_DEPTH} levels")
    return data


def _decode(decoder: msgspec.json.Decoder[_D], data: bytes) -> _D:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise MalformedFrame(str(error)) from error


def _calls_in(params: Raw) -> tuple[CallId, ...] | None:
    try:
        return _decode(_calls_decoder, bytes(params)).calls
    except MalformedFrame:
        return None


def _checked_id(call_id: CallId | None) -> CallId | None:
    if isinstance(call_id, str) and len(call_id) > MAX_ID_CHARS:
        raise MalformedFrame(f"`id` is longer than {MAX_ID_CHARS} characters")
    return call_id


def _without_duplicate_ids(
    items: Iterable[Message | ProtocolError],
) -> Iterator[Message | ProtocolError]:
    seen: set[CallId] = set()
    for item in items:
        if isinstance(item, Request) and item.id in seen:
            yield DuplicateId(f"`id` {item.id!r} is used twice in one batch", call_id=item.id)
            continue
        if isinstance(item, Request):
            seen.add(item.id)
        yield item
