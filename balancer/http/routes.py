"""Every route of both ports: a line each, by those who call them.

All but Ollama's paths are served with `/v1` in front and without.
"""

from __future__ import annotations

from balancer.access import Role, RouteClass
from balancer.http.answers import error_answer, text_error_answer
from balancer.http.anthropic.count_tokens import count_tokens
from balancer.http.anthropic.errors import error_answer as anthropic_error
from balancer.http.anthropic.messages import messages
from balancer.http.calls import Answer, over_http
from balancer.http.dashboard.handler import show_asset, show_dashboard
from balancer.http.document.handler import inference_document, management_document, show_page
from balancer.http.exchange import ErrorForm, Port
from balancer.http.health import (
    brief_health,
    detailed_health,
    management_health,
    metrics,
    metrics_text,
    ready,
    show_series,
)
from balancer.http.inference.handler import inference
from balancer.http.llama_server.handler import apply_template, detokenize, tokenize
from balancer.http.management.agent_socket import connect_agent
from balancer.http.management.agents import (
    drain_agent,
    list_agents,
    remove_agent,
    show_agent,
    undrain_agent,
)
from balancer.http.management.config import (
    config_status,
    reload_config,
    reload_over_socket,
    show_config,
)
from balancer.http.management.keys import (
    MEMBERS,
    create_key,
    list_keys,
    revoke_key,
    rotate_key,
)
from balancer.http.management.live.sockets import control_socket, logs_socket, metrics_socket
from balancer.http.management.log_level import set_log_level, show_log_level
from balancer.http.management.models import list_models as list_served_models
from balancer.http.management.models import model_metadata
from balancer.http.management.requests import (
    cancel_request,
    list_finished,
    list_requests,
    show_route,
    show_timeline,
)
from balancer.http.management.session import close_session, open_session, show_session
from balancer.http.ollama.embedding import embed
from balancer.http.ollama.embedding import embeddings as prompt_embeddings
from balancer.http.ollama.generation import chat, generate
from balancer.http.ollama.models import greeting, running, show, tags, version
from balancer.http.openai.chat_completions import chat_completions
from balancer.http.openai.completions import completions
from balancer.http.openai.embeddings import embeddings
from balancer.http.openai.models import list_models, show_model
from balancer.http.rerank.handler import rerank
from balancer.http.responses.create import create_response
from balancer.http.responses.input_tokens import count_input_tokens
from balancer.http.responses.stored import (
    cancel_response,
    delete_response,
    list_input_items,
    show_response,
)
from balancer.http.router import Handler, Method, Route
from balancer.http.streams import take_up_stream

_INFERENCE: tuple[Port, ...] = ("inference",)
_MANAGEMENT: tuple[Port, ...] = ("management",)
_BOTH: tuple[Port, ...] = ("inference", "management")


def _with_and_without_v1(path: str) -> tuple[str, ...]:
    return (path.removeprefix("/v1") if path.startswith("/v1/") else f"/v1{path}",)


def _inference(
    method: Method,
    path: str,
    handler: Handler,
    limit_class: RouteClass,
    *,
    error_form: ErrorForm = error_answer,
    has_head: bool = True,
    ports: tuple[Port, ...] = _INFERENCE,
) -> Route:
    """`ports` are both for what the dashboard's playground uses: its page may call its own port
    alone."""
    return Route(
        ports=ports,
        method=method,
        path=path,
        handler=handler,
        min_role="user",
        limit_class=limit_class,
        aliases=_with_and_without_v1(path),
        error_form=error_form,
        has_head=has_head,
    )


def _ollama(
    method: Method,
    path: str,
    handler: Handler,
    limit_class: RouteClass,
    *,
    min_role: Role = "user",
    is_quiet: bool = False,
) -> Route:
    return Route(
        ports=_INFERENCE,
        method=method,
        path=path,
        handler=handler,
        min_role=min_role,
        limit_class=limit_class,
        error_form=text_error_answer,
        is_quiet=is_quiet,
    )


def _about(ports: tuple[Port, ...], path: str, handler: Handler) -> Route:
    return Route(
        ports=ports,
        method="GET",
        path=path,
        handler=handler,
        min_role="user",
        limit_class="models",
        aliases=_with_and_without_v1(path),
    )


