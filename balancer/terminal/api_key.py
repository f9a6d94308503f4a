"""The key with which a program calls a server: an option of those that may need one."""

from __future__ import annotations

from pathlib import Path

import click

_MOST_KEY_CHARS = 4096

key_file_option = click.option(
    "--key-file",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="A file with an API key.",
)


def key_of(path: Path | None, otherwise: str | None = None) -> str:
    """The key in the file, or the other one where no file is named; empty without either.

    Raises `UsageError` where the file cannot be read or has no key.
    """
    if path is None:
        return (otherwise or "").strip()
    try:
        with path.open(encoding="ascii") as file:
            key = file.read(_MOST_KEY_CHARS).strip()
    except (OSError, UnicodeDecodeError) as error:
        raise click.UsageError(f"--key-file {path} cannot be read: {error}") from error
    if not key or not key.isprintable():
        raise click.UsageError(f"--key-file {path} has to have one line, the key")
    return key


def headers_with(key: str) -> dict[str, str]:
    """What a request says of who sends it."""
    return {"Authorization": f"Bearer {key}"} if key else {}
