"""Build llama-server, the benchmarks' peer, from the source that llama-cpp-python's sdist carries.

Run as `python -m deploy.setup.llama_server llama-cpp-python==X` from the project's root. Same
source, instruction sets and build type as the wheel (`llama_wheel`), and kept under the same key in
the user's cache folder, so that the two differ in what is above llama.cpp and in nothing else. The
program's path goes to standard output. It needs CMake; nothing but the sdist is downloaded.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from pathlib import Path

from deploy.setup.llama_wheel import (
    CannotBuild,
    cache_dir,
    cache_key,
    check_machine,
    locked,
    machine_args,
    say,
)

# what the wheel's own CMakeLists sets, and what keeps the build offline and short
PEER_ARGS = (
    "-DCMAKE_BUILD_TYPE=Release",
    "-DBUILD_SHARED_LIBS=ON",
    "-DCMAKE_BUILD_WITH_INSTALL_RPATH=ON",
    "-DCMAKE_INSTALL_RPATH=$ORIGIN",
    "-DLLAMA_CURL=OFF",
    "-DLLAMA_OPENSSL=OFF",
    "-DLLAMA_BUILD_UI=OFF",
    "-DLLAMA_USE_PREBUILT_UI=OFF",
    "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF",
    "-DLLAMA_BUILD_APP=OFF",
    "-DLLAMA_BUILD_TOOLS=ON",
    "-DLLAMA_BUILD_SERVER=ON",
)


def server_folder(requirement: str, args: list[str]) -> Path:
    """Where the peer of this requirement and these flags is kept; the wheel's key."""
    return cache_dir().parent / "llama-server" / cache_key(requirement, args)


def finished_server(folder: Path) -> Path | None:
    """The program of a build that ran to its end, if there is one."""
    program = folder / "bin" / "llama-server"
    return program if (folder / "build.json").exists() and program.exists() else None


def find_cmake() -> str:
    """The path of CMake; `CannotBuild` with the remedy where there is none."""
    cmake = shutil.which("cmake")
    if cmake is None:
        raise CannotBuild(
            "cmake is not found, and llama-server is built with it. "
            "On Debian or Ubuntu: apt-get install cmake; anywhere: pip install cmake."
        )
    return cmake


def fetch_source(requirement: str, folder: Path, log_path: Path) -> Path:
    """Download the sdist, unpack it into `folder`; the path of llama.cpp in it."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir"]
    command += ["--no-binary", "llama-cpp-python", "--dest", str(folder), requirement]
    run(command, log_path)
    archive = next(folder.glob("llama_cpp_python-*.tar.gz"))
    with tarfile.open(archive) as tar:
        tar.extractall(folder, filter="data")
    return next(folder.glob("llama_cpp_python-*/vendor/llama.cpp"))


def run(command: list[str], log_path: Path) -> None:
    """One step of the build, its output appended to the log; `CannotBuild` when it fails."""
    with log_path.open("ab") as log:
        done = subprocess.run(  # noqa: S603 (no shell, and the words are this program's)
            command, stdout=log, stderr=subprocess.STDOUT, check=False
        )
    if done.returncode != 0:
        tail = "\n".join(log_path.read_text(errors="replace").splitlines()[-8:])
        raise CannotBuild(f"the llama-server build failed; the whole log: {log_path}\n{tail}")


def build(requirement: str, args: list[str], folder: Path) -> Path:
    """Configure, compile the one target, keep program and libraries, drop source and objects."""
    check_machine()
    cmake = find_cmake()
    say(f"building llama-server from the PyPI source of {requirement}; several minutes, once")
    started = time.monotonic()
    log_path = folder / "build.log"
    log_path.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        source = fetch_source(requirement, Path(temporary), log_path)
        tree = Path(temporary) / "build"
        generator = ["-G", "Ninja"] if shutil.which("ninja") else []
        run([cmake, "-S", str(source), "-B", str(tree), *generator, *args, *PEER_ARGS], log_path)
        jobs = str(os.cpu_count() or 1)
        run([cmake, "--build", str(tree), "--target", "llama-server", "-j", jobs], log_path)
        shutil.rmtree(folder / "bin", ignore_errors=True)
        shutil.move(tree / "bin", folder / "bin")
    seconds = time.monotonic() - started
    record = {"seconds": round(seconds, 1), "requirement": requirement, "cmake_args": args}
    (folder / "build.json").write_text(json.dumps(record, indent=1))
    say(f"llama-server built in {seconds:.0f} s, kept in {folder}")
    return folder / "bin" / "llama-server"


def llama_server(requirement: str) -> Path:
    """The program for the requirement, built if need be. Raises `CannotBuild` and `OSError`."""
    args = machine_args()
    folder = server_folder(requirement, args)
    with locked(folder):
        return finished_server(folder) or build(requirement, args, folder)


def main() -> int:
    """Print the path of llama-server for the requirement in argv."""
    try:
        print(llama_server(sys.argv[1]))
    except CannotBuild as problem:
        say(str(problem))
        return 1
    except OSError as problem:
        say(f"{problem}; set XDG_CACHE_HOME to a folder that can be written")
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
