"""`make audit`: what is known against the packages that we install, test with and ship.

Nobody's answer gates anything: what could not be asked is said, and ends with 0 as well. 1: a
package has a known fault, or a file that we ship is not the one that was published.
"""

from __future__ import annotations

import json
import subprocess
import sys
import sysconfig
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROJECT = Path(__file__).parents[2]
SHIPPED = PROJECT / "balancer/http/dashboard/assets/vendor"
NPM_FOLDERS = ("tests/web", "tests/browser/node", "tests/end_to_end/node")
_SCOPED = {"signals": "@preact/signals", "signals-core": "@preact/signals-core"}
_OURS = {"marked.esm.d.ts"}
_PATIENCE_S = 300


@dataclass(frozen=True, kw_only=True)
class Told:
    """One line of the report."""

    about: str
    words: str
    is_bad: bool = False


def python_faults(report: dict[str, Any] | None, about: str) -> Told:
    """What pip-audit's JSON says; it exits with 0 where its database knows none of the packages."""
    if report is None:
        return Told(about=about, words="not asked: pip-audit or its database was not reached")
    packages = report["dependencies"]
    asked = [package for package in packages if "skip_reason" not in package]
    if not asked:
        words = f"not asked: the database that was reached knew none of {len(packages)} packages"
        return Told(about=about, words=words)
    found = [
        f"{package['name']} {package['version']}: {fault['id']}, mended in "
        + (", ".join(fault["fix_versions"]) or "no release")
        for package in asked
        for fault in package["vulns"]
    ]
    words = f"{len(found)} faults in the {len(asked)} of {len(packages)} packages that it knew"
    return Told(about=about, words=_with(words, found), is_bad=bool(found))


def python_age(rows: list[dict[str, str]] | None, about: str) -> Told:
    """What pip says is older than its newest release: a fault's remedy is a release."""
    if rows is None:
        return Told(about=about, words="not asked: no package index was reached")
    older = [f"{row['name']} {row['version']} (newest: {row['latest_version']})" for row in rows]
    return Told(about=about, words=_with(f"{len(older)} have a newer release", older))


def npm_faults(report: dict[str, Any] | None, about: str) -> Told:
    """What `npm audit --json` says."""
    if report is None or "vulnerabilities" not in report:
        return Told(about=about, words="not asked: npm's audit was not reached")
    found = [f"{name}: {row['severity']}" for name, row in report["vulnerabilities"].items()]
    count = report["metadata"]["dependencies"]["total"]
    words = f"{len(found)} of {count} packages have known faults"
    return Told(about=about, words=_with(words, found), is_bad=bool(found))


def shipped_files(folder: Path, archive: Path | None, about: str) -> Told:
    """Whether each file of a shipped package is in the archive that was published."""
    if archive is None:
        return Told(about=about, words="not asked: npm was not reached")
    with tarfile.open(archive) as tar:
        published = {file.read() for member in tar if (file := tar.extractfile(member)) is not None}
    files = sorted(path for path in folder.iterdir() if path.name not in _OURS)
    other = [path.name for path in files if path.read_bytes() not in published]
    words = f"{len(files) - len(other)} of {len(files)} files are as published"
    return Told(about=about, words=_with(words, other), is_bad=bool(other))


def package_of(folder: str) -> tuple[str, str]:
    """Name and version on npm, of a shipped package's folder."""
    name, version = folder.split("@")
    return _SCOPED.get(name, name), version


def _with(words: str, items: list[str]) -> str:
    return "; ".join([words, *items])


def _output(*command: str, folder: Path = PROJECT) -> str:
    """What a program wrote; nothing where it is not there or takes too long."""
    try:
        done = subprocess.run(  # noqa: S603 (no shell, and the words are this program's)
            command, cwd=folder, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout


def _json(*command: str, folder: Path = PROJECT) -> Any:
    try:
        return json.loads(_output(*command, folder=folder))
    except ValueError:
        return None


def _python(auditor: str) -> Iterator[Told]:
    libraries = sysconfig.get_path("purelib")
    options = ["--path", libraries, "--format", "json", "--progress-spinner", "off"]
    yield python_faults(_json(auditor, *options), "Python, known faults")
    pip = [sys.executable, "-m", "pip", "list", "--local", "--exclude-editable", "--outdated"]
    yield python_age(_json(*pip, "--format", "json"), "Python, age")


def _tests() -> Iterator[Told]:
    for name in NPM_FOLDERS:
        report = _json("npm", "audit", "--json", folder=PROJECT / name)
        yield npm_faults(report, f"npm, {name}")


def _shipped(scratch: Path) -> Iterator[Told]:
    folders = sorted(path for path in SHIPPED.iterdir() if path.is_dir())
    wanted = dict(package_of(path.name) for path in folders)
    manifest = {"name": "shipped", "version": "1.0.0", "dependencies": wanted}
    (scratch / "package.json").write_text(json.dumps(manifest))
    _output("npm", "install", "--package-lock-only", "--ignore-scripts", folder=scratch)
    yield npm_faults(_json("npm", "audit", "--json", folder=scratch), "shipped, known faults")
    for path in folders:
        name, version = package_of(path.name)
        packed = _output("npm", "pack", "--silent", f"{name}@{version}", folder=scratch).strip()
        archive = scratch / packed if packed else None
        yield shipped_files(path, archive, f"shipped, {name} {version}")


def main() -> int:
    """Print the report; the argument is the pip-audit to ask."""
    is_bad = False
    with tempfile.TemporaryDirectory() as scratch:
        for part in (_python(sys.argv[1]), _tests(), _shipped(Path(scratch))):
            for told in part:
                print(f"{told.about}: {told.words}", flush=True)
                is_bad = is_bad or told.is_bad
    return int(is_bad)


if __name__ == "__main__":
    raise SystemExit(main())
