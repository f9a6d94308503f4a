"""Where the peers' programs come from: built or installed once, into the user's cache folder."""

from __future__ import annotations

import importlib.metadata
import os
import re
import subprocess
import sys
from functools import cache
from pathlib import Path

from deploy.setup.llama_server import llama_server
from deploy.setup.llama_wheel import CannotBuild, cache_dir
from tests.benchmarks.peers.process import CannotStart

PACKAGE = "llama-cpp-python"


@cache
def llama_server_program() -> Path:
    """llama-server from the same source and flags as the installed wheel; builds it if need be."""
    try:
        return llama_server(f"{PACKAGE}=={importlib.metadata.version(PACKAGE)}")
    except (CannotBuild, OSError) as error:
        raise CannotStart(str(error)) from error


@cache
def llama_cpp_server_environment() -> dict[str, str]:
    """What `python -m llama_cpp.server` needs beside the wheel: the packages of its extra.

    They are installed into a folder of their own, so that the project's environment stays as it is.
    """
    version = importlib.metadata.version(PACKAGE)
    folder = cache_dir().parent / "llama-cpp-server" / f"{version}-{sys.version_info[1]}"
    if not (folder / "uvicorn").exists():
        wanted = [
            re.split(r"\s*;", requirement)[0]
            for requirement in importlib.metadata.requires(PACKAGE) or ()
            if re.search(r"extra == .server.", requirement)
        ]
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder)]
        done = subprocess.run([*command, *wanted], capture_output=True, text=True, check=False)
        if done.returncode != 0:
            raise CannotStart(f"pip could not install {wanted}: {done.stderr[-500:]}")
    return {
        "PYTHONPATH": os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))
    }
