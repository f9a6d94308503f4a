"""Random bytes in a file: drawn once, its owner's alone."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from balancer.errors import SettingError
from balancer.storage.kept_secret import SECRET_BYTES, kept_secret


def test_a_secret_is_drawn_once_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    first = kept_secret(str(folder), "name")
    assert len(first) == SECRET_BYTES
    assert kept_secret(str(folder), "name") == first
    assert kept_secret(str(folder), "other") != first
    assert stat.S_IMODE((folder / "name").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert sorted(path.name for path in folder.iterdir()) == ["name", "other"]


def test_without_a_folder_it_is_another_one_each_time() -> None:
    assert kept_secret("", "name") != kept_secret("", "name")


def test_a_file_that_is_no_secret_is_refused_with_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "name").write_bytes(b"short")
    with pytest.raises(SettingError, match="delete it"):
        kept_secret(str(tmp_path), "name")


def test_a_folder_that_cannot_be_written_is_a_wrong_setting(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(SettingError, match="data_dir"):
        kept_secret(str(tmp_path / "file"), "name")
