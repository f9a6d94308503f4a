"""`paddler-py keys`: what it prints, what it writes, and how it ends."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

import paddler_py
from balancer.config_file.stored_keys import has_stored_keys
from balancer.storage.sql_keys import FILE_NAME


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    return tmp_path / "data"


def run(*arguments: str | Path, **variables: str) -> Result:
    return CliRunner().invoke(paddler_py.main, ["keys", *map(str, arguments)], env=variables)


def run_there(data_dir: Path, *arguments: str) -> Result:
    return run(*arguments, PADDLER_DATA_DIR=str(data_dir))


def made(data_dir: Path, *arguments: str) -> Any:
    result = run_there(data_dir, *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def listed(data_dir: Path) -> list[Any]:
    rows = made(data_dir, "list")
    assert isinstance(rows, list)
    return rows


def test_the_key_alone_is_on_standard_output(data_dir: Path) -> None:
    result = run_there(data_dir, "create", "--name", "ops", "--role", "admin")
    assert result.exit_code == 0
    assert result.stdout.startswith("pk_")
    assert len(result.stdout.split()) == 1
    assert "shown this once" in result.stderr
    assert f"Kept in {data_dir / FILE_NAME}" in result.stderr
    assert "role system" in result.stderr  # the door is closed now, to agents, too
    again = run_there(data_dir, "create", "--name", "app")
    assert "role system" not in again.stderr


def test_a_key_for_agents_that_could_do_more_is_told_so(data_dir: Path) -> None:
    made(data_dir, "create", "--name", "ops", "--role", "admin")
    asked = ("create", "--role", "system", "--name")
    assert "all that an admin may" in run_there(data_dir, *asked, "gpu-1").stderr
    bound = run_there(data_dir, *asked, "gpu-2", "--route", "agents")
    assert "all that an admin may" not in bound.stderr


def test_a_key_is_made_with_all_that_may_be_said_of_it_and_never_shown_again(
    data_dir: Path,
) -> None:
    made(data_dir, "create", "--name", "ops", "--role", "admin")
    key = made(
        data_dir, "create", "--name", "app", "--tier", "pro", "--tenant", "team", "--model", "a",
        "--model", "b", "--route", "chat", "--network", "10.0.0.0/8", "--limit",
        "requests_per_minute=9", "--limit", "chat.burst=3", "--expires", "2099-01-31T00:00:00Z",
    )  # fmt: skip
    row = listed(data_dir)[1]
    assert row == {name: value for name, value in key.items() if name not in ("key", "notes")}
    assert (row["models"], row["routes"], row["networks"]) == (["a", "b"], ["chat"], ["10.0.0.0/8"])
    assert row["limits"] == {"requests_per_minute": 9, "routes": {"chat": {"burst": 3}}}
    assert (row["tier"], row["tenant"], row["expires"]) == ("pro", "team", "2099-01-31T00:00:00Z")
    of_agents = made(
        data_dir, "create", "--name", "north", "--role", "system", "--agent", "north-*",
        "--label", "room=north",
    )  # fmt: skip
    assert (of_agents["agents"], of_agents["labels"]) == (["north-*"], {"room": "north"})
    text = run_there(data_dir, "list").stdout
    assert row["id"] in text
    assert key["key"][12:] not in text + json.dumps(listed(data_dir))


def test_a_folder_that_cannot_be_looked_into_is_told_in_words(tmp_path: Path) -> None:
    unreachable = tmp_path / ("x" * 300)  # no name of a file is so long
    assert not has_stored_keys(str(unreachable))
    for command in (["list"], ["revoke", "ops"]):
        result = run_there(unreachable, *command)
        assert result.exit_code == 2
        assert "cannot be read" in result.stderr


@pytest.mark.parametrize(
    "wrong",
    [
        ("rotate", "ops", "--overlap", "nan"),
        ("create", "--name", "a", "--expires-in-days", "nan"),
        ("create", "--name", "a", "--expires", "9999-12-31T23:59:59-23:59"),
        ("create", "--name", "a", "--expires", "1969-12-31T23:59:59Z"),
    ],
)
def test_an_end_that_is_none_is_refused(data_dir: Path, wrong: tuple[str, ...]) -> None:
    made(data_dir, "create", "--name", "ops", "--role", "admin")
    result = run_there(data_dir, *wrong)
    assert result.exit_code == 2, result.output
    assert [(row["name"], row["rotated"]) for row in listed(data_dir)] == [("ops", None)]


def test_keys_are_rotated_and_revoked_by_name_or_id(data_dir: Path) -> None:
    first = made(data_dir, "create", "--name", "ops", "--role", "admin", "--expires-in-days", "9")
    second = made(data_dir, "rotate", "ops", "--overlap", "60")
    assert second["id"] == first["id"]
    assert second["key"] != first["key"]
    assert second["previous"]["prefix"] == first["prefix"]
    plain = run_there(data_dir, "rotate", "ops")
    assert plain.stdout.startswith("pk_")
    assert "the one before" in plain.stderr
    assert made(data_dir, "revoke", first["id"])["state"] == "revoked"
    now = run_there(data_dir, "list")
    assert (now.stdout, "1 more have ended: --all" in now.stderr) == ("", True)
    assert "revoked" in run_there(data_dir, "list", "--all").stdout
    assert (listed(data_dir), len(made(data_dir, "list", "--all"))) == ([], 1)
    assert made(data_dir, "revoke", "ops")["id"] == first["id"]
    again = run_there(data_dir, "rotate", "ops")
    assert (again.exit_code, "'ops' is revoked; create another" in again.stderr) == (1, True)


def test_a_name_is_that_of_the_key_that_has_it_now(data_dir: Path) -> None:
    made(data_dir, "create", "--name", "ops", "--role", "admin")
    before = made(data_dir, "create", "--name", "app")
    made(data_dir, "revoke", "app")
    now = made(data_dir, "create", "--name", "app")
    assert made(data_dir, "rotate", "app")["id"] == now["id"] != before["id"]


def test_keys_of_the_configuration_count_as_operators(tmp_path: Path, data_dir: Path) -> None:
    file = tmp_path / "paddler.yaml"
    configured = "[{env: A_VARIABLE_OF_THE_SERVICE_S, role: admin}]"
    file.write_text(f"data_dir: {data_dir}\nauth:\n  api_keys: {configured}\n")
    result = run("create", "--name", "app", "--config", file)
    assert result.exit_code == 0
    assert "role system" not in result.stderr


def test_the_first_key_opens_the_way_to_an_address_that_others_reach(
    tmp_path: Path, data_dir: Path
) -> None:
    file = tmp_path / "paddler.yaml"
    file.write_text(f"data_dir: {data_dir}\ninference: 0.0.0.0:8080\n")
    check = ["config", "check", str(file)]
    before = CliRunner().invoke(paddler_py.main, check)
    assert before.exit_code == 2
    assert "paddler-py keys create" in before.stderr
    assert run("create", "--name", "ops", "--role", "admin", "--config", file).exit_code == 0
    assert CliRunner().invoke(paddler_py.main, check).exit_code == 0


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (["create", "--name", "app"], 1, "the first key must be an admin's"),
        (["create", "--name", "a b", "--role", "admin"], 2, "name: 'a b' cannot be used"),
        (["create", "--name", "a", "--limit", "loud=1"], 2, "limits.loud: there is no such limit"),
        (["create", "--name", "a", "--limit", "burst"], 2, "limits.burst: '' cannot be used"),
        (["create", "--name", "a", "--network", "here"], 2, "networks[0]: 'here' is no network"),
        (["create", "--name", "a", "--expires", "soon"], 2, "expires: 'soon' is no moment"),
        (
            ["create", "--name", "a", "--expires", "2099-01-01", "--expires-in-days", "1"],
            2,
            "give one of",
        ),
        (["revoke", "nobody"], 1, "no key 'nobody'"),
        (["rotate", "nobody"], 1, "no key 'nobody'"),
    ],
)
def test_what_cannot_be_done_is_told_with_its_remedy(
    data_dir: Path, arguments: list[str], code: int, told: str
) -> None:
    result = run_there(data_dir, *arguments)
    assert (result.exit_code, result.stdout) == (code, "")
    assert told in result.stderr


def test_without_a_directory_it_is_told_what_to_do() -> None:
    result = run("list", PADDLER_DATA_DIR="")
    assert result.exit_code == 2
    assert "data_dir is not set" in result.stderr
    assert "POST /keys" in result.stderr


def test_where_no_key_was_made_nothing_is_made_by_looking(data_dir: Path) -> None:
    result = run_there(data_dir, "list")
    assert (result.exit_code, result.stdout) == (0, "")
    assert "paddler-py keys create" in result.stderr
    assert not data_dir.exists()


def test_a_file_that_cannot_be_used_is_told(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / FILE_NAME).write_bytes(b"no database at all" * 100)
    result = run_there(data_dir, "list")
    assert result.exit_code == 2
    assert "not a database" in result.stderr
