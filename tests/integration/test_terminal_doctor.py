"""`paddler-py doctor` beside a balancer: what it finds, what it leaves unsaid, how it ends."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aiohttp.web import Application, Response, TCPSite, get
from aiohttp.web_runner import AppRunner
from click.testing import CliRunner
from msgspec import structs

from balancer.access import Auth
from balancer.config_file.configuration import Configuration
from balancer.config_file.load import Sources
from balancer.terminal.doctor.client import CannotReach
from balancer.terminal.doctor.command import diagnosis, doctor
from balancer.terminal.doctor.findings import problem
from balancer.terminal.doctor.patient import Wishes
from balancer.terminal.doctor.report import Section, is_well
from balancer.terminal.doctor.table import CHECKS
from balancer.terminal.trust import trust_of
from protocol.agent_status import AgentStatus, Issue
from protocol.to_agent import GenerateTokens
from protocol.to_balancer import Register
from tests.support.authority import Authority
from tests.support.cluster import free_port
from tests.support.fake_agent import FakeAgent
from tests.support.keys import ADMIN, SYSTEM, USER, auth, bearer, credential, unlimited
from tests.support.running_balancer import RunningBalancer, running_balancer

ALICE, BOB = "alice-key", "bob-key"
TENANTS = (ALICE, BOB)


class CachingAgent(FakeAgent):
    """Has what it has seen cached, a token a character, within a scope, or for everybody."""

    heeds_scopes = True

    def __init__(self, port: int, **more: Any) -> None:
        super().__init__(port, token=SYSTEM, **more)
        self._seen: set[tuple[str, object]] = set()
        self._cached: dict[str, int] = {}

    def prompt_tokens(self, request: GenerateTokens) -> tuple[int, int]:
        tokens = len(str(request.prompt))
        if request.trace_id not in self._cached:
            key = request.cache_scope if self.heeds_scopes else "", request.prompt
            self._cached[request.trace_id] = tokens - 1 if key in self._seen else 0
            self._seen.add(key)
        return tokens, self._cached[request.trace_id]


class CarelessAgent(CachingAgent):
    """One that does not know of scopes."""

    heeds_scopes = False


class SickAgent(FakeAgent):
    """Old, with a wrong clock, and something is the matter with it."""

    def introduction(self) -> Register:
        return structs.replace(super().introduction(), version="0.0.9", llama_cpp_version="0.3.1")

    def status(self) -> AgentStatus:
        issue = Issue(code="gpu_hot", message="the GPU is hot; cool it\x1b[2J", severity="warning")
        return structs.replace(super().status(), issues=(issue,), clock_s=time.time() - 3600)


@pytest.fixture
async def balancer() -> AsyncIterator[RunningBalancer]:
    given = auth(credential(ALICE), credential(BOB)).api_keys
    bound = [structs.replace(one, classes=("agents",)) for one in given if one.role == "system"]
    keys = Auth(api_keys=(*bound, *(one for one in given if one.role != "system")))
    async with running_balancer(auth=keys, limits=unlimited()) as balancer:
        yield balancer


async def examine(
    balancer: RunningBalancer,
    key: str = "",
    *,
    tenants: bool = False,
    trust: ssl.SSLContext | None = None,
) -> list[Section]:
    """What is found of a balancer."""
    wishes = Wishes(inference=balancer.url, tenant_keys=TENANTS if tenants else ())
    return await diagnosis(balancer.management_url, key, trust or trust_of(None), wishes)


async def findings(
    balancer: RunningBalancer, key: str = "", **more: Any
) -> tuple[dict[str, list[tuple[str, str]]], bool]:
    """Verdicts and texts by check, and whether all is well."""
    sections = await examine(balancer, key, **more)
    found: dict[str, list[tuple[str, str]]] = {}
    for part in sections:
        found[part.name] = [(one.verdict, one.what) for one in part.findings]
    return found, is_well(sections)


def verdicts(found: list[tuple[str, str]]) -> set[str]:
    return {verdict for verdict, _ in found}


async def test_a_well_balancer_is_found_well_and_no_key_is_shown(
    balancer: RunningBalancer,
) -> None:
    async with CachingAgent(balancer.management_port):
        sections = await examine(balancer, ADMIN, tenants=True)
    assert is_well(sections), sections
    assert [part.name for part in sections] == [check.name for check in CHECKS]
    found = {part.name: {one.verdict for one in part.findings} for part in sections}
    for name in ("access", "ports", "agents", "TLS", "isolation"):
        assert found[name] == {"ok"}, name
    for key in (ADMIN, ALICE, BOB, SYSTEM):
        assert key not in repr(sections)


async def test_agents_keys_that_could_do_more_are_named(tmp_path: Path) -> None:
    bound = credential("bound", role="system", classes=("agents",))
    async with running_balancer(auth=auth(bound), data_dir=str(tmp_path)) as balancer:
        url, headers = f"{balancer.management_url}/keys", bearer(ADMIN)
        for name, more in (("gpu-1", {}), ("gpu-2", {"routes": ["agents"]}), ("gone", {})):
            wanted = {"name": name, "role": "system", **more}
            async with balancer.session.post(url, json=wanted, headers=headers) as answer:
                assert answer.status == 201
        async with balancer.session.delete(f"{url}/gone", headers=headers):
            pass
        found, _ = await findings(balancer, ADMIN)
    assert [verdict for verdict, _ in found["access"]] == ["ok", "warning"]
    assert found["access"][1][1].endswith(f"all that an admin may: {SYSTEM}, gpu-1")


@pytest.mark.parametrize(
    ("agent_kind", "mode", "verdict"),
    [
        (CachingAgent, "off", "warning"),
        (CarelessAgent, "auto", "problem"),
        (CarelessAgent, "off", "warning"),
    ],
)
async def test_a_cache_that_tenants_share_is_a_problem_unless_it_is_set_so(
    agent_kind: type[CachingAgent], mode: Any, verdict: str
) -> None:
    keys = auth(credential(ALICE), credential(BOB))
    async with (
        running_balancer(auth=keys, limits=unlimited(), cache_isolation=mode) as balancer,
        agent_kind(balancer.management_port),
    ):
        found, well = await findings(balancer, ADMIN, tenants=True)
    assert verdicts(found["isolation"]) == {verdict}
    assert well == (verdict != "problem")


@pytest.mark.parametrize(
    ("of_bob", "verdict", "words"),
    [
        (("second",), "ok", "not there for another one"),
        (("third",), "not_checked", "the two keys are for different models"),
    ],
)
async def test_tenants_are_compared_by_a_model_that_both_may_use(
    of_bob: tuple[str, ...], verdict: str, words: str
) -> None:
    keys = auth(credential(ALICE, models=("first", "second")), credential(BOB, models=of_bob))
    async with (
        running_balancer(auth=keys, limits=unlimited()) as balancer,
        CachingAgent(balancer.management_port, name="one", model="first"),
        CachingAgent(balancer.management_port, name="two", model="second"),
        CachingAgent(balancer.management_port, name="three", model="third"),
    ):
        found, _ = await findings(balancer, ADMIN, tenants=True)
    assert verdicts(found["isolation"]) == {verdict}
    assert words in found["isolation"][0][1]


async def test_without_credentials_all_are_one_tenant_and_no_keys_are_made() -> None:
    async with running_balancer() as balancer, FakeAgent(balancer.management_port):
        found, well = await findings(balancer)
        assert balancer.app.wiring.gate.is_open
    [(verdict, what)] = found["isolation"]
    assert (verdict, well) == ("not_checked", True)
    assert "one tenant" in what


@pytest.mark.parametrize("key", ["", USER, "nobody's"])
async def test_who_may_not_ask_is_told_so_once(balancer: RunningBalancer, key: str) -> None:
    found, well = await findings(balancer, key)
    assert not well
    assert verdicts(found.pop("access")) == {"problem"}
    assert not any("problem" in verdicts(rest) for rest in found.values())


async def test_a_sick_agent_is_told_of_with_all_that_ails_it() -> None:
    async with running_balancer() as balancer, SickAgent(balancer.management_port):
        found, well = await findings(balancer)
    assert not well
    assert ("warning", "one: the GPU is hot; cool it\x1b[2J") in found["agents"]
    assert ("problem", "one: 3600 s behind the balancer's clock") in found["clocks"]
    assert ("warning", "one is 0.0.9, older than the balancer") in found["versions"]


@pytest.mark.parametrize(("days", "verdict"), [(60, "ok"), (3, "warning")])
async def test_a_certificate_that_ends_soon_is_told_of(
    authority: Authority, days: int, verdict: str
) -> None:
    ends = datetime.now(UTC) + timedelta(days=days)
    certificate, key = authority.issue(f"good for {days} days", ends=ends)
    trust = authority.trust()
    async with running_balancer(
        tls_certificate=str(certificate), tls_key=str(key), trust=trust
    ) as balancer:
        found, _ = await findings(balancer, trust=trust)
        with pytest.raises(CannotReach, match="certificate"):
            await findings(balancer)
    assert verdicts(found["TLS"]) == {verdict}
    assert ("ok", f"{key}: its owner's alone") in found["files"]


async def test_a_balancer_without_agents_has_a_problem() -> None:
    async with running_balancer() as balancer:
        found, well = await findings(balancer)
    assert not well
    assert verdicts(found["agents"]) == {"problem"}


async def test_a_wrong_file_and_files_that_others_may_read_are_told_of(tmp_path: Path) -> None:
    file, data = tmp_path / "paddler.yaml", tmp_path / "data"
    file.write_text(
        f"inference: 127.0.0.1:{free_port()}\nmanagement: 127.0.0.1:{free_port()}\n"
        f"data_dir: {data}\n"
    )
    file.chmod(0o644)
    async with (
        running_balancer(configuration=Configuration(Sources(config=file))) as balancer,
        FakeAgent(balancer.management_port),
    ):
        (data / "kept.sqlite").write_bytes(b"")
        (data / "kept.sqlite").chmod(0o644)
        data.chmod(0o755)
        with file.open("a") as more:
            more.write("queue_timeout_s: -1\n")
        found, well = await findings(balancer)
    assert not well
    assert any("queue_timeout_s" in what for _, what in found["configuration"])
    assert ("problem", f"{data / 'kept.sqlite'}: others may read what is stored") in found["files"]
    assert "warning" in verdicts(found["files"])


async def test_what_is_no_balancer_cannot_be_examined() -> None:
    async with _a_website() as url:
        with pytest.raises(CannotReach, match="no balancer"):
            await diagnosis(url, "", trust_of(None), Wishes())


async def test_answers_without_sense_are_problems_and_end_nothing() -> None:
    nonsense: list[Any] = [
        {"status": 1, "settings": {"inference": "x:99999"}, "data": [{"slots": 5, "issues": 3}]},
        {"status": [], "settings": [], "data": 5, "files": 7, "timestamp": 9, "error": 3},
        {"error": {"message": {}}, "settings": {"data_dir": 3}, "data": [1], "files": [{}]},
    ]
    for answer in nonsense:
        async with _a_website(json.dumps(answer)) as url:
            sections = await diagnosis(url, "", trust_of(None), Wishes())
        assert [part.name for part in sections] == [check.name for check in CHECKS]


def test_the_command_ends_with_what_it_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: list[tuple[Any, ...]] = []
    sections = [Section("agents", (problem("none", "start one"),))]

    async def found(*asked: Any) -> list[Section]:
        given.append(asked)
        return sections

    monkeypatch.setattr("balancer.terminal.doctor.command.diagnosis", found)
    (tmp_path / "key").write_text(f"{ADMIN}\n")
    runner = CliRunner(env={"PADDLER_CONFIG": None})
    result = runner.invoke(doctor, ["--url", "host:1", "--key-file", str(tmp_path / "key")])
    assert (result.exit_code, given[0][:2]) == (1, ("http://host:1", ADMIN))
    assert "problem" in result.output
    assert "-> start one" in result.output
    sections.clear()
    result = runner.invoke(doctor, ["--json"], env={"PADDLER_API_KEY": ADMIN})
    assert (result.exit_code, given[1][1]) == (0, ADMIN)
    assert json.loads(result.output) == {"url": "http://127.0.0.1:8081", "well": True, "checks": []}


def test_where_nobody_answers_it_ends_with_another_code(tmp_path: Path) -> None:
    runner = CliRunner(env={"PADDLER_CONFIG": None})
    nobody = runner.invoke(doctor, ["--url", f"127.0.0.1:{free_port()}"])
    assert nobody.exit_code == 2
    none = str(tmp_path / "none")
    hidden = runner.invoke(doctor, ["--url", "http://me:hidden@host"])
    assert hidden.exit_code == 2
    assert "hidden" not in hidden.output
    for wrong in (("--tenant-key", "one"), ("--key-file", none), ("--ca-file", none)):
        result = runner.invoke(doctor, wrong)
        assert result.exit_code == 2
        assert wrong[0] in result.output


@asynccontextmanager
async def _a_website(text: str = "<html>hello</html>") -> AsyncIterator[str]:
    async def page(_: object) -> Response:
        return Response(text=text)

    app, port = Application(), free_port()
    app.add_routes([get("/{path:.*}", page)])
    runner = AppRunner(app)
    await runner.setup()
    await TCPSite(runner, "127.0.0.1", port).start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await runner.cleanup()
