"""Schemathesis over both ports: requests made from the document, and requests that break it.

Only what answers is judged: no error of the server's, and nothing but what the document says.
`DELETE /agents/{id}` and `drain` hit the agent `spare` alone, which is there for that.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi import checks

from balancer.http.exchange import Port
from protocol.models import ServedModel
from tests.support.documented import documented
from tests.support.fake_agent import FakeAgent
from tests.support.running_balancer import PATIENCE_S, running_balancer

# many examples of what other tests cover line by line: counting lines would double its time
pytestmark = pytest.mark.uncounted

EXAMPLES = 10
"""Of each route, of requests as documented and of broken ones."""
SEED = 6
CHECKS = (
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
)
UNSENT = {("get", "/agents/connect"), ("post", "/keys")}
"""A WebSocket: see test_agent_link. The first key closes the door to all others: see
test_http_keys."""
ASKED_FOR = ("generation_timeout", "deadline_unreachable")
"""What a `timeout` of next to nothing ends with."""
MODEL = ServedModel(name="paddler-demo", context_tokens=2048, embedding_dimensions=3, reranks=True)


@contextmanager
def _beside(ports: dict[Port, str]) -> Iterator[None]:
    """A balancer with agents in a thread of its own: Schemathesis blocks."""
    is_ready = threading.Event()
    failures: list[str] = []
    stop: list[Any] = []

    async def serve() -> None:
        is_over = asyncio.Event()
        async with (
            running_balancer(queue_timeout_s=5.0) as balancer,
            FakeAgent(balancer.management_port, model=MODEL),
            FakeAgent(balancer.management_port, model=MODEL, name="spare"),
        ):
            ports["inference"], ports["management"] = balancer.url, balancer.management_url
            stop.extend((asyncio.get_running_loop(), is_over))
            is_ready.set()
            await is_over.wait()
            failures.extend(() if balancer.is_at_rest else ("something still runs",))

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert is_ready.wait(PATIENCE_S)
    yield
    loop, is_over = stop
    loop.call_soon_threadsafe(is_over.set)
    thread.join(PATIENCE_S)
    assert failures == []


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[Port, str]]:
    """Where the two ports are."""
    found: dict[Port, str] = {}
    with _beside(found):
        yield found


def _operations() -> Iterator[Any]:
    ports: tuple[Port, ...] = ("inference", "management")
    for port in ports:
        for operation in schemathesis.openapi.from_dict(documented(port)).get_all_operations():
            assert isinstance(operation, Ok)
            row = operation.ok()
            if (row.method, row.path) in UNSENT:
                continue
            for mode in GenerationMode if _can_be_broken(row) else (GenerationMode.POSITIVE,):
                name = f"{mode.value} {port} {row.method.upper()} {row.path}"
                yield pytest.param(port, row, mode, id=name)


def _code_of(body: Any) -> str:
    """Of an error in any family's shape."""
    error = body.get("detail") or body["error"]
    return str(error["code"])


def _can_be_broken(operation: Any) -> bool:
    """What takes nothing but strings can not."""
    return bool(operation.body) or any(
        one.definition["schema"]["type"] != "string" for one in operation.query
    )


# the balancer draws its seeds in another thread, maybe while a request is being made up
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@pytest.mark.parametrize(("port", "operation", "mode"), list(_operations()))
def test_what_is_sent_is_answered_as_the_document_says(
    urls: dict[Port, str], port: Port, operation: Any, mode: GenerationMode
) -> None:
    strategy: st.SearchStrategy[Any] = operation.as_strategy(generation_mode=mode)

    @seed(SEED)
    @settings(
        max_examples=EXAMPLES,
        phases=(Phase.explicit, Phase.generate),
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def send(case: Any) -> None:
        answer = case.call(base_url=urls[port], timeout=PATIENCE_S)
        assert answer.status_code < 500 or _code_of(answer.json()) in ASKED_FOR
        case.validate_response(answer, checks=CHECKS)

    send()
