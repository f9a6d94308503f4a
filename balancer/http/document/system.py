"""The routes about the balancer itself."""

from __future__ import annotations

from balancer.http.document.operation import Answer, Example, Operation, Parameter
from balancer.http.document.shapes import health

OPERATIONS = (
    Operation(
        ports=("inference",),
        method="GET",
        path="/health",
        tag="System",
        summary="Whether the balancer lives",
        parameters=(
            Parameter(
                name="detailed",
                where="query",
                description="`true`, `1` or `yes` asks for every component.",
            ),
        ),
        answers=(
            Answer(description="It does.", shapes=(health.DetailedHealth, health.BriefHealth)),
        ),
        examples=(Example(name="brief"), Example(name="detailed", query={"detailed": "true"})),
    ),
    Operation(
        ports=("management",),
        method="GET",
        path="/health",
        tag="System",
        summary="How every component is",
        answers=(Answer(description="The whole system.", shapes=(health.DetailedHealth,)),),
        examples=(Example(name="detailed"),),
    ),
    Operation(
        ports=("inference", "management"),
        method="GET",
        path="/ready",
        tag="System",
        summary="Whether a model can be served",
        answers=(
            Answer(description="One can.", shapes=(health.Readiness,)),
            Answer(status=503, description="None can.", shapes=(health.Readiness,)),
        ),
        examples=(Example(name="ready"),),
    ),
    Operation(
        ports=("inference", "management"),
        method="GET",
        path="/metrics",
        tag="System",
        summary="Everything that is measured",
        answers=(Answer(description="Prometheus' text format.", content_type="text/plain"),),
        examples=(Example(name="scrape"),),
    ),
    Operation(
        ports=("inference",),
        method="GET",
        path="/openapi.json",
        tag="System",
        summary="This document",
        answers=(Answer(description="Of the port that is asked."),),
        examples=(Example(name="document"),),
    ),
    Operation(
        ports=("management",),
        method="GET",
        path="/openapi.json",
        tag="System",
        summary="This document",
        answers=(Answer(description="Of the port that is asked."),),
        examples=(Example(name="document"),),
    ),
    Operation(
        ports=("inference", "management"),
        method="GET",
        path="/docs",
        tag="System",
        summary="A page that shows this document, and can send its examples",
        answers=(Answer(description="The page.", content_type="text/html"),),
        examples=(Example(name="page"),),
    ),
)
