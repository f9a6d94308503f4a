"""Reading the configuration again: what changes, what stays, and when it is read by itself."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from threading import Event

import pytest
import structlog
from jsonschema import Draft202012Validator

from balancer.access import Credential
from balancer.config_file.configuration import Configuration, Reload, Trigger
from balancer.config_file.files import MAX_FILE_BYTES, Fingerprint, fingerprint
from balancer.config_file.json_schema import json_schema
from balancer.config_file.load import Loaded, Loading, Sources
from balancer.config_file.rules import RULES, written
from balancer.errors import SettingError
from balancer.observability.audit import Audit
from balancer.services.config_reload import ConfigReload
from balancer.settings import Address, Settings
from balancer.storage.sql_keys import SqlKeys
from tests.support.running_balancer import eventually


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "paddler.yaml"
    path.write_text("max_waiting: 1\npolicy: latency\n")
    return path


@pytest.fixture
def configuration(file: Path) -> Configuration:
    dotenv = file.with_name(".env")
    return Configuration(Sources(config=file, dotenv=dotenv), now=lambda: 1_700_000_000.0)


def write(path: Path, content: str | bytes) -> None:
    path.write_bytes(content if isinstance(content, bytes) else content.encode())


def hear_of_changes(configuration: Configuration) -> list[Settings]:
    heard: list[Settings] = []
    configuration.live.listen(heard.append)
    return heard


async def test_what_the_file_says_now_is_in_force_after_a_reload(
    configuration: Configuration, file: Path
) -> None:
    heard = hear_of_changes(configuration)
    write(file, "max_waiting: 2\nlog_level: debug\n")
    done = await configuration.reload("request")
    assert done.succeeded
    assert {one.name: (one.before, one.after) for one in done.changes} == {
        "max_waiting": (1, 2),
        "policy": ("latency", "prefix_aware"),
        "log_level": ("info", "debug"),
    }
    assert heard == [configuration.live.current]
    assert configuration.live.current == Settings(max_waiting=2, log_level="debug")
    assert (done.version, configuration.version) == (2, 2)


async def test_a_reload_without_a_change_disturbs_nobody(configuration: Configuration) -> None:
    heard = hear_of_changes(configuration)
    done = await configuration.reload("request")
    assert (done.succeeded, done.changes, done.version) == (True, (), 1)
    assert done.message == "nothing has changed"
    assert heard == []


async def test_no_reload_lets_everybody_in(file: Path, tmp_path: Path) -> None:
    secured = f"data_dir: {tmp_path / 'data'}\nauth: {{api_keys: [a-key]}}\n"
    write(file, secured)
    configuration = Configuration(Sources(config=file))
    for cut_short in (secured.partition("auth")[0], secured.replace("[a-key]", "[]")):
        write(file, cut_short)
        done = await configuration.reload("file")
        assert (done.validity, done.restart_needed) == ("restart_needed", ("auth",))
        assert "nobody would have to sign in" in done.faults[0].problem
        assert configuration.live.current.auth.api_keys
    keys = SqlKeys(tmp_path / "data", now=lambda: 1_700_000_000.0)
    keys.create("ops", Credential(digest=b"", id="ops", role="admin"), is_managed=False)
    keys.close()
    assert (await configuration.reload("file")).succeeded  # others have keys, and go on
    assert not configuration.live.current.auth.api_keys


@pytest.mark.parametrize(
    "content",
    [b"max_waiting: 2\npolicy: fastest\n", b"max_waiting: [", b"\xff", b"max_waiting: 2\nx: 1\n"],
)
async def test_a_broken_reload_changes_nothing(
    configuration: Configuration, file: Path, content: bytes
) -> None:
    heard = hear_of_changes(configuration)
    before = configuration.live.current
    write(file, content)
    done = await configuration.reload("request")
    assert not done.succeeded
    assert (configuration.last, done.validity, done.version) == (done, "invalid", 1)
    assert "the settings in force stay" in done.message
    assert configuration.live.current is before
    assert heard == []
    write(file, "max_waiting: 2\n")
    mended = await configuration.reload("request")
    assert (mended.validity, configuration.live.current.max_waiting) == ("valid", 2)


async def test_a_file_that_is_gone_changes_nothing(
    configuration: Configuration, file: Path
) -> None:
    os.unlink(file)
    done = await configuration.reload("request")
    assert "cannot be read" in done.message
    assert configuration.live.current.max_waiting == 1


async def test_what_takes_a_restart_is_refused_with_everything_else_of_the_file(
    configuration: Configuration, file: Path
) -> None:
    before = configuration.live.current
    write(file, "max_waiting: 2\nmanagement: 127.0.0.1:9\ndata_dir: /srv\n")
    done = await configuration.reload("request")
    assert (done.validity, done.restart_needed) == ("restart_needed", ("management", "data_dir"))
    assert "restart needed for: management, data_dir" in done.message
    assert [fault.origin.line for fault in done.faults] == [2, 3]
    assert configuration.live.current is before


@pytest.mark.parametrize("name", [name for name, rule in RULES.items() if not rule.is_live])
async def test_each_setting_that_takes_a_restart_is_noticed(
    configuration: Configuration, file: Path, name: str
) -> None:
    other = {
        "inference": "127.0.0.1:1",
        "management": "127.0.0.1:1",
        "single_port": "true",
        "insecure": "true",
        "log_format": "json",
    }.get(name, "/nowhere")
    write(file, f"{name}: {other}\n")
    assert (await configuration.reload("request")).restart_needed == (name,)


async def test_dotenv_and_the_overlay_are_read_again_too(
    configuration: Configuration, file: Path
) -> None:
    write(file.with_name("paddler.test.yaml"), "heartbeat_misses: 9\n")
    write(file.with_name(".env"), "PADDLER_MAX_WAITING=7\n")
    write(file, "app: {environment: test}\nmax_waiting: 1\n")
    await configuration.reload("request")
    settings = configuration.live.current
    assert (settings.max_waiting, settings.heartbeat_misses) == (7, 9)
    assert configuration.loaded.environment == "test"


async def test_settings_of_another_program_stay_as_they_are() -> None:
    given = Settings(max_waiting=3, inference=Address("127.0.0.1", 0))
    configuration = Configuration.fixed(given)
    done = await configuration.reload("request")
    assert (done.succeeded, done.changes, configuration.live.current) == (True, (), given)
    with pytest.raises(SettingError, match="nobody has to sign in"):
        Configuration.fixed(Settings(inference=Address("0.0.0.0", 1)))


async def test_reloads_that_are_asked_for_at_once_are_done_one_after_the_other(
    configuration: Configuration, file: Path
) -> None:
    write(file, "max_waiting: 2\n")
    first, second = await asyncio.gather(
        configuration.reload("request"), configuration.reload("signal")
    )
    assert (bool(first.changes), second.changes) == (True, ())
    assert configuration.version == 2


class SlowReading:
    """Each reading of the sources goes on until it may end."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.begun = 0
        self.may_end = Event()
        read = Loading.result

        def slowly(loading: Loading) -> Loaded:
            self.begun += 1
            self.may_end.wait(10)
            return read(loading)

        monkeypatch.setattr(Loading, "result", slowly)


