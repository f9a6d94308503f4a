"""Secrets of the configuration are nowhere to be seen: a canary in each place that takes one."""

from __future__ import annotations

import json
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest
from click.testing import CliRunner
from msgspec import Struct

from balancer.config_command import config
from balancer.config_file.configuration import Configuration
from balancer.config_file.faults import FaultyConfiguration
from balancer.config_file.load import Sources
from balancer.secret import Secret
from balancer.settings import Settings
from tests.support.authority import Authority
from tests.support.keys import bearer
from tests.support.live_reader import LiveReader
from tests.support.running_balancer import RunningBalancer, running_balancer

WORD = "qzcanaryqz"
ADMIN = f"{WORD}-admin-{'x' * 32}"
"""Also where a key has to be long."""

HASH = f"$argon2id$v=19$m=65536,t=3,p=4${WORD}{'A' * 12}${WORD}{'A' * 33}"

AUTH = f"""
auth:
  api_keys:
    - {{key: {ADMIN}, name: operators, role: admin}}
    - {WORD}-plain
    - {{env: TEAM_KEY, name: team}}
    - {{file: FOLDER/agents, name: agents, role: system}}
  metrics_token: {{env: SCRAPER}}
  basic:
    - {{name: nightly, password_hash: "{HASH}"}}
  jwt:
    - {{algorithms: [HS256], secret: {WORD}-{"y" * 40}, issuer: us, audience: balancer}}
  introspection:
    url: http://127.0.0.1:9/introspect
    client_id: balancer
    client_secret: {{file: FOLDER/client}}
"""
PORTS = "inference: 127.0.0.1:0\nmanagement: 127.0.0.1:0\n"
VARIABLES = {"TEAM_KEY": f"{WORD}-team", "SCRAPER": f"{WORD}-scraper"}
COVERED = {
    "Introspection.client_secret",
    "JwtIssuer.secret",
    "PasswordHolder.password_hash",
    "Settings.tls_key_password",
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "agents").write_text(f"{WORD}-agents\n")
    (tmp_path / "client").write_text(f"{WORD}-client\n")
    path = tmp_path / "paddler.yaml"
    path.write_text(PORTS + AUTH.replace("FOLDER", str(tmp_path)))
    return path


def sources(file: Path) -> Sources:
    return Sources(config=file, variables=VARIABLES)


def secrets_in(shape: Any) -> Iterator[str]:
    """Every field of a `Secret`, wherever it is in the settings."""
    for part in get_args(shape):
        yield from secrets_in(part)
    if isinstance(shape, type) and issubclass(shape, Struct):
        for name, kind in get_type_hints(shape).items():
            if kind is Secret or Secret in get_args(kind):
                yield f"{shape.__name__}.{name}"
            yield from secrets_in(kind)


def test_each_setting_that_is_a_secret_has_a_canary_here() -> None:
    assert set(secrets_in(Settings)) == COVERED


