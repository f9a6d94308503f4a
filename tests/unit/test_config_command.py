"""`paddler-py config`: what it prints, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

import paddler_py
from balancer.config_file.json_schema import json_schema


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "paddler.yaml"
    path.write_text("# ours\nmax_waiting: 12\n")
    return path


def run(*arguments: str | Path, **variables: str) -> Result:
    return CliRunner().invoke(paddler_py.main, ["config", *map(str, arguments)], env=variables)


def test_a_good_file_is_told_so(file: Path) -> None:
    result = run("check", file)
    assert (result.exit_code, result.output) == (0, f"{file}: can be used\n")
    assert json.loads(run("check", file, "--json").output) == {"valid": True, "errors": []}


def test_a_broken_file_ends_with_2_and_a_line_for_each_fault(file: Path) -> None:
    file.write_text("max_waiting: many\nmax_wating: 1\n")
    result = run("check", file)
    assert result.exit_code == 2
    assert result.output.splitlines() == [
        f"max_waiting: 'many' cannot be used (from {file}, line 1); "
        "allowed: a whole number 0..1000000",
        f"max_wating: this is no setting (from {file}, line 2); did you mean max_waiting?",
    ]


def test_programs_are_told_the_same(file: Path) -> None:
    file.write_text("max_waiting: many\n")
    result = run("check", file, "--json")
    assert result.exit_code == 2
    (error,) = json.loads(result.output)["errors"]
    assert (error["field"], error["line"], error["source"]) == ("max_waiting", 1, str(file))
    assert error["remedy"] == "allowed: a whole number 0..1000000"


def test_only_the_file_and_its_overlay_are_checked(file: Path) -> None:
    file.with_name(".env").write_text("PADDLER_POLICY=fastest\n")
    assert run("check", file, PADDLER_POLICY="fastest").exit_code == 0
    file.with_name("paddler.test.yaml").write_text("policy: fastest\n")
    assert run("check", file, "--environment", "test").exit_code == 2


def test_the_file_may_be_named_in_either_way(file: Path) -> None:
    file.write_text("heartbeat_misses: 7\n")
    shown = run("show", file).output
    assert f"{file}, line 1" in shown
    assert run("show", "--config", file).output == shown
    assert run("show", PADDLER_CONFIG=str(file)).output == shown
    assert run("check", PADDLER_CONFIG=str(file)).output == f"{file}: can be used\n"


def test_show_prints_every_setting_with_its_origin(file: Path) -> None:
    file.with_name(".env").write_text("PADDLER_HEARTBEAT_MISSES=4\n")
    result = run("show", "--config", file, PADDLER_POLICY="latency")
    rows = {line.split()[0]: line.split()[1:] for line in result.output.splitlines()}
    assert rows["max_waiting"] == ["12", f"{file},", "line", "2"]
    assert rows["policy"] == ["latency", "PADDLER_POLICY"]
    assert rows["heartbeat_misses"][0] == "4"
    assert rows["inference"] == ["127.0.0.1:8080", "default"]
    assert rows["allowed_hosts"] == ["[]", "default"]
    assert rows["data_dir"] == ['""', "default"]


def test_show_is_also_for_programs(file: Path) -> None:
    value = json.loads(run("show", "--config", file, "--json").output)
    row = next(row for row in value["settings"] if row["name"] == "max_waiting")
    assert row == {
        "name": "max_waiting",
        "value": 12,
        "origin": f"{file}, line 2",
        "origin_kind": "file",
        "line": 2,
    }


def test_show_refuses_what_a_start_would_refuse(file: Path) -> None:
    result = run("show", "--config", file, PADDLER_MAX_WATING="1")
    assert result.exit_code == 2
    assert "did you mean PADDLER_MAX_WAITING?" in result.output


def test_schema_prints_the_schema() -> None:
    assert json.loads(run("schema").output) == json_schema()
