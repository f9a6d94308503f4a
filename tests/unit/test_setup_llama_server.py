"""Which llama-server is built, and where it is kept."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.setup import llama_server, llama_wheel

ARGS = ["-DGGML_NATIVE=OFF", "-DGGML_AVX2=ON"]


def test_it_is_kept_under_the_wheel_s_key_beside_the_wheels(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder = llama_server.server_folder("a==1", ARGS)
    assert folder.name == llama_wheel.cache_key("a==1", ARGS)
    assert folder.parent == tmp_path / "paddler-py" / "llama-server"


def test_the_build_downloads_nothing_and_leaves_instruction_sets_to_the_wheel_s_flags() -> None:
    assert "-DLLAMA_USE_PREBUILT_UI=OFF" in llama_server.PEER_ARGS
    assert not any("GGML_" in arg for arg in llama_server.PEER_ARGS)


def test_an_unfinished_build_is_not_taken(tmp_path: Path) -> None:
    program = tmp_path / "bin" / "llama-server"
    program.parent.mkdir()
    program.touch()
    assert llama_server.finished_server(tmp_path) is None
    (tmp_path / "build.json").write_text("{}")
    assert llama_server.finished_server(tmp_path) == program
    program.unlink()
    assert llama_server.finished_server(tmp_path) is None


def test_a_missing_cmake_is_said_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(llama_wheel.CannotBuild, match="apt-get install cmake"):
        llama_server.find_cmake()


def test_a_failed_step_says_where_its_log_is(tmp_path: Path) -> None:
    log = tmp_path / "build.log"
    with pytest.raises(llama_wheel.CannotBuild, match=r"build\.log\nwhat went wrong"):
        llama_server.run(["sh", "-c", "echo what went wrong; exit 3"], log)
