"""What operators see: bounded series, and logs without anything private."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from balancer.errors import BalancerError, InvalidRequest
from balancer.observability import audit
from balancer.observability.log_ring import LogRing
from balancer.observability.logging import configure, level_now, set_level
from balancer.observability.metrics import MAX_MODEL_LABELS, Metrics
from balancer.observability.scraped import MAX_AGENT_LABELS, AgentSlots, LimitFigures
from balancer.settings import LogFormat, LogLevel
from protocol.generation import Usage
from protocol.refusals import RefusalCode


@pytest.fixture
def restored_logging() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_tokens_are_counted_by_model_and_the_models_are_bounded() -> None:
    metrics = Metrics()
    usage = Usage(prompt_tokens=7, completion_tokens=3, cached_tokens=2)
    for number in range(MAX_MODEL_LABELS + 5):
        metrics.generation_finished(usage, f"model-{number}")

    def tokens(model: str, kind: str) -> float | None:
        labels = {"model": model, "kind": kind}
        return metrics.registry.get_sample_value("paddler_model_tokens_total", labels)

    assert [tokens("model-0", kind) for kind in ("prompt", "completion", "cached")] == [7, 3, 2]
    assert tokens(f"model-{MAX_MODEL_LABELS}", "prompt") is None
    assert tokens("other", "prompt") == 5 * 7


def test_what_limits_hold_is_read_when_it_is_scraped() -> None:
    metrics, held = Metrics(), {"subjects": 2}

    def read() -> LimitFigures:
        return LimitFigures(
            entries=1,
            reservations=1,
            reserved_tokens=90,
            leaked_reservations=0,
            settled_tokens=10,
            tables=held,
            refusals={"burst": 4},
        )

    metrics.watch_limits(read)
    held["subjects"] = 3
    text = metrics.text().decode()
    for line in (
        "paddler_limited_requests 1.0",
        "paddler_token_reservations 1.0",
        "paddler_reserved_tokens 90.0",
        "paddler_leaked_reservations 0.0",
        "paddler_settled_tokens_total 10.0",
        'paddler_limit_rows{table="subjects"} 3.0',
        'paddler_limit_refusals_total{limit="burst"} 4.0',
    ):
        assert line in text


def test_requests_are_counted_by_route_and_status_class() -> None:
    metrics = Metrics()
    for status in (200, 200, 404):
        metrics.request_answered("/v1/models", status, 0.01)
    text = metrics.text().decode()
    assert 'paddler_requests_total{route="/v1/models",status_class="2xx"} 2.0' in text
    assert 'paddler_requests_total{route="/v1/models",status_class="4xx"} 1.0' in text
    assert 'paddler_request_duration_seconds_count{route="/v1/models"} 3.0' in text


def test_how_long_a_websocket_lasted_is_no_request_s_duration() -> None:
    metrics = Metrics()
    metrics.request_answered("/agents/connect", 101, 3600.0)
    text = metrics.text().decode()
    assert 'paddler_requests_total{route="/agents/connect",status_class="1xx"} 1.0' in text
    assert 'paddler_request_duration_seconds_count{route="/agents/connect"} 0.0' in text


def test_two_balancers_in_one_process_share_no_series() -> None:
    one, other = Metrics(), Metrics()
    one.agent_lost()
    assert b"paddler_agents_lost_total 0.0" in other.text()


def test_any_number_of_agents_gives_a_bounded_number_of_series() -> None:
    metrics = Metrics()
    metrics.watch_slots(lambda: [AgentSlots(f"agent-{n}", 4, 1) for n in range(400)])
    lines = [line for line in metrics.text().decode().splitlines() if "slots_total_count{" in line]
    assert len(lines) == MAX_AGENT_LABELS + 1
    assert lines[-1].endswith(f"{(400 - MAX_AGENT_LABELS) * 4}.0")
    assert 'agent="other"' in lines[-1]


def test_refusals_of_any_code_have_bounded_names() -> None:
    metrics = Metrics()
    for code in (RefusalCode.NO_FREE_SLOT, -5, -6, -7):
        metrics.call_refused(code)
    text = metrics.text().decode()
    assert 'paddler_agent_refusals_total{reason="no_free_slot"} 1.0' in text
    assert 'paddler_agent_refusals_total{reason="protocol_error"} 3.0' in text


def test_the_high_water_mark_of_unsent_bytes_only_rises() -> None:
    metrics = Metrics()
    for held in (5, 900, 20):
        metrics.stream_held(held)
    assert b"paddler_stream_unsent_bytes_high_water 900.0" in metrics.text()


@pytest.mark.usefixtures("restored_logging")
def test_json_lines_carry_facts_and_nothing_private(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    secret = "the user's words"
    log = structlog.get_logger("test")
    log.debug("unseen")
    log.info("request done", status=200, prompt=secret, messages=[secret])
    try:
        raise RuntimeError("broken")
    except RuntimeError:
        log.exception("sink failed")
    logging.getLogger("library").warning("from a library")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["event"] for line in lines] == ["request done", "sink failed", "from a library"]
    assert (lines[0]["status"], lines[0]["prompt"]) == (200, "[not logged]")
    assert lines[0]["timestamp"].endswith("Z")
    assert "RuntimeError" in json.dumps(lines[1]["exception"])
    assert secret not in json.dumps(lines)


@pytest.mark.usefixtures("restored_logging")
def test_a_password_in_a_url_is_not_logged(capsys: pytest.CaptureFixture[str]) -> None:
    configure("info", "json")
    structlog.get_logger("balancer.test").info(
        "store at redis://me:hunter2@host/0", url="postgresql://:hunter2@host:5/db?x=a@b"
    )
    line = json.loads(capsys.readouterr().err)
    assert line["event"] == "store at redis://[not logged]@host/0"
    assert line["url"] == "postgresql://[not logged]@host:5/db?x=a@b"


@pytest.mark.usefixtures("restored_logging")
@pytest.mark.parametrize("log_format", ["console", "json"])
def test_what_others_wrote_begins_no_line_and_commands_no_terminal(
    capsys: pytest.CaptureFixture[str], log_format: LogFormat
) -> None:
    configure("info", log_format)
    hostile = "\x1b[2Jone\ninfo two\u2028three\u202e"
    structlog.get_logger("test").info("message dropped", reason=hostile, names=[hostile])
    logging.getLogger("library").warning("a library says %s", hostile)
    lines = capsys.readouterr().err.split("\n")
    assert len(lines) == 3
    assert all(line.isprintable() for line in lines)


@pytest.mark.usefixtures("restored_logging")
def test_console_lines_show_no_local_variables(capsys: pytest.CaptureFixture[str]) -> None:
    configure("warning", "console")
    secret = "the user's words"
    log = structlog.get_logger("test")
    try:
        raise RuntimeError(f"broken: {len(secret)}")
    except RuntimeError:
        log.exception("sink failed")
    shown = capsys.readouterr().err
    assert "sink failed" in shown
    assert "RuntimeError" in shown
    assert secret not in shown


def test_every_error_says_status_type_and_code() -> None:
    def leaves(kind: type[BalancerError]) -> list[type[BalancerError]]:
        below = kind.__subclasses__()
        return [leaf for sub in below for leaf in leaves(sub)] if below else [kind]

    for leaf in leaves(BalancerError):
        error = leaf("do something else")
        assert 400 <= error.status < 600
        assert error.type
        assert error.code
        assert error.message == str(error)


def test_an_error_keeps_its_facts() -> None:
    error = InvalidRequest(
        "use 0..2", code="invalid_value", param="temperature", details={"received_value": 3.5}
    )
    assert (error.param, error.details, error.retry_after_s) == (
        "temperature",
        {"received_value": 3.5},
        None,
    )


@pytest.mark.usefixtures("restored_logging")
def test_a_level_that_is_changed_binds_loggers_that_were_used_before(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("warning", "json")
    log = structlog.get_logger("balancer.test")
    log.info("unheard")
    log.warning("heard")
    set_level("debug")
    log.debug("heard, too")
    set_level("error")
    log.warning("unheard again")
    log.error("an error is heard")
    assert level_now() == "error"
    events = [json.loads(line)["event"] for line in capsys.readouterr().err.splitlines()]
    assert events == ["heard", "heard, too", "an error is heard"]


@pytest.mark.usefixtures("restored_logging")
def test_no_level_hides_what_is_written_of_who_changes_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    configure("info", "json")
    monkeypatch.setattr(audit, "log", structlog.get_logger(audit.__name__))
    written, log = audit.Audit(), structlog.get_logger("test")
    levels: list[LogLevel] = ["info", "error"]
    for level in levels:
        set_level(level)
        written.note("log_level.set", None, target=level)
        log.info("another line", target=f"at {level}")
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [one["target"] for one in lines] == ["info", "at info", "error"]


@pytest.mark.usefixtures("restored_logging")
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_what_looks_like_a_credential_is_in_no_line(
    capsys: pytest.CaptureFixture[str], log_format: LogFormat
) -> None:
    ring = LogRing()
    configure("debug", log_format, ring)
    log = structlog.get_logger("test")
    word = "qzcanaryqz"
    texts = [f"Authorization: Bearer {word}", f"pk_{word}", f"/x?api_key={word}", f"://a:{word}@b"]
    log.info("request", client=texts[0], problems=texts, nested={"one": ({"two": [texts[1]]},)})
    for text in texts:
        logging.getLogger("library").error("it said %s", text)
        try:
            raise RuntimeError(text)
        except RuntimeError:
            log.exception("handler failed")
            logging.getLogger("library").exception("too")
    written = capsys.readouterr().err
    assert written.count("RuntimeError") == 8
    assert word not in written
    kept, _ = ring.since(0)
    assert len(kept) == 13
    assert word not in repr(kept)


@pytest.mark.usefixtures("restored_logging")
def test_a_line_that_cannot_be_written_is_not_written_otherwise(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure("info", "json")
    prompt = "qzcanaryqz"
    structlog.get_logger("test").info("content", asked=prompt, unwritable={object(): prompt})
    written = capsys.readouterr().err
    assert written.startswith("a line of the log is lost\nTraceback")
    assert prompt not in written


@pytest.mark.usefixtures("restored_logging")
@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_traceback_has_nothing_that_its_error_quotes(
    capsys: pytest.CaptureFixture[str], log_format: LogFormat
) -> None:
    configure("info", log_format)
    prompt = "qzcanaryqz"
    try:
        float(prompt)
    except ValueError:
        structlog.get_logger("test").exception("handler failed")
        logging.getLogger("library").exception("too")
    written = capsys.readouterr().err
    assert written.count("could not convert string to float: '...'") == 2
    assert prompt not in written
