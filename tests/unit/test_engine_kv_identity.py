"""Whose KV cache is whose: one key for the same file and layout, another for any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from agent.chat import system_turns
from agent.commands.served import served
from agent.engine.frames import EngineOptions
from agent.engine.kv_identity import HEAD_BYTES, SAMPLE_BYTES, file_digest, kv_layout
from agent.settings import BalancerAddress, Settings
from tests.support.fake_engine import FACTS

SETTINGS = Settings(balancer=BalancerAddress("h", 1), model_path=Path("m.gguf"))
SIZE = 4 * HEAD_BYTES


def changed(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def test_equal_files_have_equal_digests_wherever_they_lie(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(bytes(SIZE))
    assert file_digest(str(tmp_path / "a")) == file_digest(str(tmp_path / "b"))


@pytest.mark.parametrize("data", [b"", b"GGUF", bytes(SAMPLE_BYTES), bytes(SIZE)])
def test_files_of_any_size_have_a_digest_of_their_own(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "b").write_bytes(data + b"\0")
    assert file_digest(str(tmp_path / "a")) != file_digest(str(tmp_path / "b"))


@pytest.mark.parametrize("at", [0, HEAD_BYTES - 1, SIZE - SAMPLE_BYTES, SIZE - 1])
def test_another_beginning_or_end_is_another_file(tmp_path: Path, at: int) -> None:
    (tmp_path / "a").write_bytes(bytes(SIZE))
    (tmp_path / "b").write_bytes(changed(bytes(SIZE), at))
    assert file_digest(str(tmp_path / "a")) != file_digest(str(tmp_path / "b"))


def test_other_weights_of_the_same_size_are_another_file(tmp_path: Path) -> None:
    size = 80 * HEAD_BYTES
    (tmp_path / "a").write_bytes(bytes(size))
    (tmp_path / "b").write_bytes(bytes(HEAD_BYTES) + b"\1" * (size - HEAD_BYTES))
    assert file_digest(str(tmp_path / "a")) != file_digest(str(tmp_path / "b"))


def layout(slots: int = 4, **options: Any) -> str:
    return kv_layout(EngineOptions(model_path="", **options), slots=slots)


def test_a_layout_is_of_types_streams_and_flash_attention() -> None:
    layouts = [
        layout(),
        layout(slots=8),
        layout(unified_kv="on"),
        layout(cache_type="f32"),
        layout(cache_type="q8_0"),
        layout(flash_attention="off"),
        layout(flash_attention="on"),
    ]
    assert len(set(layouts)) == len(layouts)


def test_slots_of_a_unified_cache_and_threads_and_batches_make_no_difference() -> None:
    assert layout(unified_kv="on", slots=2) == layout(unified_kv="on", slots=9)
    assert layout(threads=1, batch_tokens=64) == layout(threads=8, context_tokens=9999)
    # a quantised cache needs flash attention, so that "auto" is "on"
    assert layout(cache_type="q8_0") == layout(cache_type="q8_0", flash_attention="on")


def test_a_kv_key_differs_where_the_resume_key_the_file_the_build_or_the_layout_do() -> None:
    facts = structs.replace(FACTS, file_digest="f", kv_layout="k")
    others: list[dict[str, Any]] = [
        {"tokenizer_digest": "x"},
        {"file_digest": "x"},
        {"llama_cpp_version": "x"},
        {"kv_layout": "x"},
    ]
    keys = {served(structs.replace(facts, **other), SETTINGS).kv_key for other in others}
    keys |= {served(facts, SETTINGS).kv_key, served(FACTS, SETTINGS).kv_key}
    assert len(keys) == len(others) + 2
    assert served(FACTS, SETTINGS).kv_key == ""
    assert served(facts, SETTINGS) == served(facts, SETTINGS)


def test_agents_that_make_other_prompts_of_system_turns_go_on_with_nobody_elses_generations(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = served(FACTS, SETTINGS).resume_key
    monkeypatch.setattr(system_turns, "REVISION", "system-turns-0")
    assert served(FACTS, SETTINGS).resume_key != before