def _dashboard(path: str, handler: Handler, *, aliases: tuple[str, ...] = ()) -> Route:
    """It says nothing of the cluster: what its pages show they ask for, as operators do."""
    return Route(
        ports=_MANAGEMENT,
        method="GET",
        path=path,
        handler=handler,
        limit_class="pages",
        aliases=aliases,
        is_quiet=True,
    )


def _session(method: Method, handler: Handler) -> Route:
    """For whoever wants to sign in."""
    return Route(
        ports=_MANAGEMENT,
        method=method,
        path="/session",
        handler=handler,
        limit_class="management",
        aliases=_with_and_without_v1("/session"),
    )


def _probe(
    ports: tuple[Port, ...],
    path: str,
    handler: Handler,
    limit_class: RouteClass = "health",
    *,
    min_role: Role = "public",
) -> Route:
    return Route(
        ports=ports,
        method="GET",
        path=path,
        handler=handler,
        min_role=min_role,
        open_role="public",
        limit_class=limit_class,
        aliases=_with_and_without_v1(path),
        is_quiet=True,
    )


def _operators(method: Method, path: str, handler: Handler, call: str, answer: Answer) -> Route:
    """What is answered in another form over HTTP."""
    return Route(
        ports=_MANAGEMENT,
        method=method,
        path=path,
        handler=handler,
        min_role="admin",
        limit_class="management",
        aliases=_with_and_without_v1(path),
        answer=answer,
        call=call,
    )


def _callable(
    method: Method,
    path: str,
    call: str,
    answer: Answer,
    *,
    query: tuple[str, ...] = (),
    takes: tuple[str, ...] = (),
    aliases: tuple[str, ...] | None = None,
    status: int = 200,
    is_secret: bool = False,
) -> Route:
    """What operators may call over a live socket, too."""
    return Route(
        ports=_MANAGEMENT,
        method=method,
        path=path,
        handler=over_http(answer, takes=takes, status=status, is_secret=is_secret),
        query=query,
        min_role="admin",
        limit_class="management",
        aliases=_with_and_without_v1(path) if aliases is None else aliases,
        answer=answer,
        call=call,
        takes=takes,
    )


def _openai_models(path: str, handler: Handler) -> Route:
    """On :8081 the path without `/v1` is another list: of details."""
    return Route(
        ports=_MANAGEMENT,
        method="GET",
        path=path,
        handler=handler,
        min_role="user",
        limit_class="models",
    )


def _socket(path: str, handler: Handler, *, query: tuple[str, ...] = ()) -> Route:
    return Route(
        ports=_MANAGEMENT,
        method="GET",
        path=path,
        handler=handler,
        query=query,
        min_role="admin",
        limit_class="management",
        aliases=_with_and_without_v1(path),
        is_socket=True,
    )


