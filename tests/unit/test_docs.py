"""The reference tells the truth: what the code has, it names; what it links to, exists."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

import paddler_py
from agent.cli import agent as agent_command
from balancer.cli import balancer as balancer_command
from balancer.config_file.rules import RULES
from balancer.http.router import Route
from balancer.http.routes import ROUTES
from balancer.observability.metrics import Metrics
from balancer.settings import Settings
from protocol import to_agent, to_balancer
from protocol.refusals import CONSEQUENCES

PROJECT = Path(__file__).parents[2]
DOCS = PROJECT / "docs"
PAGES = [*DOCS.rglob("*.md"), PROJECT / "README.md", PROJECT / "CONTRIBUTING.md"]


def _page(name: str) -> str:
    return (DOCS / name).read_text()


@pytest.mark.parametrize("key", Settings.__struct_fields__)
def test_every_setting_of_the_balancer_is_described(key: str) -> None:
    assert f"`{key}`" in _page("reference/settings.md")


def test_what_takes_a_restart_is_listed_and_nothing_else() -> None:
    section = _page("reference/settings.md").partition("### What takes a restart\n\n")[2]
    listed = re.findall(r"`(\w+)`", section.partition(".")[0])
    assert listed == [name for name, rule in RULES.items() if not rule.is_live]


@pytest.mark.parametrize(
    "flag",
    sorted(
        {
            option
            for command in (agent_command, balancer_command)
            for parameter in command.params
            for option in parameter.opts
            if option.startswith("--") and option not in {"--help", "--config"}
        }
    ),
)
def test_every_flag_is_described(flag: str) -> None:
    assert flag in _page("reference/settings.md")


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_is_described(route: Route) -> None:
    assert route.path in _page("reference/api.md")


def test_every_series_is_described() -> None:
    page = _page("reference/metrics.md")
    families = {family.name for family in Metrics().registry.collect()}
    assert {name for name in families if f"`{name}" not in page} == set()


@pytest.mark.parametrize("method", [*to_agent.METHODS, *to_balancer.METHODS])
def test_every_message_of_the_link_is_described(method: str) -> None:
    assert f"`{method}`" in _page("agent-link.md")


def test_every_code_that_clients_see_is_described() -> None:
    page = _page("reference/api.md")
    codes = {row.client_code for row in CONSEQUENCES.values() if row.client_code}
    assert {code for code in codes if code not in page} == set()


def test_every_attempt_of_the_threat_model_is_a_test_and_every_test_is_named_there() -> None:
    page = _page("guides/security.md")
    files = sorted((PROJECT / "tests/integration").glob("test_hostile_*.py"))
    tests = [name for file in files for name in re.findall(r"def (test_\w+)", file.read_text())]
    listed = re.findall(r"^\| (\d+) \| `(test_\w+)`", page, re.MULTILINE)
    assert sorted(name for _, name in listed) == sorted(tests)
    assert [int(number) for number, _ in listed] == list(range(1, len(listed) + 1))
    told = page.partition("## Attempts")[0]
    assert set(re.findall(r"\[(\d+)\]", told)) == {number for number, _ in listed}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_of_a_page_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)\)", page.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_picture_of_a_page_is_there(page: Path) -> None:
    named = re.findall(r'\b(?:src|srcset)="([^"]+)"', page.read_text())
    assert [name for name in named if not (page.parent / name).exists()] == []


def test_the_dashboard_s_pictures_are_all_shown_and_small() -> None:
    pictures = [*(DOCS / "images" / "dashboard").iterdir()]
    guide = _page("guides/dashboard.md")
    assert len(pictures) == 30
    assert [one.name for one in pictures if one.name not in guide] == []
    assert sum(one.stat().st_size for one in pictures) < 1_500_000


def test_every_package_of_the_architecture_exists() -> None:
    house = re.search(r"## The house\n\n```\n(.*?)```", _page("architecture.md"), re.DOTALL)
    assert house is not None
    tops = re.findall(r"^([a-z_]+)/", house[1], re.MULTILINE)
    assert {name for name in tops if not (PROJECT / name).is_dir()} == set()


def test_the_version_is_the_same_everywhere() -> None:
    pyproject = (PROJECT / "pyproject.toml").read_text()
    assert f'version = "{paddler_py.VERSION}"' in pyproject


def test_make_help_lists_what_the_readme_promises() -> None:
    done = subprocess.run(
        ["make", "-s", "-C", str(PROJECT), "help"], capture_output=True, text=True, check=True
    )
    for target in ("demo", "test", "check", "bench", "clean"):
        assert re.search(rf"^{target}\b", done.stdout, re.MULTILINE)