async def test_no_secret_of_the_configuration_can_be_seen(
    file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    configuration = Configuration(sources(file))
    seen = [repr(configuration.live.current), repr(configuration.loaded)]
    async with running_balancer(configuration=configuration) as balancer:
        told = await everything(balancer)
        seen += told
        write(file, file_text(file).replace("issuer: us", "issuer: them"))
        seen.append(str(await configuration.reload("request")))
        seen += await everything(balancer)
    for form in ([], ["--json"]):
        command = ["show", *form, "--config", str(file)]
        seen.append(CliRunner().invoke(config, command, env=VARIABLES).output)
    assert all("operators" in text for text in (seen[0], told[0], seen[-1]))
    seen += [*capfd.readouterr()]
    assert [text for text in seen if WORD in text] == []


def test_the_password_of_a_tls_key_cannot_be_seen(file: Path, authority: Authority) -> None:
    certificate, key = authority.issue("with secrets", "localhost")
    tls = f"tls_certificate: {certificate}\ntls_key: {key}\ntls_key_password: {WORD}\n"
    file.write_text(file.read_text() + tls)
    loaded = Configuration(sources(file)).loaded
    assert loaded.settings.tls_key_password.reveal() == WORD
    shown = CliRunner().invoke(config, ["show", "--json", "--config", str(file)], env=VARIABLES)
    assert "tls_key_password" in shown.output
    assert WORD not in repr(loaded) + shown.output
    file.write_text(file.read_text().replace(f"password: {WORD}", f"password: [{WORD}]"))
    with pytest.raises(FaultyConfiguration) as caught:
        Configuration(sources(file))
    assert WORD not in "".join(traceback.format_exception(caught.value))


PATHS = ("/config", "/config/status", "/health", "/metrics", "/log-level", "/requests", "/")


async def everything(balancer: RunningBalancer) -> list[str]:
    """What an operator can see, and what others are told."""
    told = []
    session, base = balancer.session, balancer.management_url
    for headers in (bearer(ADMIN), bearer(f"{WORD}-wrong"), {}):
        for path in PATHS:
            async with session.get(base + path, headers=headers) as answer:
                told += [await answer.text(), str(answer.headers)]
    async with session.post(f"{base}/config/reload", headers=bearer(ADMIN)) as answer:
        told.append(await answer.text())
    for path in ("/ws/control", "/ws/logs"):
        async with session.ws_connect(base + path, headers=bearer(ADMIN)) as socket:
            reader = LiveReader(socket)
            told.append(json.dumps(await reader.message()))
            told.append(json.dumps(await reader.call("config.get")))
    return told


def file_text(file: Path) -> str:
    return file.read_text()


def write(file: Path, text: str) -> None:
    file.write_text(text)


@pytest.mark.parametrize(
    ("right", "wrong"),
    [
        (f"key: {ADMIN}", f"key: {WORD} with spaces"),
        (f"key: {ADMIN}", f"key: [{WORD}]"),
        (f"- {WORD}-plain", f"- {ADMIN}"),
        (f"- {WORD}-plain", f"- {{key: {WORD}, role: {WORD[:0]}nobody}}"),
        (f"secret: {WORD}-{'y' * 40}", f"secret: {WORD}"),
        (f"secret: {WORD}-{'y' * 40}", f"secret: [{WORD}]"),
        (f'"{HASH}"', WORD),
        (f'"{HASH}"', f"[{WORD}]"),
        ("{env: SCRAPER}", f"[{WORD}]"),
        ("{env: SCRAPER}", f"{WORD} two words"),
        ("{env: SCRAPER}", f"{WORD}-plain"),
        ("FOLDER/client", "FOLDER/none"),
    ],
)
def test_a_secret_that_is_wrong_is_not_quoted(file: Path, right: str, wrong: str) -> None:
    folder = str(file.parent)
    text = file.read_text()
    right, wrong = right.replace("FOLDER", folder), wrong.replace("FOLDER", folder)
    assert right in text
    file.write_text(text.replace(right, wrong))
    with pytest.raises(FaultyConfiguration) as caught:
        Configuration(sources(file))
    assert WORD not in "".join(traceback.format_exception(caught.value))
    assert WORD not in str([str(fault) for fault in caught.value.faults])


async def test_the_token_of_scrapers_reads_metrics_and_nothing_else(file: Path) -> None:
    scraper = bearer(VARIABLES["SCRAPER"])
    async with running_balancer(configuration=Configuration(sources(file))) as balancer:
        for base in (balancer.url, balancer.management_url):
            for path in ("/metrics", "/metrics/prometheus"):
                async with balancer.session.get(base + path, headers=scraper) as answer:
                    assert (answer.status, "paddler_" in await answer.text()) == (200, True)
                async with balancer.session.get(base + path) as answer:
                    assert answer.status == 401
        base = balancer.management_url
        for path in ("/metrics/series", "/config", "/agents", "/v1/models", "/health"):
            async with balancer.session.get(base + path, headers=scraper) as answer:
                assert answer.status == 403
        login = {"key": VARIABLES["SCRAPER"]}
        async with balancer.session.post(f"{base}/session", json=login) as answer:
            assert answer.status == 403
        answered = await balancer.post("/v1/chat/completions", {}, scraper)
        assert answered.status == 403


async def test_the_token_of_scrapers_alone_ends_no_openness() -> None:
    variables = {"PADDLER_AUTH": json.dumps({"metrics_token": WORD})}
    ports = {"inference": "127.0.0.1:0", "management": "127.0.0.1:0"}
    configuration = Configuration(Sources(flags=ports, variables=variables))
    async with running_balancer(configuration=configuration) as balancer:
        assert (await balancer.get_json(f"{balancer.management_url}/config"))["object"] == "config"
