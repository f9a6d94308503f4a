"""Flags, environment, defaults; a wrong setting says what, where from, and what is allowed."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner

from agent import cli
from agent.app import claim_name, engine_options
from agent.cli import agent
from agent.errors import ConfigError, ModelRejected, RegistrationRefused
from agent.link_tls import LinkTls
from agent.settings import BalancerAddress, Settings, build
from tests.support.authority import Authority


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "my model.gguf"
    path.write_bytes(b"GGUF" + bytes(20))
    return path


def built(file: Path, environment: dict[str, str] | None = None, **flags: Any) -> Settings:
    given = {"balancer": "localhost:8081", "model": str(file), **flags}
    return build(given, environment or {})


def test_two_flags_are_enough(model: Path) -> None:
    settings = built(model)
    assert settings.balancer == BalancerAddress("localhost", 8081)
    assert settings.balancer.url == "ws://localhost:8081/agents/connect"
    assert settings.slots == 0
    assert settings.model_names == ("my-model",)


def test_a_flag_wins_over_the_environment_and_that_over_the_default(model: Path) -> None:
    environment = {"PADDLER_AGENT_SLOTS": "7", "PADDLER_AGENT_GPU_LAYERS": "3"}
    settings = built(model, environment, slots="9")
    assert (settings.slots, settings.gpu_layers, settings.threads) == (9, 3, 0)


def test_everything_can_come_from_the_environment(model: Path) -> None:
    settings = build(
        {"alias": (), "slots": None},
        {
            "PADDLER_AGENT_BALANCER": "[::1]:9",
            "PADDLER_AGENT_MODEL": str(model),
            "PADDLER_AGENT_ALIAS": "chat, org/chat",
            "PADDLER_AGENT_LABEL": "room=b,rack=4",
            "PADDLER_AGENT_SLOTS": "",
            "PADDLER_AGENT_DRAIN_TIMEOUT": "1.5",
        },
    )
    assert settings.balancer.url == "ws://[::1]:9/agents/connect"
    assert settings.model_names == ("chat", "org/chat")
    assert settings.labels == {"room": "b", "rack": "4"}
    assert settings.drain_timeout_s == 1.5


def test_a_balancer_that_speaks_tls_is_dialled_with_its_files(
    model: Path, authority: Authority
) -> None:
    certificate, key = authority.issue("gpu-1", "gpu.example")
    settings = built(
        model,
        {"PADDLER_AGENT_CA_FILE": str(authority.ca_file)},
        balancer="wss://balancer:8081",
        client_certificate=str(certificate),
        client_key=str(key),
    )
    assert settings.balancer.url == "wss://balancer:8081/agents/connect"
    assert settings.balancer.tls == LinkTls(
        ca_file=authority.ca_file, client_certificate=certificate, client_key=key
    )
    assert built(model, balancer="ws://balancer:8081").balancer.tls is None


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ({"ca_file": "ca.pem"}, "write --balancer wss://localhost:8081"),
        ({"client_key": "other.key", "balancer": "wss://a:1"}, "a --client-certificate"),
        ({"ca_file": "nothing.pem", "balancer": "wss://a:1"}, "--ca-file is"),
        ({"ca_file": "other.key", "balancer": "wss://a:1"}, "certificate of the CA"),
        (
            {"client_certificate": "one.pem", "client_key": "other.key", "balancer": "wss://a:1"},
            "files that belong together",
        ),
        (
            {"client_certificate": "one.pem", "client_key": "locked.key", "balancer": "wss://a:1"},
            "is encrypted",
        ),
        ({"balancer": "https://a:1"}, "wss://HOST:PORT"),
    ],
)
def test_files_that_cannot_be_used_stop_the_start(
    model: Path, authority: Authority, flags: dict[str, str], said: str
) -> None:
    issued = authority.ca_file.parent
    paths: dict[str, Any] = {
        name: value if name == "balancer" else str(issued / value) for name, value in flags.items()
    }
    with pytest.raises(ConfigError, match=said):
        built(model, **paths)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    authority = Authority(tmp_path_factory.mktemp("authority"))
    _, key = authority.issue("one")
    authority.issue("other")
    authority.lock(key, "locked.key", password="xyzzy")
    return authority


def test_a_model_may_be_called_by_its_alias(model: Path) -> None:
    settings = build({"balancer": "a:1", "model": "demo"}, {}, model_aliases={"demo": model})
    assert settings.model_path == model


def test_the_template_s_text_is_read_at_the_start(model: Path, tmp_path: Path) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text("{{ messages }}")
    assert built(model, chat_template=str(template)).chat_template == "{{ messages }}"


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ({"slots": "0"}, ["--slots", "'0'", "1 to 256"]),
        ({"slots": "257"}, ["--slots", "'257'", "1 to 256"]),
        ({"slots": "many"}, ["--slots", "'many'"]),
        ({"balancer": "8081"}, ["--balancer", "HOST:PORT"]),
        ({"balancer": "http://host:8081"}, ["--balancer", "'http://host:8081'", "HOST:PORT"]),
        ({"balancer": f"host:{'9' * 5000}"}, ["--balancer", "HOST:PORT"]),
        ({"model": "~nobody-has-this-name/m.gguf"}, ["--model", "GGUF"]),
        ({"balancer": "host:99999"}, ["--balancer", "'host:99999'"]),
        ({"name": "a b"}, ["--name", "'a b'"]),
        ({"name": "connect"}, ["--name", "'connect'", "not ., .., connect"]),
        ({"alias": ("a b",)}, ["--alias", "'a b'"]),
        ({"label": ("room",)}, ["--label", "KEY=VALUE"]),
        ({"cache_type": "q4_0"}, ["--cache-type", "f16, f32, q8_0"]),
        ({"flash_attention": "yes"}, ["--flash-attention", "auto, on, off"]),
        ({"tool_format": "openai"}, ["--tool-format", "'openai'", "auto, none, harmony"]),
        ({"reasoning_format": "on"}, ["--reasoning-format", "auto, none, harmony", "think"]),
        ({"model": "/no/such.gguf"}, ["--model", "no such file", "GGUF"]),
        ({"mmproj": "/no/such.gguf"}, ["--mmproj", "no such file", "belongs to the model"]),
        ({"model": __file__}, ["--model", "not a GGUF file"]),
        ({"chat_template": "/no/such.jinja"}, ["--chat-template", "no such file"]),
        ({"chat_template": "/dev/null"}, ["--chat-template", "no such file"]),
        ({"alias": tuple(f"a{n}" for n in range(40))}, ["--alias", "too many"]),
        ({"label": tuple(f"a{n}=b" for n in range(70))}, ["--label", "too many"]),
        ({"balancer": None}, ["--balancer is missing", "PADDLER_AGENT_BALANCER"]),
        ({"model": None}, ["--model is missing"]),
    ],
)
def test_a_wrong_flag_is_one_line_with_what_where_from_and_what_is_allowed(
    model: Path, flags: dict[str, Any], words: list[str]
) -> None:
    with pytest.raises(ConfigError) as caught:
        built(model, **flags)
    text = str(caught.value)
    assert all(word in text for word in words), text
    assert "allowed:" in text
    assert "\n" not in text


@pytest.mark.parametrize("value", ["soon", "-1", "1e9"])
def test_a_drain_timeout_is_seconds(model: Path, value: str) -> None:
    with pytest.raises(ConfigError, match="seconds, 0 to 86400"):
        built(model, {"PADDLER_AGENT_DRAIN_TIMEOUT": value})


@pytest.mark.parametrize(("text", "reason"), [(" \n", "empty"), ("x" * 300_000, "too large")])
def test_a_template_must_be_a_sane_file(
    model: Path, tmp_path: Path, text: str, reason: str
) -> None:
    template = tmp_path / "chat.jinja"
    template.write_text(text)
    with pytest.raises(ConfigError, match=reason):
        built(model, chat_template=str(template))


def test_a_wrong_variable_is_named(model: Path) -> None:
    with pytest.raises(ConfigError, match="environment variable PADDLER_AGENT_LOG_LEVEL is 'loud'"):
        built(model, {"PADDLER_AGENT_LOG_LEVEL": "loud"})


@pytest.mark.parametrize("cpus", [1, 16])
def test_threads_are_at_most_twice_the_machine_s(
    model: Path, monkeypatch: pytest.MonkeyPatch, cpus: int
) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: cpus)
    assert built(model, threads=str(2 * cpus)).threads == 2 * cpus
    says = f"--threads is '999' .this machine has {cpus} logical CPUs, at most {2 * cpus} "
    with pytest.raises(ConfigError, match=says):
        built(model, threads="999")


def test_the_command_ends_with_code_2_and_one_line() -> None:
    result = CliRunner().invoke(agent, ["--balancer", "nonsense", "--model", "demo"])
    assert result.exit_code == 2
    [line] = result.output.splitlines()
    assert "--balancer is 'nonsense'" in line
    assert "allowed: HOST:PORT" in line


def test_a_variable_that_is_nearly_a_setting_s_stops_the_start(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PADDLER_AGENT_SLOT", "8")
    result = CliRunner().invoke(agent, ["--balancer", "a:1", "--model", "demo"])
    assert result.exit_code == 2
    says = "PADDLER_AGENT_SLOT: there is no such variable; did you mean PADDLER_AGENT_SLOTS?"
    assert says in result.output


def test_variables_of_others_are_named_and_not_held_against_anybody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def served(_: Settings, **__: Any) -> None: ...

    monkeypatch.setattr(cli, "run_agent", served)
    monkeypatch.setenv("PADDLER_AGENT_SERVICE_HOST", "10.0.0.1")
    result = CliRunner().invoke(agent, ["--balancer", "a:1", "--model", "demo"])
    assert result.exit_code == 0
    assert "PADDLER_AGENT_SERVICE_HOST" in result.output


def test_every_option_says_what_it_is_when_it_is_left_out() -> None:
    options = [option for option in agent.params if isinstance(option, click.Option)]
    assert len(options) > 20
    without = [option.name for option in options if not re.search(r"\(.+\)", option.help or "")]
    assert without == []


def test_the_command_ends_with_code_1_and_the_balancer_s_words_when_it_is_refused(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(settings: Settings, **_: Any) -> None:
        raise ExceptionGroup("", [RegistrationRefused(f"{settings.name} is taken; use --name")])

    monkeypatch.setattr(cli, "run_agent", refused)
    flags = ["--balancer", "a:1", "--model", str(model), "--name", "one", "--log-format", "json"]
    result = CliRunner().invoke(agent, flags)
    assert result.exit_code == 1
    assert "Error: the balancer refused this agent: one is taken; use --name" in result.output


def test_the_command_ends_with_code_3_and_the_remedy_when_its_model_cannot_be_served(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def rejected(*_: Any, **__: Any) -> None:
        raise ExceptionGroup("", [ModelRejected("The file is incomplete. Download it again.")])

    monkeypatch.setattr(cli, "run_agent", rejected)
    flags = ["--balancer", "a:1", "--model", str(model), "--log-format", "json"]
    result = CliRunner().invoke(agent, flags)
    assert result.exit_code == 3
    assert "Error: The file is incomplete. Download it again." in result.output


def test_the_engine_is_told_what_was_set(model: Path) -> None:
    options = engine_options(built(model, slots="2", context="512", unified_kv="on"))
    assert (options.slots, options.context_tokens, options.unified_kv) == (2, 512, "on")
    assert options.model_path == str(model)


def test_backend_sampling_that_was_asked_for_switches_speculation_off(model: Path) -> None:
    asked = engine_options(built(model, backend_sampling="on"))
    assert (asked.backend_sampling, asked.speculation) == ("on", "off")
    left = engine_options(built(model))
    assert (left.backend_sampling, left.speculation) == ("auto", "auto")


def test_backend_sampling_and_speculation_are_not_both_to_be_asked_for(model: Path) -> None:
    others: list[dict[str, Any]] = [{"speculation": "on"}, {"draft_model": str(model)}]
    for other in others:
        with pytest.raises(ConfigError, match=r"--backend-sampling on .* allowed: one of the two"):
            built(model, backend_sampling="on", **other)
        assert built(model, **other).backend_sampling == "auto"


def test_agents_of_one_host_get_names_of_their_own_and_a_name_is_free_again_afterwards(
    model: Path, tmp_path: Path
) -> None:
    settings, folder = built(model), tmp_path / "names"
    first, first_lock = claim_name(settings, folder)
    second, second_lock = claim_name(settings, folder)
    assert first.endswith("my-model:0")
    assert second.endswith("my-model:1")
    first_lock.close()
    third, third_lock = claim_name(settings, folder)
    assert third == first
    second_lock.close()
    third_lock.close()


def test_names_are_not_kept_in_a_folder_that_somebody_else_put_there(
    model: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    link = tmp_path / "names"
    link.symlink_to(elsewhere)
    with pytest.raises(ConfigError, match="--name"):
        claim_name(built(model), link)
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="--name"):
        claim_name(built(model), tmp_path / "file")
    assert list(elsewhere.iterdir()) == []
