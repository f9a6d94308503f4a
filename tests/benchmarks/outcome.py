"""Where a benchmark's figures go: JSON for programs, a table for people."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.cluster import PROJECT

FOLDER = PROJECT / "out" / "benchmarks"


def keep(name: str, document: dict[str, Any], table: str, *, folder: Path = FOLDER) -> None:
    """Print the table, and write both to files of this name."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(document, indent=1))
    (folder / f"{name}.txt").write_text(table + "\n")
    print(f"\n{table}\n", flush=True)
