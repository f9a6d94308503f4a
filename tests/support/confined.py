"""`python confined.py FILE COMMAND…`: the command, under what a unit forbids and the kernel can see
to without systemd. Standard library only.

FILE lists, one a line, the system calls that are allowed; `socket FAMILY` allows that number's.
Every other call fails with EPERM (SystemCallErrorNumber). No privileges are gained, and no memory
is both written and run (from Linux 6.3 on).
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from pathlib import Path

PR_SET_NO_NEW_PRIVS = 38
PR_SET_MDWE = 65
ACT_ALLOW = 0x7FFF0000
ACT_ERRNO = 0x00050000
EQUAL = 4


class Comparison(ctypes.Structure):
    """libseccomp's scmp_arg_cmp."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("one", ctypes.c_uint64),
        ("other", ctypes.c_uint64),
    )


def forbid_all_but(allowed: list[str]) -> None:
    """Load a filter. Raises `OSError` where libseccomp is missing or the kernel refuses."""
    seccomp = ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(seccomp.seccomp_init(ACT_ERRNO | errno.EPERM))
    for line in allowed:
        name, _, family = line.partition(" ")
        call = seccomp.seccomp_syscall_resolve_name(name.encode())
        if call < 0:
            continue  # not of this machine
        comparison = Comparison(0, EQUAL, int(family or 0), 0)
        seccomp.seccomp_rule_add_array(
            rules, ACT_ALLOW, call, 1 if family else 0, ctypes.byref(comparison)
        )
    if seccomp.seccomp_load(rules) != 0:
        raise OSError("the filter was refused")


def main(file: str, *command: str) -> None:
    """Never returns."""
    libc = ctypes.CDLL(None)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    libc.prctl(PR_SET_MDWE, 1, 0, 0, 0)
    forbid_all_but(Path(file).read_text().splitlines())
    os.execv(command[0], command)  # noqa: S606 (no shell is the point: a test names the program)


if __name__ == "__main__":
    main(*sys.argv[1:])