ROUTES: tuple[Route, ...] = (
    _inference("POST", "/v1/chat/completions", chat_completions, "chat", ports=_BOTH),
    _inference("POST", "/v1/completions", completions, "completions"),
    _inference("POST", "/v1/messages", messages, "chat", error_form=anthropic_error),
    _ollama("POST", "/api/chat", chat, "chat"),
    _ollama("POST", "/api/generate", generate, "completions"),
    _ollama("POST", "/api/embed", embed, "embeddings"),
    _ollama("POST", "/api/embeddings", prompt_embeddings, "embeddings"),
    _ollama("GET", "/api/tags", tags, "models"),
    _ollama("GET", "/api/ps", running, "models"),
    _ollama("POST", "/api/show", show, "models"),
    _ollama("GET", "/", greeting, "health", min_role="public", is_quiet=True),
    _ollama("GET", "/api/version", version, "models"),
    _inference(
        "POST", "/v1/messages/count_tokens", count_tokens, "tokens", error_form=anthropic_error
    ),
    _inference("POST", "/v1/responses", create_response, "chat"),
    _inference("POST", "/v1/responses/input_tokens", count_input_tokens, "tokens"),
    _inference("GET", "/v1/responses/{id}", show_response, "models"),
    _inference("DELETE", "/v1/responses/{id}", delete_response, "models"),
    _inference("GET", "/v1/responses/{id}/input_items", list_input_items, "models"),
    _inference("POST", "/v1/responses/{id}/cancel", cancel_response, "models"),
    _inference("POST", "/v1/embeddings", embeddings, "embeddings"),
    _inference("POST", "/v1/rerank", rerank, "embeddings"),
    _inference("POST", "/tokenize", tokenize, "tokens", ports=_BOTH),
    _inference("POST", "/detokenize", detokenize, "tokens"),
    _inference("POST", "/apply-template", apply_template, "tokens", ports=_BOTH),
    _inference("POST", "/inference", inference, "completions", error_form=text_error_answer),
    _inference("GET", "/v1/streams/{id}", take_up_stream, "chat", has_head=False),
    _inference("GET", "/v1/models", list_models, "models"),
    _inference("GET", "/v1/models/{id...}", show_model, "models"),
    _probe(_INFERENCE, "/health", brief_health),
    Route(
        ports=_MANAGEMENT,
        method="GET",
        path="/health",
        handler=management_health,
        limit_class="health",
        aliases=_with_and_without_v1("/health"),
        is_quiet=True,
        answer=detailed_health,
        call="health",
    ),
    Route(
        ports=_BOTH,
        method="GET",
        path="/api/v1/status",
        handler=over_http(detailed_health),
        min_role="admin",
        open_role="public",
        limit_class="health",
        error_form=text_error_answer,
        is_quiet=True,
    ),
    _probe(_BOTH, "/ready", ready),
    _probe(_BOTH, "/metrics", metrics, "metrics", min_role="admin"),
    _probe(_BOTH, "/metrics/prometheus", metrics_text, "metrics", min_role="admin"),
    _socket("/ws/control", control_socket),
    _socket("/ws/metrics", metrics_socket),
    _socket("/ws/logs", logs_socket, query=("level", "component", "request_id")),
    _callable("GET", "/metrics/series", "metrics.series", show_series, query=("paths", "last")),
    _about(_INFERENCE, "/openapi.json", inference_document),
    _about(_MANAGEMENT, "/openapi.json", management_document),
    _about(_BOTH, "/docs", show_page),
    # on a single port `/` greets Ollama's clients
    _dashboard("/", show_dashboard, aliases=("/dashboard",)),
    _dashboard("/assets/{path...}", show_asset),
    _session("GET", show_session),
    _session("POST", open_session),
    _session("DELETE", close_session),
    _callable("GET", "/agents", "agents.list", list_agents),
    _callable("GET", "/agents/{id}", "agents.get", show_agent),
    _callable("DELETE", "/agents/{id}", "agents.remove", remove_agent),
    _callable("POST", "/agents/{id}/drain", "agents.drain", drain_agent, query=("deadline_s",)),
    _callable("POST", "/agents/{id}/undrain", "agents.undrain", undrain_agent),
    _callable("GET", "/requests", "requests.list", list_requests),
    _callable("GET", "/requests/finished", "requests.finished", list_finished, query=("last",)),
    _callable("DELETE", "/requests/{id}", "requests.cancel", cancel_request),
    _callable("GET", "/requests/{id}/route", "requests.route", show_route),
    _callable("GET", "/requests/{id}/timeline", "requests.timeline", show_timeline),
    _callable("GET", "/models", "models.list", list_served_models, aliases=()),
    _callable("GET", "/models/{name...}/metadata", "models.metadata", model_metadata),
    _openai_models("/v1/models", list_models),
    _openai_models("/v1/models/{id...}", show_model),
    _callable("GET", "/log-level", "log_level.get", show_log_level),
    _callable("PUT", "/log-level", "log_level.set", set_log_level, takes=("level",)),
    _callable("GET", "/keys", "keys.list", list_keys, query=("limit", "after")),
    _callable(
        "POST", "/keys", "keys.create", create_key, takes=MEMBERS, status=201, is_secret=True
    ),
    _callable("DELETE", "/keys/{id}", "keys.revoke", revoke_key),
    _callable(
        "POST",
        "/keys/{id}/rotate",
        "keys.rotate",
        rotate_key,
        takes=("overlap_s",),
        is_secret=True,
    ),
    _callable("GET", "/config", "config.get", show_config),
    _callable("GET", "/config/status", "config.status", config_status),
    _operators("POST", "/config/reload", reload_config, "config.reload", reload_over_socket),
    Route(
        ports=_MANAGEMENT,
        method="GET",
        path="/agents/connect",
        handler=connect_agent,
        min_role="system",
        open_role="public",
        limit_class="agents",
        aliases=_with_and_without_v1("/agents/connect"),
        is_socket=True,
    ),
)
