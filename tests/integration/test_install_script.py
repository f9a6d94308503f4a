"""What deploy/install.sh and uninstall.sh say and do, without an environment being made: Python and
systemctl are programs that only pretend."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from tests.support.played_systemd import PROJECT

PYTHON = """#!/bin/sh
case "$1 $2" in
  "-m venv") mkdir -p "$3/bin" && cp "$0" "$3/bin/python" ;;
  "-m pip") echo "$*" >>"$(dirname "$0")/asked-of-pip" ;;
  "-V "*) echo "Python 3.12.0" ;;
esac
"""
SYSTEMCTL = """#!/bin/sh
echo "$*" >>"{calls}"
case "$*" in
  --version) echo "systemd {version} (a test's)" ;;
  show*ActiveState*) if [ -e "{state}/$4" ]; then echo active; else echo inactive; fi ;;
  "start paddler-balancer.service") [ ! -e "{state}/wrong" ] && touch "{state}/$2" ;;
  "start --no-block"*) touch "{state}/$3" ;;
  "restart paddler-agent@broken.service") exit 1 ;;
  "restart paddler-agent@cut.service") kill "$PPID" ;;
esac
"""


class Scripts:
    """The two scripts, on a machine that is a folder."""

    def __init__(self, folder: Path, systemd_version: int = 252) -> None:
        self.root = folder / "root"
        for name in ("etc/systemd/system", "run/systemd/system"):
            (self.root / name).mkdir(parents=True)
        self._bin = folder / "bin"
        self._bin.mkdir()
        self._calls = folder / "calls"
        self.state = folder / "state"
        self.state.mkdir()
        self.program("python3", PYTHON)
        self.program(
            "systemctl",
            SYSTEMCTL.format(calls=self._calls, state=self.state, version=systemd_version),
        )
        self._wheels = folder / "wheels"
        self._wheels.mkdir()

    def program(self, name: str, text: str) -> None:
        """One that the scripts find."""
        (self._bin / name).write_text(text)
        (self._bin / name).chmod(0o755)

    def wheel(self, version: str) -> None:
        """What `--wheels` finds from now on."""
        for former in self._wheels.iterdir():
            former.unlink()
        (self._wheels / f"paddler_py-{version}-py3-none-any.whl").write_text(version)

    def run(
        self, script: str, *arguments: str, **variables: str
    ) -> subprocess.CompletedProcess[str]:
        """The script with `--root`; nothing is asked of systemd's own programs."""
        self._calls.write_text("")
        return subprocess.run(
            [str(PROJECT / "deploy" / script), "--root", str(self.root), *arguments],
            env={"PATH": f"{self._bin}:{os.environ['PATH']}", **variables},
            capture_output=True,
            text=True,
            check=False,
        )

    def install(self, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return self.run("install.sh", *arguments, "--wheels", str(self._wheels), **variables)

    @property
    def calls(self) -> list[str]:
        """What the last run asked of systemctl that changes what runs."""
        lines = self._calls.read_text().splitlines()
        return [line for line in lines if line.startswith(("start", "stop", "restart", "--quiet"))]

    @property
    def release(self) -> str:
        """The one that services start from."""
        return (self.root / "opt/paddler-py/current").resolve().name


@pytest.fixture
def scripts(tmp_path: Path) -> Scripts:
    scripts = Scripts(tmp_path)
    scripts.wheel("0.1.0")
    return scripts


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["agent"], "give it a name, as in: agent gpu0"),
        (["gpu0"], "gpu0: say balancer, agent NAME or upgrade"),
        (["agent", "../etc"], "../etc cannot name an agent"),
        (["balancer", "--port"], "there is no option --port"),
        (["agent", "a", "--model", "/home/me/x.gguf"], "services see no homes; move it"),
        (["agent", "a", "--model", "x.gguf"], "give the whole path"),
        (["agent", "a", "--model", "/srv/x.gguf"], "there is no such file"),
        (["upgrade"], "nothing is installed that could be upgraded"),
        (["upgrade", "balancer"], "upgrade goes alone"),
        (["balancer", "--python", "python0"], "python0 is missing: apt-get install python3"),
        (["balancer", "--wheels", "/nowhere"], "--wheels: no such folder"),
        (["balancer", "--wheels", "/usr"], "there is no paddler_py-"),
        (["balancer", "--model"], "--model needs a value"),
    ],
)
def test_what_cannot_be_done_is_said_before_anything_is_touched(
    scripts: Scripts, arguments: list[str], complaint: str
) -> None:
    done = scripts.run("install.sh", *arguments)
    assert done.returncode == 1
    assert complaint in done.stderr
    assert not (scripts.root / "opt").exists()


