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
from balancer.config_file.configuration import Configuration
from balancer.config_file.faults import FaultyConfiguration
from balancer.config_file.load import Sources, load
from balancer.config_file.parsing import parse_address
from balancer.config_file.rules import RULES, written
from balancer.errors import SettingError
from balancer.settings import Address, Settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "paddler.yaml"


def settings_of(file: Path) -> Settings:
    return load(Sources(config=file)).settings


def test_every_setting_has_a_rule_in_the_same_order() -> None:
    assert list(RULES) == [field.name for field in fields(Settings)]


def test_the_defaults_satisfy_their_own_rules() -> None:
    defaults = Settings()
    for name, rule in RULES.items():
        value = getattr(defaults, name)
        assert rule.kind.is_secret or rule.parse(written(value)) == value


def test_numbers_in_the_file_need_no_quotes(file: Path) -> None:
    file.write_text("heartbeat_interval_s: 2\nmax_waiting: '12'\nlog_format: json\n")
    settings = load(Sources(flags={"inference": Address("::1", 1)}, config=file)).settings
    assert (settings.heartbeat_interval_s, settings.max_waiting) == (2.0, 12)
    assert (settings.log_format, settings.inference) == ("json", Address("::1", 1))


@pytest.mark.parametrize(("text", "value"), [("010", 10), ("1_000", 1000), ("'7'", 7)])
def test_a_number_is_read_as_it_is_written_and_not_as_yaml_has_it(
    file: Path, text: str, value: int
) -> None:
    file.write_text(f"max_waiting: {text}")
    assert settings_of(file).max_waiting == value


@pytest.mark.parametrize("text", ["true", "yes", "On", "'1'", "'true'"])
def test_a_switch_can_be_written_in_several_ways(file: Path, text: str) -> None:
    file.write_text(f"insecure: {text}")
    assert settings_of(file).insecure


@pytest.mark.parametrize("text", ["off", "'off'", '"off"'])
def test_a_choice_named_off_needs_no_quotes(file: Path, text: str) -> None:
    file.write_text(f"cache_isolation: {text}\n")
    assert settings_of(file).cache_isolation == "off"


def test_without_any_source_the_defaults_hold() -> None:
    assert load(Sources()).settings == Settings()


def test_flags_win_over_the_environment_and_that_over_dotenv_and_that_over_the_file(
    file: Path,
) -> None:
    file.write_text(
        "max_waiting: 1\nheartbeat_misses: 2\nqueue_timeout_s: 3.5\nprogress_timeout_s: 1\n"
    )
    dotenv = file.with_name(".env")
    dotenv.write_text("PADDLER_HEARTBEAT_MISSES=6\nPADDLER_PROGRESS_TIMEOUT_S=8\n")
    loaded = load(
        Sources(
            flags={"max_waiting": 9, "policy": None},
            variables={"PADDLER_MAX_WAITING": "5", "PADDLER_HEARTBEAT_MISSES": "7", "HOME": "/"},
            config=file,
            dotenv=dotenv,
        )
    )
    settings = loaded.settings
    assert (settings.max_waiting, settings.heartbeat_misses) == (9, 7)
    assert (settings.queue_timeout_s, settings.progress_timeout_s) == (3.5, 8.0)
    assert settings.policy == "prefix_aware"
    assert {name: str(origin) for name, origin in loaded.origins.items()} == {
        "max_waiting": "--max-waiting",
        "heartbeat_misses": "PADDLER_HEARTBEAT_MISSES",
        "queue_timeout_s": f"{file}, line 3",
        "progress_timeout_s": f"{dotenv}, PADDLER_PROGRESS_TIMEOUT_S, line 2",
    }


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
        ("image_hosts", False),
        ("image_hosts", None),
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
        settings_of(file)
    line = str(caught.value)
    assert line.startswith(f"{name}: ")
    assert f"(from {file}, line 1)" in line
    assert f"allowed: {RULES[name].allowed}" in line
    assert "\n" not in line
    assert len(line) < 400


def test_the_line_names_the_variable_or_the_flag() -> None:
    with pytest.raises(SettingError, match=r"from PADDLER_POLICY\)"):
        load(Sources(variables={"PADDLER_POLICY": "x"}))
    with pytest.raises(SettingError, match=r"from --queue-timeout\)"):
        load(Sources(flags={"queue_timeout_s": "x"}))


def test_all_that_is_wrong_is_told_at_once(file: Path) -> None:
    file.write_text("max_waiting: many\npolicy: fastest\n")
    with pytest.raises(FaultyConfiguration) as caught:
        load(Sources(config=file, variables={"PADDLER_LOG_FORMAT": "xml"}))
    assert [fault.field for fault in caught.value.faults] == ["max_waiting", "policy", "log_format"]
    assert [fault.origin.line for fault in caught.value.faults] == [1, 2, None]
    assert len(str(caught.value).splitlines()) == 3


