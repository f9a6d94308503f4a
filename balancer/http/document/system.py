"""The routes about the balancer itself."""

from __future__ import annotations

from balancer.http.document.operation import FINDING, Answer, Example, Operation, Parameter
from balancer.http.document.shapes import health
from balancer.http.document.shapes.errors import TextErrorBody

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
        path="/api/v1/status",
        tag="System",
        summary="How every component is",
        answers=(Answer(description="The whole system.", shapes=(health.DetailedHealth,)),),
        error_shapes=(TextErrorBody,),
        examples=(Example(name="status"),),
    ),
    Operation(
        ports=("inference", "management"),
        method="GET",
        path="/metrics",
        tag="System",
        summary="Everything that is measured",
        description="Prometheus' text format; totals as JSON for `Accept: application/json` or "
        "`?format=json`.",
        parameters=(
            Parameter(
                name="format",
                where="query",
                description="Whatever the `Accept` header says.",
                schema={"enum": ["json", "prometheus"]},
            ),
        ),
        answers=(
            Answer(
                description="Prometheus' text format, or totals as JSON.",
                content_type="text/plain",
                or_json=(health.MetricsTotals,),
            ),
        ),
        examples=(Example(name="scrape"), Example(name="totals", query={"format": "json"})),
    ),
    Operation(
        ports=("inference", "management"),
        method="GET",
        path="/metrics/prometheus",
        tag="System",
        summary="Everything that is measured, always as text",
        answers=(Answer(description="Prometheus' text format.", content_type="text/plain"),),
        examples=(Example(name="scrape"),),
    ),
    Operation(
        ports=("management",),
        method="GET",
        path="/metrics/series",
        tag="System",
        summary="The last ten minutes of some figures, a number a second",
        parameters=(
            Parameter(
                name="paths",
                where="query",
                description="Which, with commas between them; all without it.",
            ),
            Parameter(
                name="last",
                where="query",
                description="How many numbers of each, at most.",
                schema={"type": "integer", "minimum": 1, "maximum": 600},
            ),
        ),
        answers=(Answer(description="The series.", shapes=(health.Series,)),),
        examples=(
            Example(name="all"),
            Example(name="some", query={"paths": "requests.per_second", "last": "60"}),
        ),
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
    Operation(
        ports=("management",),
        method="GET",
        path="/",
        tag="System",
        summary="The dashboard",
        description="Also under `/dashboard`, where one port serves everything.",
        answers=(Answer(description="The page.", content_type="text/html"),),
        examples=(Example(name="page"),),
    ),
    Operation(
        ports=("management",),
        method="GET",
        path="/assets/{path...}",
        tag="System",
        summary="A file of the dashboard",
        parameters=(
            Parameter(
                name="path",
                where="path",
                description="Which file.",
                example="app/main.js",
            ),
        ),
        answers=(Answer(description="The file.", content_type="text/javascript"),),
        errors=FINDING,
        examples=(Example(name="file"),),
    ),
)
