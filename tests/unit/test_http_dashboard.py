"""The dashboard's files: those of others are as they were published, and little is loaded first."""

from __future__ import annotations

import gzip
import hashlib
import re

import pytest

from balancer.http.dashboard.assets import FOLDER, INDEX, assets, policy

VENDORED = FOLDER / "vendor"
_OURS = {"SHA256SUMS", "marked.esm.d.ts"}
FIRST_PAINT_BYTES = 100_000


def _listed() -> dict[str, str]:
    lines = (VENDORED / "SHA256SUMS").read_text("utf-8").splitlines()
    return {name: digest for digest, name in (line.split("  ") for line in lines)}


def test_each_file_of_others_has_the_checksum_it_was_published_with() -> None:
    found = {
        path.relative_to(VENDORED).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in VENDORED.rglob("*")
        if path.is_file() and path.name not in _OURS
    }
    assert found == _listed()


def test_each_library_of_others_comes_with_its_version_and_licence() -> None:
    for folder in VENDORED.iterdir():
        if folder.is_dir():
            assert re.fullmatch(r"[a-z-]+@\d+\.\d+\.\d+", folder.name), folder.name
            assert (folder / "LICENSE").is_file(), folder.name


def test_the_policy_lets_no_script_or_style_in_that_is_not_ours() -> None:
    assert "default-src 'none'" in policy()
    assert "require-trusted-types-for 'script'; trusted-types paddler-plots" in policy()
    assert "unsafe" not in policy()


def test_what_the_page_names_is_there() -> None:
    html = (FOLDER / INDEX).read_text("utf-8")
    named = re.findall(r"\"/assets/([^\"]+)\"", html)
    assert len(named) > 10
    assert [name for name in named if name not in assets()] == []


def test_nothing_of_ours_makes_nodes_of_text() -> None:
    for path in (FOLDER / "app").rglob("*.js"):
        text = path.read_text("utf-8")
        assert not re.search(r"\.(innerHTML|outerHTML)\b|insertAdjacentHTML|eval\(", text), (
            path.name
        )


def test_everything_that_the_overview_needs_is_less_than_100_kb_compressed() -> None:
    later = re.compile(r"app/(pages/(?!overview)|playground/|logs/|requests/)")
    names = [name for name in assets() if not later.match(name)]
    assert sum(len(assets()[name].compressed) for name in names) < FIRST_PAINT_BYTES


@pytest.mark.parametrize("name", ["index.html", "app/main.js", "styles/base.css"])
def test_a_compressed_file_is_the_same_file(name: str) -> None:
    assert gzip.decompress(assets()[name].compressed) == assets()[name].body