def test_a_wholly_wrong_file_does_not_fill_the_screen(file: Path) -> None:
    file.write_text("".join(f"setting{n}: 1\n" for n in range(500)))
    with pytest.raises(FaultyConfiguration) as caught:
        settings_of(file)
    assert str(caught.value).splitlines()[20:] == ["… and 480 more"]


def test_hosts_of_images_are_listed_by_each_source(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Settings] = []

    def refuse(configuration: Configuration, *_: object, **__: object) -> None:
        built.append(configuration.live.current)
        raise SettingError("not today")

    monkeypatch.setattr(cli, "build", refuse)
    file.write_text("image_hosts: [CDN.example.com, '[fd00::1]:80']\n")
    flags = ["--image-host", "one.example:9000", "--image-host", "10.0.0.5"]
    for arguments, environment in (
        (["--config", str(file)], {}),
        (["--config", str(file)], {"PADDLER_IMAGE_HOSTS": "two.example, [::1]"}),
        (["--config", str(file), *flags], {"PADDLER_IMAGE_HOSTS": "two.example"}),
        ([], {"PADDLER_CONFIG": str(file), "PADDLER_IMAGE_HOSTS": ""}),
    ):
        CliRunner().invoke(cli.balancer, arguments, env=environment)
    assert [settings.image_hosts for settings in built] == [
        ("cdn.example.com", "[fd00::1]:80"),
        ("two.example", "[::1]"),
        ("one.example:9000", "10.0.0.5"),
        (),
    ]


def test_two_ports_cannot_share_an_address() -> None:
    with pytest.raises(SettingError, match="two different addresses"):
        load(Sources(flags={"inference": "127.0.0.1:8081"}))
    load(Sources(flags={"inference": "[::1]:0", "management": "[::1]:0"}))


def test_one_port_has_one_address() -> None:
    flags: dict[str, object] = {"single_port": True, "inference": "127.0.0.1:8081"}
    assert load(Sources(flags=flags)).settings.single_port
    with pytest.raises(SettingError, match="is not used with single_port"):
        load(Sources(flags={**flags, "management": "127.0.0.1:9"}))
    load(Sources(flags={**flags, "management": "127.0.0.1:8081"}))


def test_nobody_listens_for_others_without_saying_that_he_means_it(file: Path) -> None:
    file.write_text("policy: latency\ninference: 0.0.0.0:8080\n")
    with pytest.raises(FaultyConfiguration, match="nobody has to sign in") as caught:
        settings_of(file)
    assert caught.value.faults[0].origin.line == 2
    settings = load(Sources(config=file, flags={"insecure": True})).settings
    assert settings.inference == Address("0.0.0.0", 8080)


def test_a_misspelt_name_is_told_the_right_one(file: Path) -> None:
    file.write_text("max_wating: 3")
    with pytest.raises(SettingError, match="did you mean max_waiting"):
        settings_of(file)
    file.write_text("zzz: 3")
    with pytest.raises(SettingError, match="allowed: inference, management"):
        settings_of(file)


def test_a_missing_file_is_an_error_and_an_empty_one_changes_nothing(file: Path) -> None:
    with pytest.raises(SettingError, match="cannot be read"):
        settings_of(file)
    for nothing in ("", "# nothing yet\n", "---\n", "\N{ZERO WIDTH NO-BREAK SPACE}# a mark\n"):
        file.write_text(nothing, encoding="utf-8")
        assert settings_of(file) == Settings()


@given(st.sampled_from(list(RULES)), st.text(max_size=40))
def test_any_text_gives_a_setting_or_a_setting_error(name: str, text: str) -> None:
    with suppress(SettingError):
        settings = load(Sources(variables={f"PADDLER_{name.upper()}": text})).settings
        assert isinstance(settings, Settings)


# --- variables ---


def test_a_misspelt_variable_is_told_the_right_one() -> None:
    with pytest.raises(SettingError, match="did you mean PADDLER_QUEUE_TIMEOUT_S") as caught:
        load(Sources(variables={"PADDLER_QUEUE_TIMEOUT": "sk-secret"}))
    assert "sk-secret" not in str(caught.value)


def test_variables_of_others_are_named_in_one_warning_and_those_of_the_agent_are_not() -> None:
    variables = {f"PADDLER_PORT_{n}_TCP": "tcp://10.0.0.1" for n in range(30)}
    loaded = load(Sources(variables={**variables, "PADDLER_AGENT_SLOTS": "4"}))
    (warning,) = loaded.warnings
    assert "PADDLER_PORT_0_TCP" in warning
    assert "and 20 more" in warning
    assert "AGENT" not in warning
    of_ours = {"PADDLER_AGENT_SLOT": "4", "PADDLER_CONFIG": "x"}
    assert load(Sources(variables=of_ours)).warnings == ()