async def test_any_number_of_reloads_asked_for_meanwhile_are_one(
    configuration: Configuration, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = SlowReading(monkeypatch)
    async with asyncio.TaskGroup() as tasks:
        first = tasks.create_task(configuration.reload("request"))
        await eventually(lambda: reading.begun == 1, "the first")
        others = [tasks.create_task(configuration.reload("request")) for _ in range(50)]
        await asyncio.sleep(0)
        write(file, "max_waiting: 2\n")
        reading.may_end.set()
    assert reading.begun == 2
    (shared,) = {id(one.result()): one.result() for one in others}.values()
    assert (first.result() is not shared, configuration.last is shared) == (True, True)
    assert configuration.live.current.max_waiting == 2


async def test_reloads_that_are_given_up_take_one_thread_and_the_next_one_reads_anew(
    configuration: Configuration, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    reading = SlowReading(monkeypatch)
    async with asyncio.TaskGroup() as tasks:
        for _ in range(3):
            given_up = tasks.create_task(configuration.reload("request"))
            await eventually(lambda: reading.begun == 1, "the first")
            given_up.cancel()
            await asyncio.wait((given_up,))
    write(file, "max_waiting: 2\n")
    reading.may_end.set()
    assert (await configuration.reload("request")).changes
    assert reading.begun == 2


# --- when it is read by itself ---


@asynccontextmanager
async def watching(configuration: Configuration) -> AsyncIterator[ConfigReload]:
    reloading = ConfigReload(configuration, Audit(), interval_s=0.005)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(reloading.run())
        yield reloading
        task.cancel()


async def test_a_file_that_changes_is_read_again(configuration: Configuration, file: Path) -> None:
    async with watching(configuration):
        write(file, "max_waiting: 2\n")
        await eventually(lambda: configuration.live.current.max_waiting == 2, "a reload")
        replaced = file.with_name("new.yaml")
        write(replaced, "max_waiting: 3\n")
        os.replace(replaced, file)
        await eventually(lambda: configuration.live.current.max_waiting == 3, "a reload")
        write(file.with_name(".env"), "PADDLER_MAX_WAITING=4\n")
        await eventually(lambda: configuration.live.current.max_waiting == 4, "a reload")
        file.with_name(".env").unlink()
        await eventually(lambda: configuration.live.current.max_waiting == 3, "a reload")


async def test_a_reload_by_itself_is_in_the_audit_log_as_nobody_s_doing(
    configuration: Configuration, file: Path
) -> None:
    def noted() -> list[tuple[object, ...]]:
        lines = [line for line in logs if line["event"] == "audit"]
        return [(line["who"], line["outcome"], line["facts"]) for line in lines]

    with structlog.testing.capture_logs() as logs:
        async with watching(configuration) as reloading:
            write(file, "max_waiting: 2\n")
            await eventually(lambda: len(noted()) == 1, "a reload")
            write(file, "max_waiting: many\n")
            await eventually(lambda: len(noted()) == 2, "a reload that is refused")
            write(file, "max_waiting: 2\n")
            await eventually(lambda: len(noted()) == 3, "a reload")
            reloading.ask()
            await eventually(lambda: len(noted()) == 4, "a reload by a signal")
    assert noted() == [
        (None, "done", {"trigger": "file", "changed": ["policy", "max_waiting"], "faulty": []}),
        (None, "refused", {"trigger": "file", "changed": [], "faulty": ["max_waiting"]}),
        (None, "done", {"trigger": "file", "changed": [], "faulty": []}),
        (None, "done", {"trigger": "signal", "changed": [], "faulty": []}),
    ]


def publish(folder: Path, version: str, content: str) -> None:
    """As Kubernetes does with a ConfigMap: the file is a link into `..data`, which is a link that
    is renamed over."""
    (folder / version).mkdir()
    write(folder / version / "paddler.yaml", content)
    (folder / "..data_tmp").symlink_to(version)
    os.replace(folder / "..data_tmp", folder / "..data")


@pytest.fixture
def mounted(tmp_path: Path) -> Path:
    publish(tmp_path, "..1", "max_waiting: 1\n")
    file = tmp_path / "paddler.yaml"
    file.symlink_to("..data/paddler.yaml")
    return file


async def test_a_folder_that_kubernetes_swaps_is_followed(mounted: Path) -> None:
    configuration = Configuration(Sources(config=mounted))
    async with watching(configuration):
        publish(mounted.parent, "..2", "max_waiting: 2\n")
        await eventually(lambda: configuration.live.current.max_waiting == 2, "a reload")


class ScriptedConfiguration(Configuration):
    """Sees what the test says, look by look, and reads nothing."""

    def __init__(self, looks: list[int]) -> None:
        super().__init__(Sources())
        self.looks = looks
        self.read_at_look: list[int] = []
        self.look = 0

    def changed_files(self) -> dict[Path, Fingerprint]:
        self.look += 1
        seen = self.looks[min(self.look, len(self.looks)) - 1]
        return {Path("paddler.yaml"): (seen, 0, 0, 0)} if seen else {}

    async def reload(self, trigger: Trigger) -> Reload:
        del trigger
        self.read_at_look.append(self.look)
        return self.last


async def test_a_file_that_is_being_written_is_read_once_when_it_has_settled() -> None:
    configuration = ScriptedConfiguration([1, 2, 3, 4, 4, 0, 0, 5, 5, 0])
    async with watching(configuration):
        await eventually(lambda: configuration.look > 10, "the looks")
    assert configuration.read_at_look == [5, 9]


async def test_a_file_that_is_gone_or_no_file_for_a_while_is_read_when_it_is_back(
    configuration: Configuration, file: Path
) -> None:
    def is_refused_with(words: str) -> bool:
        return words in configuration.last.message

    async with watching(configuration):
        os.unlink(file)
        await eventually(lambda: is_refused_with("No such file"), "a refusal")
        os.mkdir(file)
        await eventually(lambda: is_refused_with("Is a directory"), "a refusal")
        os.rmdir(file)
        os.mkfifo(file)
        await eventually(lambda: is_refused_with("no regular file"), "a refusal")
        os.unlink(file)
        write(file, b"#" * (MAX_FILE_BYTES + 1))
        await eventually(lambda: is_refused_with("256 KiB"), "a refusal")
        assert configuration.live.current.max_waiting == 1
        write(file, "max_waiting: 2\n")
        await eventually(lambda: configuration.live.current.max_waiting == 2, "a reload")


@pytest.mark.parametrize("source", ["config", "dotenv", "overlay"])
def test_a_pipe_without_a_writer_holds_up_nobody(tmp_path: Path, source: str) -> None:
    names = {"config": "paddler.yaml", "dotenv": ".env", "overlay": "paddler.test.yaml"}
    file = tmp_path / "paddler.yaml"
    write(file, "app: {environment: test}\n" if source == "overlay" else "")
    (tmp_path / names[source]).unlink(missing_ok=True)
    os.mkfifo(tmp_path / names[source])
    with pytest.raises(SettingError, match="this is no regular file"):
        Configuration(Sources(config=file, dotenv=tmp_path / ".env"))


def test_a_file_that_others_may_read_now_is_another_one(file: Path) -> None:
    before = fingerprint(file)
    file.chmod(0o640)
    assert fingerprint(file) != before


async def test_a_broken_file_is_tried_once_and_again_when_it_changes(
    configuration: Configuration, file: Path
) -> None:
    attempts: list[str] = []
    reload = configuration.reload

    async def counted(trigger: str) -> object:
        attempts.append(trigger)
        return await reload(trigger)  # type: ignore[arg-type]  # a word of two

    configuration.reload = counted  # type: ignore[assignment,method-assign]  # it only counts
    async with watching(configuration) as reloading:
        write(file, "app: {environment: later}\nmax_waiting: 5\n")
        await eventually(lambda: configuration.last.validity == "invalid", "a reload")
        reloading.ask()
        await eventually(lambda: len(attempts) == 2, "a reload")
        write(file.with_name("paddler.later.yaml"), "policy: round_robin\n")
        await eventually(lambda: configuration.live.current.policy == "round_robin", "a reload")
    assert attempts == ["file", "signal", "file"]


async def test_a_fault_of_ours_does_not_end_the_watch(configuration: Configuration) -> None:
    calls: list[str] = []

    async def fail(trigger: str) -> object:
        calls.append(trigger)
        raise RuntimeError("a defect")

    configuration.reload = fail  # type: ignore[assignment,method-assign]  # a fault put in
    async with watching(configuration) as reloading:
        for count in (1, 2):
            reloading.ask()
            await eventually(lambda count=count: len(calls) == count, "the attempt")  # type: ignore[misc]  # default binds


async def test_a_reload_can_be_asked_for_without_a_change(configuration: Configuration) -> None:
    before = configuration.last
    async with watching(configuration) as reloading:
        reloading.ask()
        await eventually(lambda: configuration.last is not before, "a reload")
    assert configuration.last.succeeded


# --- the schema ---


def test_the_json_schema_allows_the_defaults_and_refuses_what_is_refused() -> None:
    schema = json_schema()
    Draft202012Validator.check_schema(schema)
    validator = Draft202012Validator(schema)
    defaults = {name: written(getattr(Settings(), name)) for name in RULES}
    assert validator.is_valid({**defaults, "app": {"environment": "test"}})
    for wrong in (
        {"max_wating": 1},
        {"max_waiting": -1},
        {"queue_timeout_s": "soon"},
        {"policy": "fastest"},
        {"inference": "8080"},
        {"image_hosts": "a"},
        {"app": {"environment": "../x"}},
    ):
        assert not validator.is_valid(wrong), wrong


def test_the_json_schema_tells_what_each_setting_takes() -> None:
    properties = json_schema()["properties"]
    assert properties["data_dir"]["x-applies"] == "restart"
    assert properties["queue_timeout_s"]["x-flag"] == "--queue-timeout"
    assert properties["queue_timeout_s"]["x-variable"] == "PADDLER_QUEUE_TIMEOUT_S"
    assert all(one["description"] for one in properties.values())
