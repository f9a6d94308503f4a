"""The audit log: what a line has, and what becomes of lines when the disk does not take them."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import structlog
from msgspec import Struct

from balancer.access import SignIn
from balancer.errors import InvalidRequest, SettingError, StoreUnavailable
from balancer.observability import audit_file
from balancer.observability.audit import MOST_REFUSALS, Audit
from balancer.observability.audit_file import AuditFile
from balancer.policy.identity.principal import Principal
from balancer.settings import LiveSettings, Settings

AT_S = 1_700_000_000.25


class Asking(Struct, frozen=True):
    """A caller, as an exchange or a call over a socket is one."""

    id: str = "req_1"
    principal: Principal = Principal(tenant="team", role="admin", id="operators")
    signed_in_by: SignIn = "session"
    address: str = "10.0.0.7"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.jsonl"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.002)


def test_a_line_says_who_did_what_when_and_from_where(path: Path) -> None:
    audit = Audit(path, wall_clock=lambda: AT_S)
    audit.note("agent.drain", Asking(), target="gpu0", deadline_s=5, agents=["a", "b"])
    audit.note("config.reload", None, outcome="refused", trigger="file")
    audit.close()
    drained, reloaded = lines(path)
    assert drained == {
        "at": "2023-11-14T22:13:20.250Z",
        "action": "agent.drain",
        "outcome": "done",
        "target": "gpu0",
        "who": {"key": "operators", "role": "admin", "tenant": "team", "method": "session"},
        "from": "10.0.0.7",
        "request_id": "req_1",
        "facts": {"deadline_s": 5, "agents": ["a", "b"]},
    }
    assert (reloaded["who"], reloaded["from"], reloaded["outcome"]) == (None, None, "refused")


@pytest.mark.parametrize(
    ("error", "outcome", "reason"),
    [
        (InvalidRequest("no", code="invalid_type"), "refused", "invalid_type"),
        (StoreUnavailable("no"), "failed", "store_unavailable"),
        (KeyError("what somebody wrote"), "failed", "KeyError"),
    ],
)
def test_what_does_not_succeed_is_noted_with_its_reason(
    path: Path, error: Exception, outcome: str, reason: str
) -> None:
    audit = Audit(path)
    with pytest.raises(type(error)), audit.noting("key.create", Asking()):
        raise error
    audit.close()
    (line,) = lines(path)
    assert (line["outcome"], line["facts"]) == (outcome, {"reason": reason})


HOSTILE = 'gpu"}\n{"at": "now"}\r\x1b[2J\u2028\u202e\x9b31m\ud800'


def test_no_name_begins_a_line_of_its_own_or_colours_a_terminal(path: Path) -> None:
    audit = Audit(path)
    asking = Asking(address=HOSTILE, id=HOSTILE)
    audit.note("agent.refused", asking, target=HOSTILE, why=HOSTILE, names=[HOSTILE])
    audit.close()
    data = path.read_bytes()
    assert data.count(b"\n") == 1
    assert all(0x20 <= byte < 0x7F for byte in data[:-1])
    (line,) = lines(path)
    assert line["target"] == HOSTILE[:-1] + "?"


def test_a_line_is_short_and_has_no_credential_that_a_name_repeats(path: Path) -> None:
    audit = Audit(path)
    facts: dict[str, Any] = {f"fact {number}": "x" * 5000 for number in range(100)}
    target = "Bearer abcdef123456 pk_0123456789abcdef eyJhbGciOi.eyJzdWIi.sig"
    audit.note("request.cancel", Asking(), target=target, **facts, many=["y" * 5000] * 500)
    audit.close()
    assert path.stat().st_size < 20_000
    (line,) = lines(path)
    assert not any(one in line["target"] for one in ("abcdef", "0123", "eyJ"))


@pytest.mark.parametrize("action", ["credentials.refused", "session.open"])
def test_strangers_cannot_fill_the_disk(path: Path, action: str) -> None:
    clock = [AT_S]
    audit = Audit(path, wall_clock=lambda: clock[0])
    for _ in range(MOST_REFUSALS + 40):
        audit.note(action, Asking(), outcome="refused")
    for done in ("agent.drain", "session.open"):
        audit.note(done, Asking(), target="an operator's are all written")
    clock[0] += 61
    audit.note(action, Asking(), outcome="refused")
    audit.close()
    found = lines(path)
    assert len(found) == MOST_REFUSALS + 3
    assert found[-1]["facts"] == {"left_out": 40}


def test_the_file_is_for_its_owner_alone_and_is_appended_to(path: Path) -> None:
    path.write_text('{"action": "before"}\n')
    path.chmod(0o644)
    for _ in range(2):
        audit = Audit(path)
        audit.note("agent.join", Asking())
        audit.close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [line["action"] for line in lines(path)] == ["before", "agent.join", "agent.join"]


def test_so_many_files_of_so_many_bytes_are_kept(path: Path) -> None:
    audit = Audit(path, bounds=lambda: (1000, 3))
    for number in range(40):
        audit.note("agent.join", Asking(), target=f"agent-{number}")
    audit.close()
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["audit.jsonl", "audit.jsonl.1", "audit.jsonl.2"]
    assert all(file.stat().st_size <= 1000 for file in files)
    newest_first = [line["target"] for file in files for line in reversed(lines(file))]
    assert newest_first == [f"agent-{39 - number}" for number in range(len(newest_first))]


def test_one_file_alone_may_be_kept(path: Path) -> None:
    audit = Audit(path, bounds=lambda: (1000, 1))
    for number in range(40):
        audit.note("agent.join", Asking(), target=f"agent-{number}")
    audit.close()
    assert list(path.parent.iterdir()) == [path]
    assert lines(path)[-1]["target"] == "agent-39"


@pytest.mark.parametrize("is_told", [True, False])
def test_a_file_that_was_moved_away_is_followed_by_a_new_one(path: Path, *, is_told: bool) -> None:
    audit = Audit(path)
    audit.note("agent.join", Asking(), target="old")
    until(lambda: path.stat().st_size, "the first line")
    moved = path.rename(path.with_suffix(".moved"))
    if is_told:
        audit.reopen()
    audit.note("agent.join", Asking(), target="new")
    audit.close()
    assert [line["target"] for line in lines(moved)] == ["old"]
    assert [line["target"] for line in lines(path)] == ["new"]


def full(monkeypatch: pytest.MonkeyPatch, *, after_bytes: int = 10) -> Callable[[], None]:
    """A disk that takes so much of each line; returns what makes room."""
    has_room = False
    write = os.write

    def writes(file: int, data: bytes) -> int:
        return write(file, data if has_room else data[:after_bytes])

    def make_room() -> None:
        nonlocal has_room
        has_room = True

    monkeypatch.setattr(os, "write", writes)
    monkeypatch.setattr(audit_file, "TRIES_EVERY_S", 0.01)
    return make_room


def test_what_a_full_disk_did_not_take_is_written_once_there_is_room(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_room = full(monkeypatch)
    audit = Audit(path)
    with structlog.testing.capture_logs() as logs:
        for number in range(5):
            audit.note("agent.join", Asking(), target=f"agent-{number}")
        until(lambda: audit.fault, "the fault")
        assert path.read_bytes() == b""
        make_room()
        until(lambda: not audit.fault, "the recovery")
        audit.close()
    assert [line["target"] for line in lines(path)] == [f"agent-{n}" for n in range(5)]
    assert [line["event"] for line in logs] == ["audit log cannot be written"]
    assert audit.lost == 0


def test_what_does_not_fit_the_queue_is_counted_and_leaves_a_mark(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_room = full(monkeypatch)
    monkeypatch.setattr(audit_file, "MOST_QUEUED", 3)
    counted: list[int] = []
    audit = Audit(path, on_lost=counted.append)
    for number in range(10):
        audit.note("agent.join", Asking(), target=f"agent-{number}")
    assert audit.lost == sum(counted) == 7
    make_room()
    until(lambda: len(lines(path)) == 3, "the lines that waited")
    audit.note("agent.join", Asking(), target="agent-10")
    audit.close()
    *_, gap, last = found = lines(path)
    assert (gap["action"], gap["facts"]) == ("audit.lost", {"lines": 7})
    assert [line.get("target") for line in found[:3]] == ["agent-0", "agent-1", "agent-2"]
    assert last["target"] == "agent-10"


def test_a_stop_with_a_full_disk_counts_what_is_lost(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full(monkeypatch)
    audit = Audit(path)
    with structlog.testing.capture_logs() as logs:
        audit.note("agent.join", Asking())
        audit.close()
    assert audit.lost == 1
    assert logs[-1]["event"] == "audit log ends with lines unwritten"
    audit.note("agent.join", Asking())
    assert audit.lost == 2


def test_a_fault_is_told_once_a_minute(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full(monkeypatch)
    clock = [0.0]
    tries: list[float] = []

    def now() -> float:
        tries.append(clock[0])
        return clock[0]

    file = AuditFile(
        path, bounds=lambda: (1000, 2), gap=lambda _: b"", on_lost=lambda _: None, now=now
    )
    with structlog.testing.capture_logs() as logs:
        file.put(b"{}" * 20)
        until(lambda: len(tries) > 2, "some tries")
        clock[0] = 61.0
        until(lambda: len(logs) == 2, "the second word")
        file.close()


def test_without_a_file_the_log_has_it() -> None:
    with structlog.testing.capture_logs() as logs:
        audit = Audit()
        audit.note("agent.drain", Asking(), target="gpu0")
        audit.note("agent.refused", None, target="gpu1", outcome="refused")
        audit.reopen()
        audit.close()
    assert [(line["log_level"], line["target"]) for line in logs] == [
        ("info", "gpu0"),
        ("warning", "gpu1"),
    ]
    assert (audit.lost, audit.fault) == (0, "")


@pytest.mark.parametrize(
    ("settings", "found"),
    [
        (Settings(), None),
        (Settings(data_dir="DIR"), "audit.jsonl"),
        (Settings(data_dir="DIR", audit_log="-"), None),
        (Settings(audit_log="DIR/who"), "who"),
    ],
)
def test_where_it_is_written(settings: Settings, found: str | None, tmp_path: Path) -> None:
    given = {
        name: getattr(settings, name).replace("DIR", str(tmp_path))
        for name in ("data_dir", "audit_log")
    }
    audit = Audit.of(LiveSettings(Settings(**given)), on_lost=lambda _: None)
    audit.note("agent.join", None)
    audit.close()
    assert [file.name for file in tmp_path.iterdir()] == ([found] if found else [])


@pytest.mark.parametrize("name", ["", "no/such/directory", "pipe"])
def test_what_cannot_be_written_stops_the_start(tmp_path: Path, name: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    live = LiveSettings(Settings(audit_log=str(tmp_path / name)))
    with pytest.raises(SettingError, match=r"audit_log: .* cannot be written"):
        Audit.of(live, on_lost=lambda _: None)
