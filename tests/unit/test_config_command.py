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


def test_keys_are_taken_from_variables_and_shown_to_nobody(file: Path) -> None:
    kept = file.with_name("key")
    kept.write_text("key-of-a-file\n")
    file.write_text(
        "auth:\n  api_keys:\n    - plain-key\n    - {env: TEAM_KEY, name: team}\n"
        f"    - {{file: {kept}, role: admin}}\n"
    )
    assert run("check", file).exit_code == 0  # without its variables
    missing = run("show", file)
    assert missing.exit_code == 2
    assert "auth.api_keys[1].env: there is no variable TEAM_KEY" in missing.output
    result = run("show", file, "--json", TEAM_KEY="key-of-a-variable")
    shown = {row["name"]: row["value"] for row in json.loads(result.output)["settings"]}
    assert shown["auth"]["api_keys"] == [
        {"name": "configured-1", "key": "***", "role": "user"},
        {"name": "team", "key": "***", "role": "user"},
        {"name": "configured-3", "key": "***", "role": "admin"},
    ]
    for key in ("plain-key", "key-of-a-variable", "key-of-a-file"):
        assert key not in result.output
    assert "…" in run("show", file, TEAM_KEY="x").output  # the table has the beginning


def test_a_section_may_be_a_variable_as_json() -> None:
    result = run("show", "--json", PADDLER_AUTH='{"api_keys": ["a-key"]}')
    shown = {row["name"]: row for row in json.loads(result.output)["settings"]}
    assert shown["auth"]["origin"] == "PADDLER_AUTH"
    assert shown["auth"]["value"]["api_keys"] == [
        {"name": "configured-1", "key": "***", "role": "user"}
    ]
    broken = run("show", PADDLER_AUTH="[")
    assert (broken.exit_code, "as {}" in broken.output) == (2, True)


def test_no_message_about_a_key_holds_it(file: Path) -> None:
    for keys in ("[a secret]", "[{key: a secret}]", "[{key: [a secret]}]", "[{key: x, name: a b}]"):
        file.write_text(f"auth:\n  api_keys: {keys}\n")
        result = run("check", file)
        assert result.exit_code == 2
        assert "secret" not in result.output
