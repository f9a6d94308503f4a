"""Build llama-cpp-python once per machine and keep the wheel in the user's cache folder.

Standard library only: it runs before anything is installed. The wheel's path goes to standard
output, everything meant for people to standard error.

The build is never `native`: on some virtual machines the AMX kernels that a native build selects
die at the first decode (tile state not enabled by the hypervisor). The instruction sets that
/proc/cpuinfo lists are switched on one by one, AMX never. `CMAKE_ARGS` is honoured, for example
`CMAKE_ARGS=-DGGML_CUDA=on`, and is part of the cache key.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import platform
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

# ggml's switch -> the flags /proc/cpuinfo must all list for it
X86_SWITCHES: dict[str, tuple[str, ...]] = {
    "GGML_SSE42": ("sse4_2",),
    "GGML_AVX": ("avx",),
    "GGML_AVX2": ("avx2",),
    "GGML_FMA": ("fma",),
    "GGML_F16C": ("f16c",),
    "GGML_BMI2": ("bmi2",),
    "GGML_AVX_VNNI": ("avx_vnni",),
    "GGML_AVX512": ("avx512f", "avx512cd", "avx512vl", "avx512dq", "avx512bw"),
    "GGML_AVX512_VBMI": ("avx512vbmi",),
    "GGML_AVX512_VNNI": ("avx512_vnni",),
    "GGML_AVX512_BF16": ("avx512_bf16",),
}
NEVER = ("GGML_AMX_TILE", "GGML_AMX_INT8", "GGML_AMX_BF16")


class CannotBuild(Exception):
    """The machine lacks something; the message says what to install or set."""


def cache_dir() -> Path:
    """The user's cache folder for wheels; `XDG_CACHE_HOME` is honoured."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "paddler-py" / "wheels"


def cpu_flags(cpuinfo: str) -> frozenset[str]:
    """The instruction sets that every core of /proc/cpuinfo's text lists."""
    cores = [
        set(line.partition(":")[2].split())
        for line in cpuinfo.splitlines()
        if line.startswith("flags")
    ]
    return frozenset(set.intersection(*cores)) if cores else frozenset()


def cmake_args(machine: str, flags: frozenset[str], extra: str) -> list[str]:
    """CMake arguments for this machine. `extra` (CMAKE_ARGS) comes last, so it wins."""
    args: list[str] = []
    if machine in {"x86_64", "AMD64"}:
        args.append("-DGGML_NATIVE=OFF")
        for switch, needs in X86_SWITCHES.items():
            args.append(f"-D{switch}={'ON' if flags.issuperset(needs) else 'OFF'}")
        args += [f"-D{switch}=OFF" for switch in NEVER]
    return args + shlex.split(extra)


def machine_args() -> list[str]:
    """`cmake_args` for this machine and the `CMAKE_ARGS` in the environment."""
    cpuinfo = Path("/proc/cpuinfo")
    flags = cpu_flags(cpuinfo.read_text()) if cpuinfo.exists() else frozenset()
    return cmake_args(platform.machine(), flags, os.environ.get("CMAKE_ARGS", ""))


def cache_key(requirement: str, args: list[str]) -> str:
    """What a build is stored under: the exact requirement, machine, libc and flags."""
    facts = [requirement, platform.machine(), *platform.libc_ver(), *args]
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()[:16]


def check_machine() -> None:
    """Raise `CannotBuild` with the remedy when there is no C++ compiler."""
    compiler = os.environ.get("CXX")
    if compiler and shutil.which(shlex.split(compiler)[0]):
        return
    if any(shutil.which(name) for name in ("c++", "g++", "clang++")):
        return
    raise CannotBuild(
        "no C++ compiler found, and llama.cpp is built from source. "
        "On Debian or Ubuntu: apt-get install build-essential. Elsewhere set CXX."
    )


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One build of a key at a time; a second process waits and then finds the wheel."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def finished_wheel(folder: Path) -> Path | None:
    """The wheel of a build that ran to its end, if there is one."""
    record = folder / "build.json"
    if not record.exists():
        return None
    wheel = folder / json.loads(record.read_text())["wheel"]
    return wheel if wheel.exists() else None


def build(requirement: str, args: list[str], folder: Path) -> Path:
    """Run pip's wheel build with these CMake arguments; the log stays in the folder."""
    check_machine()
    log_path = folder / "build.log"
    say(f"building llama.cpp from its PyPI source ({requirement}); a few minutes, once per machine")
    started = time.monotonic()
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-cache-dir"]
    command += ["--no-binary", "llama-cpp-python", "--wheel-dir", str(folder), requirement]
    environment = {**os.environ, "CMAKE_ARGS": shlex.join(args)}
    with log_path.open("wb") as log:
        done = subprocess.run(  # noqa: S603 (no shell, and the words are this program's)
            command, env=environment, stdout=log, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode != 0:
        tail = "\n".join(log_path.read_text(errors="replace").splitlines()[-8:])
        raise CannotBuild(f"the llama.cpp build failed; the whole log: {log_path}\n{tail}")
    seconds = time.monotonic() - started
    wheel = max(folder.glob("llama_cpp_python-*.whl"), key=lambda path: path.stat().st_mtime)
    record = {"wheel": wheel.name, "seconds": round(seconds, 1), "cmake_args": args}
    (folder / "build.json").write_text(json.dumps(record, indent=1))
    say(f"llama.cpp built in {seconds:.0f} s, kept in {folder}")
    return wheel


def say(text: str) -> None:
    """One line for the person at the terminal."""
    print(f"[llama.cpp] {text}", file=sys.stderr, flush=True)


def main() -> int:
    """Print the path of the wheel for the requirement in argv, building it if need be."""
    requirement = sys.argv[1]
    args = machine_args()
    folder = cache_dir() / cache_key(requirement, args)
    try:
        with locked(folder):
            wheel = finished_wheel(folder)
            if wheel is not None:
                seconds = json.loads((folder / "build.json").read_text())["seconds"]
                say(f"using the build kept in the cache (it took {seconds:.0f} s)")
            else:
                wheel = build(requirement, args, folder)
    except CannotBuild as problem:
        say(str(problem))
        return 1
    except OSError as problem:
        say(f"{problem}; set XDG_CACHE_HOME to a folder that can be written")
        return 1
    print(wheel)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
