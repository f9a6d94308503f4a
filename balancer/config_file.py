"""Makes the settings: defaults < `--config` file < environment < flags. Used at start and reload.

Whatever is wrong becomes one `SettingError` of one line: what, where it came from, what is
allowed.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches
from math import isfinite
from pathlib import Path
from typing import Any, get_args

import yaml
from msgspec import Struct

from balancer.errors import SettingError
from balancer.settings import KIB, MIB, Address, LogFormat, LogLevel, PolicyName, Settings

MAX_FILE_BYTES = MIB
ENVIRONMENT_PREFIX = "PADDLER_"
_DAY_S = 86_400
_SHOWN_CHARS = 80
_MAX_IMAGE_HOSTS = 1000
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}|\[[0-9A-Fa-f:.%]{2,45}\]")


class Rule(Struct, frozen=True):
    """How one setting is read. `parse` raises ValueError or TypeError for what is not allowed."""

    parse: Callable[[Any], Any]
    allowed: str
    flag: str | None = None


def build_settings(
    *,
    flags: Mapping[str, object],
    environment: Mapping[str, str],
    config: Path | None = None,
) -> Settings:
    """The settings in force. `flags` maps settings' names to what the command line says; None is
    a flag that was not given. Raises `SettingError`."""
    values: dict[str, Any] = {}
    if config is not None:
        for name, raw in _read_file(config).items():
            values[name] = _parsed(name, raw, origin=f"{config}")
    for name in RULES:
        variable = ENVIRONMENT_PREFIX + name.upper()
        if variable in environment:
            values[name] = _parsed(name, environment[variable], origin=variable)
    for name, raw in flags.items():
        if raw is not None:
            values[name] = _parsed(name, raw, origin=RULES[name].flag or name)
    settings = Settings(**values)
    if settings.single_port:
        _check_single_port(settings, has_management="management" in values)
    else:
        _check_two_ports(settings)
    return settings


def _check_single_port(settings: Settings, *, has_management: bool) -> None:
    """An address that nobody listens at must not be silently left out."""
    if has_management and settings.management != settings.inference:
        raise SettingError(
            f"management: {settings.management} is not used with single_port, where everything is "
            f"at {settings.inference}; leave one of them out"
        )


def _check_two_ports(settings: Settings) -> None:
    one, other = settings.inference, settings.management
    if one == other and one.port != 0:
        raise SettingError(
            f"inference and management are both {one}; allowed: two different "
            "addresses, or one with single_port"
        )


def _parsed(name: str, raw: object, *, origin: str) -> Any:
    rule = RULES[name]
    try:
        return rule.parse(raw)
    except (ValueError, TypeError, KeyError, OverflowError):
        shown = repr(raw)[:_SHOWN_CHARS]
        raise SettingError(
            f"{name}: {shown} (from {origin}) cannot be used; allowed: {rule.allowed}"
        ) from None


def _read_file(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise SettingError(f"{path}: cannot be read ({error.strerror}); see --config") from error
    if len(data) > MAX_FILE_BYTES:
        raise SettingError(
            f"{path}: has more than {MAX_FILE_BYTES // KIB} KiB; is it the right file?"
        )
    try:
        content = yaml.safe_load(data)
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SettingError(f"{path}: is no YAML ({reason})") from error
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise SettingError(f"{path}: must hold `name: value` lines, one a setting")
    for name in content:
        _check_known(name, origin=path)
    return content


def _check_known(name: object, *, origin: Path) -> None:
    if name in RULES:
        return
    near = get_close_matches(str(name), RULES, n=1)
    meant = f"; did you mean {near[0]}?" if near else f"; allowed: {', '.join(RULES)}"
    raise SettingError(f"{str(name)[:_SHOWN_CHARS]} (from {origin}) is no setting{meant}")


def _number(least: float, most: float) -> Callable[[Any], float]:
    def parse(raw: Any) -> float:
        if isinstance(raw, bool):
            raise TypeError
        value = float(raw)
        if not isfinite(value) or not least <= value <= most:
            raise ValueError
        return value

    return parse


def _whole(least: int, most: int) -> Callable[[Any], int]:
    def parse(raw: Any) -> int:
        value = int(raw) if isinstance(raw, str) else raw
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise ValueError
        return value

    return parse


def _one_of(allowed: tuple[str, ...]) -> Callable[[Any], str]:
    def parse(raw: Any) -> str:
        if raw not in allowed:
            raise ValueError
        return str(raw)

    return parse


def _parse_switch(raw: Any) -> bool:
    if isinstance(raw, bool):
        return raw
    return {"true": True, "1": True, "false": False, "0": False}[_lower(raw)]


def _listed(raw: Any) -> list[str]:
    """A list in the file, commas between names in a variable."""
    names = raw.split(",") if isinstance(raw, str) else raw
    if not isinstance(names, list | tuple):
        raise TypeError
    return [_lower(name).strip() for name in names]


def _parse_hosts(raw: Any) -> tuple[str, ...]:
    hosts = tuple(name.rstrip(".") for name in _listed(raw))
    if not all(_HOST.fullmatch(host) for host in hosts):
        raise ValueError
    return hosts


def _parse_image_hosts(raw: Any) -> tuple[str, ...]:
    """As hosts, and each may have a port."""
    hosts = tuple(_listed(raw))
    if len(hosts) > _MAX_IMAGE_HOSTS:
        raise ValueError
    for host in hosts:
        if not _HOST.fullmatch(host):
            parse_address(host)
    return hosts


def _lower(raw: Any) -> str:
    if not isinstance(raw, str):
        raise TypeError
    return raw.lower()


def parse_address(raw: Any) -> Address:
    """`HOST:PORT`, an IPv6 address in brackets. Raises ValueError or TypeError."""
    if isinstance(raw, Address):
        return raw
    if not isinstance(raw, str):
        raise TypeError
    host, colon, port = raw.rpartition(":")
    if not colon or not _HOST.fullmatch(host) or not port.isascii() or not port.isdecimal():
        raise ValueError
    number = int(port)
    if number > 65535:
        raise ValueError
    return Address(host.strip("[]"), number)


def _parse_path(raw: object) -> str:
    if not isinstance(raw, str) or "\0" in raw or len(raw) > MAX_PATH_CHARS:
        raise ValueError(raw)
    return raw


def _seconds(least: float, most: float, flag: str | None = None) -> Rule:
    return Rule(_number(least, most), f"{least:g}..{most:g} seconds", flag)


def _count(least: int, most: int, flag: str | None = None) -> Rule:
    return Rule(_whole(least, most), f"a whole number {least}..{most}", flag)


def _choice(literal: Any, flag: str) -> Rule:
    names: tuple[str, ...] = get_args(literal)
    return Rule(_one_of(names), ", ".join(names), flag)


MAX_PATH_CHARS = 4096
_ADDRESS = "HOST:PORT with a port 0..65535"

RULES: dict[str, Rule] = {
    "inference": Rule(parse_address, _ADDRESS, "--inference"),
    "management": Rule(parse_address, _ADDRESS, "--management"),
    "single_port": Rule(_parse_switch, "true or false", "--single-port"),
    "insecure": Rule(_parse_switch, "true or false", "--insecure"),
    "allowed_hosts": Rule(_parse_hosts, "a list of host names"),
    "image_hosts": Rule(
        _parse_image_hosts,
        "a list of host names or addresses, each may have a :PORT",
        "--image-host",
    ),
    "image_timeout_s": _seconds(0.1, 300),
    "heartbeat_interval_s": _seconds(0.05, 300, "--heartbeat-interval"),
    "heartbeat_misses": _count(1, 100, "--heartbeat-misses"),
    "progress_timeout_s": _seconds(0.1, 3600),
    "query_timeout_s": _seconds(0.1, 3600),
    "policy": _choice(PolicyName, "--policy"),
    "record_routes": Rule(_parse_path, "a file's path", "--record-routes"),
    "queue_timeout_s": _seconds(0, _DAY_S, "--queue-timeout"),
    "max_waiting": _count(0, 1_000_000, "--max-waiting"),
    "max_waiting_of_tenant": _count(0, 1_000_000),
    "max_waiting_bytes": _count(0, 64 * KIB * MIB),
    "model_memory_s": _seconds(0, _DAY_S),
    "drain_timeout_s": _seconds(0, _DAY_S, "--drain-timeout"),
    "stream_replay_s": _seconds(0, _DAY_S),
    "stream_unread_s": _seconds(0, _DAY_S),
    "stream_replay_bytes": _count(0, 64 * KIB * MIB),
    "data_dir": Rule(_parse_path, "a directory's path", "--data-dir"),
    "max_stored_responses": _count(0, 10_000_000),
    "max_stored_response_bytes": _count(0, KIB * KIB * MIB),
    "max_body_bytes": _count(KIB, KIB * MIB),
    "max_header_bytes": _count(KIB, MIB),
    "max_json_depth": _count(4, 512),
    "slow_body_timeout_s": _seconds(0.1, 3600),
    "idle_timeout_s": _seconds(1, 3600),
    "max_unsent_bytes": _count(4 * KIB, KIB * MIB),
    "slow_client_timeout_s": _seconds(0.1, 3600),
    "first_token_header_delay_s": _seconds(0, 3600),
    "comment_interval_s": _seconds(0.1, 3600),
    "log_level": _choice(LogLevel, "--log-level"),
    "log_format": _choice(LogFormat, "--log-format"),
}
"""A rule for every field of Settings, in the same order."""
