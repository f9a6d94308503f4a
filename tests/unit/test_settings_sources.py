"""Where settings come from, which source wins, and what a wrong one is told."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import fields

from balancer import cli
from balancer.config_file import MAX_FILE_BYTES, RULES, build_settings, parse_address
from balancer.errors import SettingError
from balancer.settings import Address, Settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "paddler.yaml"


def test_every_setting_has_a_rule_in_the_same_order() -> None:
    assert list(RULES) == [field.name for field in fields(Settings)]


def test_the_defaults_satisfy_their_own_rules() -> None:
    defaults = Settings()
    for name, rule in RULES.items():
        value = getattr(defaults, name)
        assert rule.parse(str(value) if isinstance(value, Address) else value) == value


def test_numbers_in_the_file_need_no_quotes(file: Path) -> None:
    file.write_text("heartbeat_interval_s: 2\nmax_waiting: '12'\nlog_format: json\n")
    settings = build_settings(flags={"inference": Address("::1", 1)}, environment={}, config=file)
    assert (settings.heartbeat_interval_s, settings.max_waiting) == (2.0, 12)
    assert (settings.log_format, settings.inference) == ("json", Address("::1", 1))


def test_without_any_source_the_defaults_hold() -> None:
    assert build_settings(flags={}, environment={}) == Settings()


def test_flags_win_over_the_environment_and_that_over_the_file(file: Path) -> None:
    file.write_text("max_waiting: 1\nheartbeat_misses: 2\nqueue_timeout_s: 3.5\n")
    settings = build_settings(
        flags={"max_waiting": 9, "policy": None},
        environment={"PADDLER_MAX_WAITING": "5", "PADDLER_HEARTBEAT_MISSES": "7", "HOME": "/"},
        config=file,
    )
    assert (settings.max_waiting, settings.heartbeat_misses, settings.queue_timeout_s) == (
        9,
        7,
        3.5,
    )
    assert settings.policy == "prefix_aware"


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8080", Address("127.0.0.1", 8080)),
        ("localhost:0", Address("localhost", 0)),
        ("[::1]:8081", Address("::1", 8081)),
    ],
)
def test_addresses_are_read_and_written_alike(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("inference", "8080"),
        ("inference", "127.0.0.1:"),
        ("inference", "127.0.0.1:70000"),
        ("inference", "::1:80"),
        ("inference", "bad host:80"),
        ("inference", 8080),
        ("queue_timeout_s", "soon"),
        ("queue_timeout_s", -1),
        ("queue_timeout_s", "nan"),
        ("queue_timeout_s", True),
        ("max_waiting", 1.5),
        ("max_waiting", True),
        ("max_waiting", "9" * 5000),
        ("max_waiting", None),
        ("policy", "fastest"),
        ("image_hosts", "cdn.example.com/images"),
        ("image_hosts", "https://cdn.example.com"),
        ("image_hosts", ["cdn.example.com:99999"]),
        ("image_hosts", ["*.example.com"]),
        ("image_hosts", 5),
        ("image_hosts", [""]),
        ("policy", ["least_busy"]),
        ("log_level", "INFO!"),
    ],
)
def test_a_wrong_value_is_one_line_with_what_where_and_what_is_allowed(
    file: Path, name: str, value: object
) -> None:
    file.write_text(f"{name}: {value!r}" if value is not None else f"{name}:")
    with pytest.raises(SettingError) as caught:
        build_settings(flags={}, environment={}, config=file)
    line = str(caught.value)
    assert line.startswith(f"{name}: ")
    assert str(file) in line
    assert f"allowed: {RULES[name].allowed}" in line
    assert "\n" not in line
    assert len(line) < 400


def test_the_line_names_the_variable_or_the_flag() -> None:
    with pytest.raises(SettingError, match=r"from PADDLER_POLICY\)"):
        build_settings(flags={}, environment={"PADDLER_POLICY": "x"})
    with pytest.raises(SettingError, match=r"from --queue-timeout\)"):
        build_settings(flags={"queue_timeout_s": "x"}, environment={})


def test_hosts_of_images_are_listed_by_each_source(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Settings] = []

    def refuse(settings: Settings) -> None:
        built.append(settings)
        raise SettingError("not today")

    monkeypatch.setattr(cli, "build", refuse)
    file.write_text("image_hosts: [CDN.example.com, '[fd00::1]:80']\n")
    flags = ["--image-host", "one.example:9000", "--image-host", "10.0.0.5"]
    for arguments, environment in (
        (["--config", str(file)], {}),
        (["--config", str(file)], {"PADDLER_IMAGE_HOSTS": "two.example, [::1]"}),
        (["--config", str(file), *flags], {"PADDLER_IMAGE_HOSTS": "two.example"}),
    ):
        CliRunner().invoke(cli.balancer, arguments, env=environment)
    assert [settings.image_hosts for settings in built] == [
        ("cdn.example.com", "[fd00::1]:80"),
        ("two.example", "[::1]"),
        ("one.example:9000", "10.0.0.5"),
    ]


def test_two_ports_cannot_share_an_address() -> None:
    with pytest.raises(SettingError, match="two different addresses"):
        build_settings(flags={"inference": "127.0.0.1:8081"}, environment={})
    build_settings(flags={"inference": "[::1]:0", "management": "[::1]:0"}, environment={})


def test_one_port_has_one_address() -> None:
    flags: dict[str, object] = {"single_port": True, "inference": "127.0.0.1:8081"}
    assert build_settings(flags=flags, environment={}).single_port
    with pytest.raises(SettingError, match="is not used with single_port"):
        build_settings(flags={**flags, "management": "127.0.0.1:9"}, environment={})
    build_settings(flags={**flags, "management": "127.0.0.1:8081"}, environment={})


def test_a_misspelt_name_is_told_the_right_one(file: Path) -> None:
    file.write_text("max_wating: 3")
    with pytest.raises(SettingError, match="did you mean max_waiting"):
        build_settings(flags={}, environment={}, config=file)
    file.write_text("zzz: 3")
    with pytest.raises(SettingError, match="allowed: inference, management"):
        build_settings(flags={}, environment={}, config=file)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"a: [", "is no YAML"),
        (b"\xff\xfe\x00", "is no YAML"),
        (b"[" * 20_000, "is no YAML"),
        (b"- 1", "must hold"),
        (b"#" * (MAX_FILE_BYTES + 1), "is it the right file"),
        (b"!!python/object/apply:os.system ['true']", "is no YAML"),
        (b"x: 2001-99-99", "is no YAML"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(file: Path, content: bytes, said: str) -> None:
    file.write_bytes(content)
    with pytest.raises(SettingError, match=said) as caught:
        build_settings(flags={}, environment={}, config=file)
    assert "\n" not in str(caught.value)


def test_an_empty_file_changes_nothing_and_a_missing_one_is_an_error(file: Path) -> None:
    file.write_text("# nothing yet\n")
    assert build_settings(flags={}, environment={}, config=file) == Settings()
    file.unlink()
    with pytest.raises(SettingError, match="cannot be read"):
        build_settings(flags={}, environment={}, config=file)


@given(st.sampled_from(list(RULES)), st.text(max_size=40))
def test_any_text_gives_a_setting_or_a_setting_error(name: str, text: str) -> None:
    with suppress(SettingError):
        settings = build_settings(flags={}, environment={f"PADDLER_{name.upper()}": text})
        assert isinstance(settings, Settings)
