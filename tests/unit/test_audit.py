"""What `make audit` makes of what others tell: a database that knows nothing has found nothing."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

from deploy.setup.audit import npm_faults, package_of, python_age, python_faults, shipped_files


def test_a_known_fault_is_named_with_its_remedy() -> None:
    fault = {"id": "PYSEC-1", "fix_versions": ["2.1", "3.0"]}
    packages: list[dict[str, Any]] = [
        {"name": "one", "version": "2.0", "vulns": [fault]},
        {"name": "two", "version": "1.0", "vulns": []},
        {"name": "three", "skip_reason": "not found"},
    ]
    told = python_faults({"dependencies": packages}, "Python")
    assert told.is_bad
    assert told.words == (
        "1 faults in the 2 of 3 packages that it knew; one 2.0: PYSEC-1, mended in 2.1, 3.0"
    )
    assert not python_faults({"dependencies": packages[1:]}, "Python").is_bad


def test_a_database_that_knows_no_package_was_not_asked() -> None:
    packages = [{"name": "one", "skip_reason": "not found"}]
    for report in (None, {"dependencies": packages}):
        told = python_faults(report, "Python")
        assert told.words.startswith("not asked")
        assert not told.is_bad


def test_npm_that_answers_with_an_error_was_not_asked() -> None:
    for report in (None, {"message": "405 Method Not Allowed"}):
        assert npm_faults(report, "npm").words.startswith("not asked")
    counted = {"metadata": {"dependencies": {"total": 7}}}
    assert not npm_faults({**counted, "vulnerabilities": {}}, "npm").is_bad
    told = npm_faults({**counted, "vulnerabilities": {"one": {"severity": "high"}}}, "npm")
    assert (told.is_bad, told.words) == (True, "1 of 7 packages have known faults; one: high")


def test_an_old_release_is_said_and_is_no_fault() -> None:
    rows = [{"name": "one", "version": "1.0", "latest_version": "2.0"}]
    told = python_age(rows, "age")
    assert (told.is_bad, told.words) == (False, "1 have a newer release; one 1.0 (newest: 2.0)")
    assert python_age(None, "age").words.startswith("not asked")


def test_a_shipped_file_that_was_never_published_is_named(tmp_path: Path) -> None:
    shipped, archive = tmp_path / "one@1.0.0", tmp_path / "one.tgz"
    shipped.mkdir()
    (shipped / "one.js").write_text("published")
    with tarfile.open(archive, "w:gz") as tar:
        row = tarfile.TarInfo("package/dist/one.module.js")
        row.size = len(b"published")
        tar.addfile(row, io.BytesIO(b"published"))
    assert not shipped_files(shipped, archive, "one").is_bad
    (shipped / "two.js").write_text("published, and a line more")
    told = shipped_files(shipped, archive, "one")
    assert (told.is_bad, told.words) == (True, "1 of 2 files are as published; two.js")
    assert shipped_files(shipped, None, "one").words.startswith("not asked")


def test_a_folder_names_its_package_on_npm() -> None:
    assert package_of("signals-core@1.14.5") == ("@preact/signals-core", "1.14.5")
    assert package_of("preact@10.29.8") == ("preact", "10.29.8")
