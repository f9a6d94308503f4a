"""The page at /docs: one file of our own, nothing from anywhere else."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from functools import cache
from pathlib import Path

from msgspec import Struct

_FOLDER = Path(__file__).with_name("page_files")


class Page(Struct, frozen=True, kw_only=True):
    """The page, and what its browser is told to load: nothing but itself and our answers."""

    html: bytes
    policy: str


@cache
def page() -> Page:
    """Made once, whoever asks."""
    style = (_FOLDER / "page.css").read_text("utf-8")
    script = (_FOLDER / "page.js").read_text("utf-8")
    frame = (_FOLDER / "page.html").read_text("utf-8")
    html = frame.replace("{{style}}", style).replace("{{script}}", script)
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Page(html=html.encode(), policy=policy)


def _hash(text: str) -> str:
    """Of what stands between the tags: CSP level 3, section 2.3.1."""
    return "sha256-" + b64encode(hashlib.sha256(text.encode()).digest()).decode()
