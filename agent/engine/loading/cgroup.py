"""The control groups this process is in: where a container's limits on CPU and memory are kept.

Groups nest, and every limit on the way up binds. Version 2 has one tree, version 1 one a
controller; both may be mounted at once. See the kernel's admin-guide/cgroup-v2.rst and -v1.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

MEMBERSHIP = Path("/proc/self/cgroup")
MOUNT = Path("/sys/fs/cgroup")


def folders(controller: str) -> Iterator[Path]:
    """The folders of our groups that have a say about `controller`, innermost first.

    Without a cgroup namespace a container's path is the host's, which is not visible inside: then
    only the folder of the mount is left, and that is the container's own.
    """
    for path, mounts in _memberships(controller):
        for mount in mounts:
            inner = mount / path
            for folder in (inner, *inner.parents):
                if folder.is_dir():
                    yield folder
                if folder == mount:
                    break


def number(file: Path) -> int | None:
    """The number in a file; None: no such file, "max", or -1, which all mean no limit."""
    try:
        text = file.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None


def _memberships(controller: str) -> Iterator[tuple[str, tuple[Path, ...]]]:
    """Paths of our groups below their mounts, with the mounts that there may be."""
    try:
        lines = MEMBERSHIP.read_text().splitlines()
    except OSError:
        lines = []
    for line in lines:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        path = path.lstrip("/")
        if ".." in Path(path).parts:  # a group outside of our namespace's root
            path = ""
        if not controllers:
            yield path, (MOUNT, MOUNT / "unified")
        elif controller in controllers.split(","):
            yield path, (MOUNT / controller,)
