"""What the codec raises about a peer's bytes.

ProtocolError
├── FrameTooLarge      over the size the link allows
├── FrameTooDeep       nested deeper than the link allows
├── MalformedFrame     not JSON, or not a JSON-RPC message
├── DuplicateId        two calls of one batch share an id
├── UnknownMethod      a method this side does not have
└── InvalidParams      right method, wrong parameters; the text names the field
"""

from __future__ import annotations

from protocol.jsonrpc import CallId, ErrorObject, RpcCode


class ProtocolError(Exception):
    """A message that cannot be used. `call_id` is set where the sender awaits an answer.

    `method` and the `calls` that it is about are what can be read of it all the same: "" and None
    where that cannot be read either.
    """

    code: RpcCode = RpcCode.INVALID_REQUEST

    def __init__(
        self,
        message: str,
        *,
        call_id: CallId | None = None,
        method: str = "",
        calls: tuple[CallId, ...] | None = None,
    ) -> None:
        super().__init__(message)
        self.call_id = call_id
        self.method = method
        self.calls = calls

    def to_error_object(self) -> ErrorObject:
        """The error as the peer is told."""
        return ErrorObject(code=int(self.code), message=str(self))


class FrameTooLarge(ProtocolError):
    """The frame has more bytes than allowed."""


class FrameTooDeep(ProtocolError):
    """The frame nests arrays and objects deeper than allowed."""


class MalformedFrame(ProtocolError):
    """Not JSON, or JSON that is no JSON-RPC message."""

    code = RpcCode.PARSE_ERROR


class DuplicateId(ProtocolError):
    """A second call of the same batch uses an id again."""


class UnknownMethod(ProtocolError):
    """The method is not one of this side's."""

    code = RpcCode.METHOD_NOT_FOUND


class InvalidParams(ProtocolError):
    """The parameters do not fit the method's Struct; the message names the field."""

    code = RpcCode.INVALID_PARAMS
