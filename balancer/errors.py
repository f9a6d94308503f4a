"""What the balancer raises. Every leaf knows its HTTP status, its type and its code.

BalancerError
├── ClientMistake            the client's mistake; trying again unchanged is of no use
│   ├── InvalidRequest       400  invalid_value, or the narrower code that it is given
│   ├── Unauthorized         401  invalid_api_key
│   ├── Forbidden            403  insufficient_permissions
│   ├── ModelNotFound        404  model_not_found
│   ├── RouteNotFound        404  route_not_found
│   ├── ResourceNotFound     404  resource_not_found
│   ├── MethodNotAllowed     405  method_not_allowed
│   ├── Conflict             409  already_exists
│   │   └── RequestCancelled 409  request_cancelled
│   ├── RequestTooSlow       408  request_timeout
│   ├── RequestTooLarge      413  request_too_large
│   ├── TargetTooLong        414  uri_too_long
│   ├── UnsupportedMediaType 415  unsupported_media_type
│   ├── HeadTooLarge         431  headers_too_large
│   ├── LimitExceeded        429  token_limit_exceeded, or which other limit it is
│   └── ClientDropped        499  client_dropped: never sent, for the log only
├── NoCapacity               nobody's mistake; `retry_after_s` says when to try again
│   ├── NoAgents             503  no_agents
│   ├── QueueFull            503  queue_full
│   ├── ModelUnavailable     503  model_unavailable
│   ├── DeadlineUnreachable  503  deadline_unreachable
│   ├── DrainingError        503  draining
│   ├── TooManyConnections   503  too_many_connections
│   ├── StoreUnavailable     503  store_unavailable
│   ├── IdentityUnavailable  503  identity_unavailable
│   ├── QueueTimeout         504  queue_timeout
│   └── GenerationTimeout    504  generation_timeout
├── UpstreamError            an agent's mistake or death
│   ├── AgentLost            502  agent_lost
│   └── UpstreamFailed       502  upstream_failed
└── InternalError            500  internal_error: our mistake; its text never says where

SettingError                 the configuration is wrong; one line for the operator
└── AddressNotFree           an address cannot be had now, and perhaps later
StoreFailed                  what is stored cannot be read or written now; the text is for the log
ProviderFailed               a provider of identities said nothing, or what cannot be; for the log
ImageNotFetched              an image that a request names by its URL cannot be had
LinkRefused                  an agent may not register; the text holds the remedy
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal


class BalancerError(Exception):
    """An error that a client may be shown.

    The message says what to do about it. `param` names the request parameter at fault, `details`
    are facts for programs, `retry_after_s` is an estimate, at least 1 where it is set.
    """

    status: ClassVar[int] = 500
    type: ClassVar[str] = "internal_error"
    default_code: ClassVar[str] = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        details: Mapping[str, Any] | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or self.default_code
        self.param = param
        self.details: dict[str, Any] = dict(details or {})
        self.retry_after_s = retry_after_s


class ClientMistake(BalancerError):
    """The client must change its request."""

    status = 400
    type = "invalid_request_error"
    default_code = "invalid_value"


class InvalidRequest(ClientMistake):
    """The request cannot be used as it is; `param` and `details` say which part of it."""


class Unauthorized(ClientMistake):
    """Credentials are missing, or are not what opens anything here."""

    status = 401
    type = "authentication_error"
    default_code = "invalid_api_key"


class Forbidden(ClientMistake):
    """The caller, or the page it comes from, may not do this."""

    status = 403
    type = "permission_error"
    default_code = "insufficient_permissions"


class ModelNotFound(ClientMistake):
    """Nobody serves, or lately served, a model of this name."""

    status = 404
    type = "not_found_error"
    default_code = "model_not_found"


class RouteNotFound(ClientMistake):
    """There is no such path on this port."""

    status = 404
    type = "not_found_error"
    default_code = "route_not_found"


class ResourceNotFound(ClientMistake):
    """The path is right, but what it names does not exist."""

    status = 404
    type = "not_found_error"
    default_code = "resource_not_found"


class MethodNotAllowed(ClientMistake):
    """The path exists with other methods; `details["allowed"]` lists them."""

    status = 405
    type = "not_found_error"
    default_code = "method_not_allowed"


class Conflict(ClientMistake):
    """What the request wants to make exists already."""

    status = 409
    type = "conflict_error"
    default_code = "already_exists"


class RequestCancelled(Conflict):
    """An operator ended the request."""

    default_code = "request_cancelled"


class RequestTooLarge(ClientMistake):
    """The body has more bytes than the limit, or came too slowly."""

    status = 413
    default_code = "request_too_large"


class RequestTooSlow(ClientMistake):
    """The request's head did not arrive in time."""

    status = 408
    type = "timeout_error"
    default_code = "request_timeout"


