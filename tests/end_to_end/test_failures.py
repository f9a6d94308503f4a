"""What clients see when processes are killed; real processes, real kills."""

from __future__ import annotations

import json
import signal
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import psutil
import pytest

from tests.support.cluster import DEMO_MODEL, Cluster, Program, wait_until

QUICK = ("--heartbeat-interval", "0.5", "--queue-timeout", "30")
LONG_TASK = "Roll a die 200 times."
LONG_TASK_TOKENS = 1200


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(16) as pool:
        yield pool


class Chat:
    """A chat request in a thread of its own, with what it has seen so far."""

    def __init__(self, cluster: Cluster, pool: ThreadPoolExecutor, *, stream: bool) -> None:
        self._cluster = cluster
        self._stream = stream
        self.has_begun = threading.Event()
        self.result: Future[tuple[int, str]] = pool.submit(self._run)

    def _run(self) -> tuple[int, str]:
        body = {
            "messages": [{"role": "user", "content": LONG_TASK}],
            "stream": self._stream,
            "ignore_eos": True,
            "max_tokens": LONG_TASK_TOKENS,
        }
        request = urllib.request.Request(
            f"{self._cluster.inference_url}/v1/chat/completions", json.dumps(body).encode()
        )
        text = ""
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                for line in answer:
                    text += line.decode()
                    if "content" in text:
                        self.has_begun.set()
                return answer.status, text
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


def _last_event(text: str) -> Any:
    events = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    return json.loads(events[-1])


def _running(cluster: Cluster, name: str = "one") -> int:
    row = cluster.agents().get(name)
    return row["slots"]["used"] if row else 0


def _lives(process: psutil.Process) -> bool:
    return bool(process.is_running() and process.status() != psutil.STATUS_ZOMBIE)


def _is_whole(text: str) -> bool:
    """Whether a stream has all of its tokens, counted once, and its end."""
    events = [line[6:] for line in text.splitlines() if line.startswith("data: ")]
    finish = json.loads(events[-2])
    return events[-1] == "[DONE]" and finish["choices"][0]["finish_reason"] == "length"


def test_a_killed_agent_s_requests_go_on_with_the_next_and_waiting_ones_after_them(
    cluster: Cluster, pool: ThreadPoolExecutor
) -> None:
    cluster.start_balancer(*QUICK)
    agent = cluster.start_agent("one", "--slots", "2")
    engine = agent.engine()
    streamed = Chat(cluster, pool, stream=True)
    streamed.has_begun.wait(30)
    whole = Chat(cluster, pool, stream=False)
    wait_until(lambda: _running(cluster) == 2, what="both run")
    waiting = Chat(cluster, pool, stream=True)
    wait_until(lambda: cluster.metric("paddler_requests_waiting") == 1, what="the third waits")

    agent.send(signal.SIGKILL)

    wait_until(lambda: not _lives(engine), what="the killed agent's engine is gone")
    wait_until(lambda: cluster.metric("paddler_requests_waiting") == 3, what="all three wait")
    assert not streamed.result.done()
    cluster.start_agent("one", "--slots", "2")
    for chat in (streamed, waiting):
        status, text = chat.result.result(60)
        assert status == 200
        assert _is_whole(text), text[-2000:]
    status, text = whole.result.result(60)
    assert status == 200
    answer = json.loads(text)
    assert answer["usage"]["completion_tokens"] == LONG_TASK_TOKENS
    assert answer["_proxy_info"]["attempt_number"] == 2
    assert cluster.metric("paddler_generation_moves_total") == 2


def test_only_the_engine_killed_leaves_the_agent_connected_and_the_stream_goes_on(
    cluster: Cluster, pool: ThreadPoolExecutor
) -> None:
    cluster.start_balancer(*QUICK)
    agent = cluster.start_agent("one", "--slots", "2")
    before = agent.engine()
    chat = Chat(cluster, pool, stream=True)
    chat.has_begun.wait(30)

    before.send_signal(signal.SIGKILL)

    status, text = chat.result.result(60)
    assert (status, _is_whole(text)) == (200, True), text[-2000:]
    assert agent.exit_code is None
    assert agent.engine().pid != before.pid


def test_a_second_agent_of_the_same_name_is_refused_and_the_first_never_notices(
    cluster: Cluster, pool: ThreadPoolExecutor
) -> None:
    cluster.start_balancer(*QUICK)
    first = cluster.start_agent("one", "--slots", "1")
    chat = Chat(cluster, pool, stream=True)
    chat.has_begun.wait(30)

    second = cluster.start_agent("one", "--slots", "1", wait=False)

    wait_until(lambda: "--name" in second.log(), what="the second says what to do")
    status, text = chat.result.result(60)
    assert (status, text.rstrip().endswith("[DONE]")) == (200, True)
    assert first.exit_code is None


def test_a_terminated_balancer_finishes_what_runs_and_refuses_what_comes(
    cluster: Cluster, pool: ThreadPoolExecutor
) -> None:
    balancer = cluster.start_balancer(*QUICK)
    cluster.start_agent("one", "--slots", "1")
    chat = Chat(cluster, pool, stream=True)
    chat.has_begun.wait(30)

    balancer.send(signal.SIGTERM)

    _, text = chat.result.result(60)
    assert text.rstrip().endswith("[DONE]")
    assert balancer.wait(30) == 0


def test_a_second_signal_stops_the_balancer_at_once(
    cluster: Cluster, pool: ThreadPoolExecutor
) -> None:
    balancer = cluster.start_balancer(*QUICK)
    cluster.start_agent("one", "--slots", "1")
    chat = Chat(cluster, pool, stream=True)
    chat.has_begun.wait(30)

    balancer.send(signal.SIGTERM)
    wait_until(lambda: "drain" in balancer.log(), what="the balancer drains")
    balancer.send(signal.SIGTERM)

    assert balancer.wait(10) == 0
    _, text = chat.result.result(30)
    assert _last_event(text)["error"]["code"] == "draining"
    assert "[DONE]" not in text


def test_a_terminated_agent_leaves_no_engine_behind(cluster: Cluster) -> None:
    cluster.start_balancer(*QUICK)
    agent = cluster.start_agent("one", "--slots", "1")
    engine = agent.engine()
    agent.send(signal.SIGTERM)
    assert agent.wait(30) == 0
    wait_until(lambda: not _lives(engine), what="the engine is gone")


@pytest.mark.parametrize(("content", "says"), [(None, "no such file"), (b"not a model", "GGUF")])
def test_an_agent_with_a_wrong_model_file_says_so_in_one_line(
    cluster: Cluster, content: bytes | None, says: str
) -> None:
    cluster.start_balancer(*QUICK)
    path = cluster.log_folder / "wrong.gguf"
    if content is not None:
        path.write_bytes(content)
    agent = cluster.start_agent("one", model=path, wait=False)
    assert agent.wait(30) == 2
    lines = [line for line in agent.log().splitlines() if line.strip()]
    assert says in lines[-1]
    assert "Traceback" not in agent.log()


def test_the_demo_answers_once_and_exits_zero(cluster: Cluster) -> None:
    program = Program("demo", ["demo", "--once"], cluster.log_folder / "demo.log")
    cluster.programs.append(program)
    wait_until(lambda: len(program.children()) >= 2, what="its balancer and its agent run")
    children = program.children()
    assert program.wait(90) == 0
    assert "curl" in program.log()
    assert not any(_lives(child) for child in children)
    assert DEMO_MODEL.exists()
