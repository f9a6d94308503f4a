"""Every route of both ports."""

from __future__ import annotations

from balancer.http.anthropic.errors import error_answer as anthropic_error
from balancer.http.anthropic.messages import messages
from balancer.http.health import brief_health, detailed_health, metrics_text, ready
from balancer.http.management.agent_socket import connect_agent
from balancer.http.management.agents import (
    drain_agent,
    list_agents,
    remove_agent,
    show_agent,
    undrain_agent,
)
from balancer.http.management.requests import cancel_request, list_requests, show_route
from balancer.http.ollama.embedding import embed
from balancer.http.ollama.embedding import embeddings as prompt_embeddings
from balancer.http.ollama.errors import error_answer as ollama_error
from balancer.http.ollama.generation import chat, generate
from balancer.http.ollama.models import running, show, tags, version
from balancer.http.openai.chat_completions import chat_completions
from balancer.http.openai.completions import completions
from balancer.http.openai.embeddings import embeddings
from balancer.http.openai.models import list_models
from balancer.http.router import Route
from balancer.http.streams import take_up_stream

ROUTES: tuple[Route, ...] = (
    Route(
        ports=("inference",),
        method="POST",
        path="/v1/chat/completions",
        handler=chat_completions,
        limit_class="chat",
        aliases=("/chat/completions",),
    ),
    Route(
        ports=("inference",),
        method="POST",
        path="/v1/completions",
        handler=completions,
        limit_class="completions",
        aliases=("/completions",),
    ),
    Route(
        ports=("inference",),
        method="POST",
        path="/v1/messages",
        handler=messages,
        limit_class="chat",
        aliases=("/messages",),
        error_form=anthropic_error,
    ),
    Route(
        ports=("inference",),
        method="POST",
        path="/api/chat",
        handler=chat,
        limit_class="chat",
        error_form=ollama_error,
    ),
    Route(
        ports=("inference",),
        method="POST",
        path="/api/generate",
        handler=generate,
        limit_class="completions",
        error_form=ollama_error,
    ),
    Route(
        ports=("inference",),
        method="POST",
        path="/api/embed",
        handler=embed,
        limit_class="embeddings",
        error_form=ollama_error,
    ),
    Route(
        ports=("inference",),
        method="POST",
        path="/api/embeddings",
        handler=prompt_embeddings,
        limit_class="embeddings",
        error_form=ollama_error,
    ),
    Route(
        ports=("inference",),
        method="GET",
        path="/api/tags",
        handler=tags,
        limit_class="models",
        error_form=ollama_error,
    ),
    Route(
        ports=("inference",),
        method="GET",
        path="/api/ps",
        handler=running,
        limit_class="models",
        error_form=ollama_error,
    ),
    Route(
        ports=("inference",),
        method="POST",
        path="/api/show",
        handler=show,
        limit_class="models",
        error_form=ollama_error,
    ),
    Route(
        ports=("inference",),
        method="GET",
        path="/api/version",
        handler=version,
        limit_class="models",
        error_form=ollama_error,
    ),
    Route(
        ports=("inference",),
        method="POST",
        path="/v1/embeddings",
        handler=embeddings,
        limit_class="embeddings",
        aliases=("/embeddings",),
    ),
    Route(
        ports=("inference",),
        method="GET",
        path="/v1/streams/{id}",
        handler=take_up_stream,
        has_head=False,
        limit_class="chat",
        aliases=("/streams/{id}",),
    ),
    Route(
        ports=("inference",),
        method="GET",
        path="/v1/models",
        handler=list_models,
        limit_class="models",
        aliases=("/models",),
    ),
    Route(
        ports=("inference",),
        method="GET",
        path="/health",
        handler=brief_health,
        limit_class="health",
        aliases=("/v1/health",),
        is_quiet=True,
    ),
    Route(
        ports=("management",),
        method="GET",
        path="/health",
        handler=detailed_health,
        limit_class="health",
        aliases=("/v1/health",),
        is_quiet=True,
    ),
    Route(
        ports=("inference", "management"),
        method="GET",
        path="/ready",
        handler=ready,
        limit_class="health",
        aliases=("/v1/ready",),
        is_quiet=True,
    ),
    Route(
        ports=("inference", "management"),
        method="GET",
        path="/metrics",
        handler=metrics_text,
        limit_class="metrics",
        aliases=("/metrics/prometheus", "/v1/metrics"),
        is_quiet=True,
    ),
    Route(
        ports=("management",),
        method="GET",
        path="/agents",
        handler=list_agents,
        min_role="admin",
        limit_class="management",
        aliases=("/v1/agents",),
    ),
    Route(
        ports=("management",),
        method="GET",
        path="/agents/{id}",
        handler=show_agent,
        min_role="admin",
        limit_class="management",
        aliases=("/v1/agents/{id}",),
    ),
    Route(
        ports=("management",),
        method="DELETE",
        path="/agents/{id}",
        handler=remove_agent,
        min_role="admin",
        limit_class="management",
        aliases=("/v1/agents/{id}",),
    ),
    Route(
        ports=("management",),
        method="POST",
        path="/agents/{id}/drain",
        handler=drain_agent,
        query=("deadline_s",),
        min_role="admin",
        limit_class="management",
        aliases=("/v1/agents/{id}/drain",),
    ),
    Route(
        ports=("management",),
        method="POST",
        path="/agents/{id}/undrain",
        handler=undrain_agent,
        min_role="admin",
        limit_class="management",
        aliases=("/v1/agents/{id}/undrain",),
    ),
    Route(
        ports=("management",),
        method="GET",
        path="/requests",
        handler=list_requests,
        min_role="admin",
        limit_class="management",
        aliases=("/v1/requests",),
    ),
    Route(
        ports=("management",),
        method="DELETE",
        path="/requests/{id}",
        handler=cancel_request,
        min_role="admin",
        limit_class="management",
        aliases=("/v1/requests/{id}",),
    ),
    Route(
        ports=("management",),
        method="GET",
        path="/requests/{id}/route",
        handler=show_route,
        min_role="admin",
        limit_class="management",
        aliases=("/v1/requests/{id}/route",),
    ),
    Route(
        ports=("management",),
        method="GET",
        path="/agents/connect",
        handler=connect_agent,
        limit_class="agents",
        aliases=("/v1/agents/connect",),
        is_socket=True,
    ),
)
