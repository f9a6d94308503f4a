"""Random bytes that outlive the process: a file that only its owner may read."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from balancer.errors import SettingError

SECRET_BYTES = 32


def kept_secret(folder: str, name: str) -> bytes:
    """The `SECRET_BYTES` in a file of the folder, drawn and written at its first use; without a
    folder they are new each time. Raises `SettingError`."""
    if not folder:
        return secrets.token_bytes(SECRET_BYTES)
    path = Path(folder) / name
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write_once(path)
        found = path.read_bytes()
    except OSError as error:
        raise SettingError(
            f"data_dir: {path} cannot be used ({error.strerror}); give the balancer's user the "
            "folder and all that is in it"
        ) from error
    if len(found) != SECRET_BYTES:
        raise SettingError(
            f"data_dir: {path} has {len(found)} bytes in place of {SECRET_BYTES}; delete it, and a "
            "new one is drawn"
        )
    return found


def _write_once(path: Path) -> None:
    """Under another name first: nobody ever finds half of it."""
    if path.exists():
        return
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as file:
            file.write(secrets.token_bytes(SECRET_BYTES))
            file.flush()
            os.fsync(file.fileno())
        draft.rename(path)
    finally:
        draft.unlink(missing_ok=True)