@pytest.mark.parametrize("script", ["install.sh", "uninstall.sh"])
def test_an_environment_that_somebody_made_there_is_left_alone(
    scripts: Scripts, script: str
) -> None:
    own = scripts.root / "opt/paddler-py/pyvenv.cfg"
    own.parent.mkdir(parents=True)
    own.touch()
    words = ["balancer"] if script == "install.sh" else []
    assert "a virtual environment of your own" in scripts.run(script, *words).stderr
    assert own.exists()


def test_an_agent_that_lacks_its_settings_is_not_started(scripts: Scripts) -> None:
    done = scripts.install("balancer", "agent", "gpu0")
    assert done.returncode == 0, done.stderr
    assert "fill in /etc/paddler-py/agent-gpu0.env" in done.stdout
    assert scripts.calls == [
        "--quiet enable paddler-balancer.service",
        "start paddler-balancer.service",
    ]
    assert (scripts.root / "etc/paddler-py/agent-gpu0.env").stat().st_mode & 0o777 == 0o600


def test_a_balancer_that_does_not_come_up_is_told_and_can_be_installed_again(
    scripts: Scripts,
) -> None:
    (scripts.state / "wrong").touch()
    done = scripts.install("balancer")
    assert done.returncode == 1
    assert "paddler-balancer.service did not become ready; see journalctl -u" in done.stderr
    (scripts.state / "wrong").unlink()
    assert scripts.install("balancer").returncode == 0


def test_only_what_ran_before_is_restarted_for_another_release(scripts: Scripts) -> None:
    named = ["--balancer", "127.0.0.1:8081", "--model", "demo"]
    assert scripts.install("balancer").returncode == 0
    assert scripts.install("agent", "a", *named).returncode == 0
    assert [call for call in scripts.calls if "restart" in call] == [
        "restart paddler-balancer.service"
    ]
    scripts.wheel("0.2.0")
    assert scripts.install("balancer", "agent", "a").returncode == 0
    assert [call for call in scripts.calls if "restart" in call] == [
        "restart paddler-agent@a.service",
        "restart paddler-balancer.service",
    ]


def test_an_upgrade_that_was_cut_off_is_finished_by_the_next_one(scripts: Scripts) -> None:
    named = ["agent", "a", "cut", "--balancer", "127.0.0.1:8081", "--model", "demo"]
    assert scripts.install(*named).returncode == 0
    former = scripts.release
    scripts.wheel("0.2.0")
    assert scripts.install("upgrade").returncode < 0
    assert (scripts.root / "opt/paddler-py/former").resolve().name == former
    assert scripts.install("upgrade").returncode < 0
    assert "restart paddler-agent@a.service" in scripts.calls
    assert (scripts.root / "opt/paddler-py/releases" / former).exists()


def test_the_command_is_linked_where_nothing_has_its_name(scripts: Scripts) -> None:
    folder = scripts.root / "usr/local/bin"
    folder.mkdir(parents=True)
    assert scripts.install("balancer").returncode == 0
    link = folder / "paddler-py"
    assert str(link.readlink()) == "/opt/paddler-py/current/bin/paddler-py"
    assert scripts.install("balancer").returncode == 0
    assert scripts.run("uninstall.sh").returncode == 0
    assert not link.is_symlink()

    link.write_text("somebody's")
    assert "is not ours and stays" in scripts.install("balancer").stdout
    assert scripts.run("uninstall.sh").returncode == 0
    assert link.read_text() == "somebody's"


