"""A setting that is a secret: used, compared, and nowhere shown."""

from __future__ import annotations

import json
import traceback
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from balancer.config_command import config
from balancer.config_file.configuration import Configuration
from balancer.config_file.faults import FaultyConfiguration
from balancer.config_file.json_schema import json_schema
from balancer.config_file.load import Sources
from balancer.config_file.parsing import SECRET
from balancer.config_file.rules import RULES, Rule, written
from balancer.settings import Secret
from tests.support.running_balancer import running_balancer

KEY = "sk-hunter2"
OTHER = "sk-hunter3"


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Settings in which `data_dir` and `record_routes` stand for two secrets, one of them live."""
    for name, is_live in (("data_dir", False), ("record_routes", True)):
        rule = Rule(kind=SECRET, what="a key", is_live=is_live)
        monkeypatch.setitem(RULES, name, rule)
    path = tmp_path / "paddler.yaml"
    path.write_text("")
    return path


def write(file: Path, settings: str) -> None:
    file.write_text(settings)


def test_a_secret_is_told_to_who_asks_for_it_and_printed_by_nobody() -> None:
    secret = Secret(KEY)
    assert secret.reveal() == KEY
    for shown in (str(secret), repr(secret), f"{secret}", repr([secret]), written(secret)):
        assert "hunter" not in shown
    assert (secret == Secret(KEY), secret == Secret(OTHER), secret == KEY) == (True, False, False)
    assert len({secret, Secret(KEY)}) == 1
    assert (bool(secret), bool(Secret("")), str(Secret(""))) == (True, False, "[no secret]")


async def test_neither_the_api_nor_the_log_nor_a_reload_shows_it(
    file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    configuration = Configuration(Sources(config=file))
    async with running_balancer(configuration=configuration) as balancer:

        async def reloaded(settings: str) -> Any:
            write(file, settings)
            await balancer.session.post(f"{balancer.management_url}/config/reload")
            return configuration.last

        changed = await reloaded(f"record_routes: {KEY}\n")
        assert [change.name for change in changed.changes] == ["record_routes"]
        assert configuration.live.current.record_routes == Secret(KEY)
        refused = await reloaded(f"record_routes: {OTHER}\ndata_dir: {KEY}\n")
        assert refused.restart_needed == ("data_dir",)
        told = [str(changed), str(refused)]
        for path in ("/config", "/config/status"):
            told.append(json.dumps(await balancer.get_json(balancer.management_url + path)))
    told += capsys.readouterr()
    assert [text for text in told if "hunter" in text] == []
    assert "[secret]" in told[2]


@pytest.mark.parametrize("wrong", [f'"{KEY}\\n"', f"[{KEY}]", f"{{{KEY}: 1}}", KEY * 1000])
def test_one_that_cannot_be_used_is_not_quoted(file: Path, wrong: str) -> None:
    file.write_text(f"record_routes: {wrong}\n")
    with pytest.raises(FaultyConfiguration, match="record_routes: this value cannot be") as caught:
        Configuration(Sources(config=file))
    assert "hunter" not in "".join(traceback.format_exception(caught.value))


def test_the_command_line_shows_whether_there_is_one(file: Path) -> None:
    file.write_text(f"record_routes: {KEY}\n")
    for arguments in (["show", "--config", str(file)], ["show", "--json", "--config", str(file)]):
        printed = CliRunner().invoke(config, arguments).output
        assert ("[secret]" in printed, "hunter" in printed) == (True, False)
    assert json_schema()["properties"]["record_routes"]["writeOnly"]