class TargetTooLong(ClientMistake):
    """The request's target, which is its path and query, has more bytes than the limit."""

    status = 414
    default_code = "uri_too_long"


class HeadTooLarge(ClientMistake):
    """The request's headers are too many, or too large."""

    status = 431
    default_code = "headers_too_large"


class UnsupportedMediaType(ClientMistake):
    """The body is in a form that this route does not read."""

    status = 415
    default_code = "unsupported_media_type"


class LimitExceeded(ClientMistake):
    """A limit on tokens, requests or concurrency is used up."""

    status = 429
    type = "rate_limit_error"
    default_code = "token_limit_exceeded"

    def __init__(
        self, message: str, *, headers: Mapping[str, str] | None = None, **told: Any
    ) -> None:
        """`headers` tell programs of the limit."""
        super().__init__(message, **told)
        self.headers = dict(headers or {})


class ClientDropped(ClientMistake):
    """The client read too slowly for too long and its connection was aborted."""

    status = 499
    type = "client_dropped"
    default_code = "client_dropped"


class NoCapacity(BalancerError):
    """Nothing is wrong with the request; there is no room for it now."""

    status = 503
    type = "overloaded_error"
    default_code = "no_agents"


class NoAgents(NoCapacity):
    """No agent is connected and the request may not wait for one."""


class QueueFull(NoCapacity):
    """As many requests wait as may wait."""

    default_code = "queue_full"


class ModelUnavailable(NoCapacity):
    """The model is known, but no agent can serve it at present."""

    default_code = "model_unavailable"


class DeadlineUnreachable(NoCapacity):
    """The request's own deadline would pass before it could begin."""

    default_code = "deadline_unreachable"


class DrainingError(NoCapacity):
    """The balancer is about to stop and takes nothing new."""

    default_code = "draining"


class QueueTimeout(NoCapacity):
    """The request waited as long as it may for a free slot."""

    status = 504
    type = "timeout_error"
    default_code = "queue_timeout"


class GenerationTimeout(NoCapacity):
    """The whole generation took longer than the request's `timeout` allows."""

    status = 504
    type = "timeout_error"
    default_code = "generation_timeout"


class UpstreamError(BalancerError):
    """Who worked on the request failed it."""

    status = 502
    type = "upstream_error"
    default_code = "upstream_failed"


class AgentLost(UpstreamError):
    """The agent's connection ended while it worked on the request."""

    default_code = "agent_lost"


class UpstreamFailed(UpstreamError):
    """The agent lives and reports that it could not do the work."""


class InternalError(BalancerError):
    """Our own mistake. The text is for strangers: no traceback, no path."""


class SettingError(Exception):
    """A setting is wrong: one line with what, where it came from and what is allowed."""


class AddressNotFree(SettingError):
    """Somebody listens there, or no interface has the address yet: worth another try."""


class TooManyConnections(NoCapacity):
    """The port has as many as it may."""

    default_code = "too_many_connections"


class StoreUnavailable(NoCapacity):
    """What is stored cannot be read or changed at present."""

    default_code = "store_unavailable"


class IdentityUnavailable(NoCapacity):
    """Who would have to be asked whom credentials stand for cannot be asked at present."""

    default_code = "identity_unavailable"


class StoreFailed(Exception):
    """A store cannot be read or written at present. The message has no content of anybody."""


class ProviderFailed(Exception):
    """The message says why, and has no credential."""


class ImageNotFetched(Exception):
    """`reason` says why in words for the client; they tell nothing of the network here."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(reason)
        self.url = url
        self.reason = reason


RefusedReason = Literal[
    "name_reserved", "name_taken", "not_entitled", "protocol_version", "removed"
]


class LinkRefused(Exception):
    """An agent may not register; the message is sent to it and names the remedy."""

    def __init__(self, message: str, *, reason: RefusedReason) -> None:
        super().__init__(message)
        self.reason = reason