@pytest.mark.parametrize("service", ["", "_BALANCER", "_INFERENCE", "_MANAGEMENT", "_AGENTS"])
def test_what_kubernetes_sets_for_a_service_stops_no_start(service: str) -> None:
    endings = ("SERVICE_HOST", "SERVICE_PORT", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP_ADDR")
    loaded = load(Sources(variables={f"PADDLER{service}_{ending}": "x" for ending in endings}))
    assert len(loaded.warnings) == 1


def test_log_level_is_honoured_in_any_case_unless_our_own_variable_says_else() -> None:
    assert load(Sources(variables={"LOG_LEVEL": "DEBUG"})).settings.log_level == "debug"
    both = {"LOG_LEVEL": "nonsense", "PADDLER_LOG_LEVEL": "error"}
    assert load(Sources(variables=both)).settings.log_level == "error"
    assert load(Sources(variables={"LOG_LEVEL": ""})).settings.log_level == "info"
    with pytest.raises(SettingError, match=r"log_level: 'loud' .*from LOG_LEVEL\)"):
        load(Sources(variables={"LOG_LEVEL": "loud"}))


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("PADDLER_DATA_DIR=/srv/paddler", "/srv/paddler"),
        ("export PADDLER_DATA_DIR = /srv/paddler  # kept", "/srv/paddler"),
        ("PADDLER_DATA_DIR='/srv/a # b'", "/srv/a # b"),
        ('PADDLER_DATA_DIR="/srv/a=b"  # kept', "/srv/a=b"),
        ("PADDLER_DATA_DIR=/srv/a#b", "/srv/a#b"),
        ("PADDLER_DATA_DIR=", ""),
        ("PADDLER_DATA_DIR=# none", ""),
    ],
)
def test_dotenv_is_read_as_shells_write_it(tmp_path: Path, line: str, value: str) -> None:
    dotenv = tmp_path / ".env"
    others = b"# ours\n\nOTHER 'never closed\nKEY=\xff\nLOG_LEVELS=x\n"
    dotenv.write_bytes(others + line.encode() + b"\r\n")
    assert load(Sources(dotenv=dotenv)).settings.data_dir == value


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"PADDLER_DATA_DIR", "write PADDLER_DATA_DIR=value"),
        (b"PADDLER_DATA_DIR='/srv", "a quote is not closed"),
        (b"PADDLER_DATA_DIR=/srv/\xff", "UTF-8"),
        (b"PADDLER_MAX_WATING=1", "did you mean PADDLER_MAX_WAITING"),
        (b"PADDLER_MAX_WAITING=x", "allowed: a whole number"),
        (b"LOG_LEVEL=loud", "allowed: debug"),
    ],
)
def test_a_line_of_dotenv_that_is_wrong_is_named(tmp_path: Path, line: bytes, said: str) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_bytes(b"\n\n" + line)
    with pytest.raises(FaultyConfiguration, match=said) as caught:
        load(Sources(dotenv=dotenv))
    assert caught.value.faults[0].origin.line == 3
    assert str(dotenv) in str(caught.value)


def test_a_mark_that_editors_put_in_front_hides_no_variable(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_bytes(b"\xef\xbb\xbfPADDLER_MAX_WAITING=3\n")
    assert load(Sources(dotenv=dotenv)).settings.max_waiting == 3


def test_dotenv_need_not_exist(tmp_path: Path) -> None:
    assert load(Sources(dotenv=tmp_path / ".env")).settings == Settings()


# --- overlays ---


@pytest.fixture
def staged(file: Path) -> Path:
    file.write_text("app: {environment: staging}\nmax_waiting: 1\npolicy: latency\n")
    file.with_name("paddler.staging.yaml").write_text("max_waiting: 2\n")
    file.with_name("paddler.production.yaml").write_text("max_waiting: 3\n")
    return file


def test_the_environment_s_file_is_laid_over_the_other(staged: Path) -> None:
    loaded = load(Sources(config=staged))
    assert (loaded.settings.max_waiting, loaded.settings.policy) == (2, "latency")
    assert loaded.environment == "staging"
    assert [path.name for path in loaded.files] == ["paddler.yaml", "paddler.staging.yaml"]
    assert loaded.size_bytes == sum(path.stat().st_size for path in loaded.files)


def test_the_environment_is_the_flag_s_else_the_variable_s_else_the_file_s(staged: Path) -> None:
    production = {"PADDLER_ENVIRONMENT": "production"}
    assert load(Sources(config=staged, variables=production)).settings.max_waiting == 3
    both = Sources(config=staged, variables=production, environment="staging")
    assert load(both).settings.max_waiting == 2


@pytest.mark.parametrize("name", ["../staging", "", "a b", "x" * 65])
def test_an_environment_is_a_name_and_no_path(staged: Path, name: str) -> None:
    with pytest.raises(SettingError, match="allowed: up to 64 letters"):
        load(Sources(config=staged, environment=name))


def test_an_environment_without_a_file_is_an_error(staged: Path) -> None:
    with pytest.raises(SettingError, match=r"no file .*paddler\.test\.yaml"):
        load(Sources(config=staged, environment="test"))
    with pytest.raises(SettingError, match="name one with --config"):
        load(Sources(environment="test"))
