"""The dashboard's files as they are sent: read once, compressed once, named by their content.

A name that is not one of the files found then is not there: no path is ever made of what a
client sent.
"""

from __future__ import annotations

import gzip
import hashlib
import re
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from msgspec import Struct

FOLDER = Path(__file__).with_name("assets")
INDEX = "index.html"
_CONTENT_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".txt": "text/plain; charset=utf-8",
}
_FOR_EVER = "public, max-age=31536000, immutable"
_ASK_AGAIN = "no-cache"
_INLINE_SCRIPT = re.compile(r"<script type=\"importmap\">(.*?)</script>", re.DOTALL)


class Asset(Struct, frozen=True, kw_only=True):
    """One file. `etag` is quoted, as the header has it."""

    body: bytes
    compressed: bytes
    etag: str
    content_type: str
    cache_control: str

    @property
    def is_document(self) -> bool:
        """Whether a browser can show it as a page, with scripts of its own."""
        return self.content_type.startswith(("text/html", "image/svg+xml"))


@cache
def assets() -> Mapping[str, Asset]:
    """Every file by its path below `assets/`, with `/` between its parts."""
    return {
        path.relative_to(FOLDER).as_posix(): _asset(path)
        for path in sorted(FOLDER.rglob("*"))
        if path.is_file() and path.suffix in _CONTENT_TYPES
    }


def are_loaded() -> bool:
    """Whether `assets` has been called, and costs nothing any more."""
    return assets.cache_info().currsize > 0


@cache
def policy() -> str:
    """What the browser may load: our own files, and the one map of module names in the page."""
    found = _INLINE_SCRIPT.findall((FOLDER / INDEX).read_text("utf-8"))
    hashes = "".join(f" '{_hash(script)}'" for script in found)
    return (
        f"default-src 'none'; script-src 'self'{hashes}; style-src 'self'; connect-src 'self'; "
        "img-src 'self' data: blob:; manifest-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types paddler-plots"
    )


def _asset(path: Path) -> Asset:
    body = path.read_bytes()
    return Asset(
        body=body,
        compressed=gzip.compress(body, mtime=0),
        etag=f'"{hashlib.sha256(body).hexdigest()[:32]}"',
        content_type=_CONTENT_TYPES[path.suffix],
        # a vendored file's folder has its version, so what the name means never changes
        cache_control=_FOR_EVER if (FOLDER / "vendor") in path.parents else _ASK_AGAIN,
    )


def _hash(text: str) -> str:
    """Of what stands between the tags: CSP level 3, section 2.3.1."""
    return "sha256-" + b64encode(hashlib.sha256(text.encode()).digest()).decode()