def test_what_an_existing_agent_s_file_says_is_not_overwritten_in_silence(
    scripts: Scripts,
) -> None:
    named = ["agent", "a", "--balancer", "127.0.0.1:8081", "--model", "demo"]
    assert "new agents" not in scripts.install(*named).stdout
    assert "--balancer and --model are for new agents" in scripts.install(*named).stdout


@pytest.mark.parametrize(
    ("named", "extras"),
    [(["balancer"], "balancer,top"), (["balancer", "agent", "gpu0"], "balancer,agent,gpu,top")],
)
def test_agents_on_a_host_with_nvidia_s_driver_can_tell_how_busy_their_gpus_are(
    scripts: Scripts, named: list[str], extras: str
) -> None:
    scripts.program("nvidia-smi", "#!/bin/sh\n")
    done = scripts.install(*named)
    assert done.returncode == 0, done.stderr
    asked = scripts.root / "opt/paddler-py/current/bin/asked-of-pip"
    assert asked.read_text().split()[-1] == f"paddler-py[{extras}]"


def test_an_upgrade_stops_at_the_first_service_that_does_not_come_up_and_goes_back(
    scripts: Scripts,
) -> None:
    named = ["agent", "a", "broken", "c", "--balancer", "127.0.0.1:8081", "--model", "demo"]
    assert scripts.install("balancer", *named).returncode == 0
    former = scripts.release
    scripts.wheel("0.2.0")
    done = scripts.install("upgrade")
    assert done.returncode == 1
    assert "paddler-agent@broken.service did not become ready on the new release" in done.stderr
    assert scripts.calls == [
        "restart paddler-agent@a.service",
        "restart paddler-agent@broken.service",
        "restart --no-block paddler-agent@broken.service",
        "restart paddler-agent@a.service",
    ]
    assert scripts.release == former


def test_an_upgrade_builds_as_the_installation_did(scripts: Scripts) -> None:
    assert scripts.install("agent", "a", CMAKE_ARGS="-DGGML_CUDA=ON").returncode == 0
    former = scripts.release
    upgraded = scripts.install("upgrade")
    assert "CMAKE_ARGS is as it was before: -DGGML_CUDA=ON" in upgraded.stdout
    assert scripts.release == former
    assert scripts.install("upgrade", CMAKE_ARGS="").returncode == 0
    assert scripts.release != former


def test_one_agent_can_go_alone_and_data_can_stay(scripts: Scripts) -> None:
    named = ["agent", "a", "b", "--balancer", "127.0.0.1:8081", "--model", "demo"]
    assert scripts.install("balancer", *named).returncode == 0
    assert scripts.run("uninstall.sh", "agent", "a").returncode == 0
    assert scripts.calls == [
        "stop paddler-agent@a.service",
        "--quiet disable paddler-agent@a.service",
    ]
    assert "there is no agent a here" in scripts.run("uninstall.sh", "agent", "a").stderr
    assert scripts.run("uninstall.sh", "--keep-data").returncode == 0
    kept = sorted(path.name for path in (scripts.root / "etc/paddler-py").iterdir())
    assert kept == ["agent-b.env", "balancer.env", "paddler.yaml"]
    assert not (scripts.root / "opt/paddler-py").exists()
    assert not list((scripts.root / "etc/systemd/system").iterdir())


@pytest.mark.parametrize(("version", "grows"), [(252, False), (254, True), (257, True)])
def test_pauses_between_starts_grow_where_systemd_can(
    tmp_path: Path, version: int, grows: bool
) -> None:
    scripts = Scripts(tmp_path, systemd_version=version)
    scripts.wheel("0.1.0")
    assert scripts.install("balancer").returncode == 0
    drop_in = scripts.root / "etc/systemd/system/paddler-balancer.service.d/backoff.conf"
    assert drop_in.exists() is grows
