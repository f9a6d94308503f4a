"""Which llama.cpp is built on which machine."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

PROGRAM = Path(__file__).parents[2] / "deploy" / "setup" / "llama_wheel.py"


@pytest.fixture(scope="module")
def llama_wheel() -> ModuleType:
    spec = importlib.util.spec_from_file_location("llama_wheel", PROGRAM)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["llama_wheel"] = module
    spec.loader.exec_module(module)
    return module


SAPPHIRE = (
    "flags\t\t: sse4_2 avx avx2 fma f16c bmi2 avx512f avx512cd avx512vl avx512dq avx512bw "
    "avx512vbmi avx512_vnni avx512_bf16 avx_vnni amx_tile amx_int8 amx_bf16\n"
)
HASWELL = "flags\t\t: sse4_2 avx avx2 fma f16c bmi2\n"


def test_listed_instruction_sets_are_switched_on_one_by_one(llama_wheel: ModuleType) -> None:
    args = llama_wheel.cmake_args("x86_64", llama_wheel.cpu_flags(SAPPHIRE), "")
    assert "-DGGML_NATIVE=OFF" in args
    for name in ("AVX2", "FMA", "F16C", "BMI2", "AVX512", "AVX512_VNNI", "AVX512_BF16", "AVX_VNNI"):
        assert f"-DGGML_{name}=ON" in args


def test_amx_is_never_built_even_where_it_is_listed(llama_wheel: ModuleType) -> None:
    args = llama_wheel.cmake_args("x86_64", llama_wheel.cpu_flags(SAPPHIRE), "")
    assert all(arg.endswith("=OFF") for arg in args if "AMX" in arg)


def test_what_is_not_listed_is_switched_off(llama_wheel: ModuleType) -> None:
    args = llama_wheel.cmake_args("x86_64", llama_wheel.cpu_flags(HASWELL), "")
    assert "-DGGML_AVX2=ON" in args
    assert "-DGGML_AVX512=OFF" in args


def test_only_what_every_core_lists_counts(llama_wheel: ModuleType) -> None:
    assert "avx512f" not in llama_wheel.cpu_flags(SAPPHIRE + HASWELL)
    assert llama_wheel.cpu_flags("") == frozenset()


def test_a_user_s_cmake_arguments_come_last_and_change_the_key(llama_wheel: ModuleType) -> None:
    plain = llama_wheel.cmake_args("x86_64", frozenset(), "")
    cuda = llama_wheel.cmake_args("x86_64", frozenset(), "-DGGML_CUDA=on")
    assert cuda == [*plain, "-DGGML_CUDA=on"]
    assert llama_wheel.cache_key("a==1", plain) != llama_wheel.cache_key("a==1", cuda)
    assert llama_wheel.cache_key("a==1", plain) != llama_wheel.cache_key("a==2", plain)


def test_other_machines_choose_for_themselves(llama_wheel: ModuleType) -> None:
    assert llama_wheel.cmake_args("aarch64", frozenset(), "") == []


def test_a_missing_compiler_is_said_with_the_remedy(
    llama_wheel: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(llama_wheel.CannotBuild, match="apt-get install build-essential"):
        llama_wheel.check_machine()


def test_a_finished_build_is_found_and_an_unfinished_one_is_not(
    llama_wheel: ModuleType, tmp_path: Path
) -> None:
    assert llama_wheel.finished_wheel(tmp_path) is None
    (tmp_path / "build.json").write_text('{"wheel": "a.whl", "seconds": 3.0}')
    assert llama_wheel.finished_wheel(tmp_path) is None
    (tmp_path / "a.whl").touch()
    assert llama_wheel.finished_wheel(tmp_path) == tmp_path / "a.whl"


def test_a_cache_folder_that_cannot_be_written_is_said_with_the_remedy(
    llama_wheel: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "paddler-py").touch()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["llama_wheel.py", "a==1"])
    assert llama_wheel.main() == 1
    assert "set XDG_CACHE_HOME" in capsys.readouterr().err
