"""What is read of a model file before it is loaded, and what is wrong with bad ones."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.engine.loading import gguf_file
from agent.engine.loading.gguf_file import read_gguf
from agent.errors import ModelRejected, ModelUnusable
from tests.support.tiny_gguf import tokens, write_tiny_gguf


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    return write_tiny_gguf(tmp_path / "tiny.gguf")


def test_metadata_and_tensors_are_what_was_written(tiny: Path) -> None:
    header = read_gguf(tiny)
    assert header.metadata["general.architecture"] == "llama"
    assert header.metadata["llama.context_length"] == 512
    assert header.metadata["tokenizer.ggml.add_bos_token"] is False
    assert header.metadata["tokenizer.ggml.tokens"] == tuple(tokens())
    assert header.counts["tokenizer.ggml.tokens"] == len(tokens())
    sizes = {tensor.name: tensor.size_bytes for tensor in header.tensors}
    assert sizes["blk.0.ffn_up.weight"] == 4 * 32 * 64
    reader = gguf.GGUFReader(str(tiny))
    assert sizes == {tensor.name: tensor.n_bytes for tensor in reader.tensors}


def test_every_tensor_type_has_the_size_that_ggml_gives_it() -> None:
    # types that are made while computing and lie in no file
    never_written = {gguf.GGMLQuantizationType.Q8_1}
    for kind, sizes in gguf.GGML_QUANT_SIZES.items():
        if kind not in never_written:
            assert gguf_file._BLOCKS[kind] == sizes, kind.name


def test_a_tensor_of_an_unknown_type_reaches_to_the_next_one(
    tiny: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = {tensor.name: tensor.size_bytes for tensor in read_gguf(tiny).tensors}
    monkeypatch.setattr(gguf_file, "_BLOCKS", {})
    guessed = {tensor.name: tensor.size_bytes for tensor in read_gguf(tiny).tensors}
    assert sum(size != guessed[name] for name, size in known.items()) == 1  # the last one


def test_long_vocabularies_are_counted_and_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gguf_file, "_CHUNK_BYTES", 1000)
    writer = gguf.GGUFWriter(str(tmp_path / "long.gguf"), "llama")
    words = [f"word {number}" * (number % 7) for number in range(10_000)]
    writer.add_token_list(words)
    writer.add_token_types([1] * 10_000)
    writer.add_string("after", "still in step")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    header = read_gguf(tmp_path / "long.gguf")
    assert header.metadata["tokenizer.ggml.tokens"] is None
    assert header.counts["tokenizer.ggml.token_type"] == 10_000
    assert header.metadata["after"] == "still in step"


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.99])
def test_a_truncated_file_is_rejected_with_the_remedy(tiny: Path, share: float) -> None:
    whole = tiny.read_bytes()
    tiny.write_bytes(whole[: int(share * len(whole))])
    with pytest.raises(ModelRejected, match=r"(ends within its header|incomplete).*Download it"):
        read_gguf(tiny)


def test_one_missing_byte_is_noticed(tiny: Path) -> None:
    tiny.write_bytes(tiny.read_bytes()[:-1])
    with pytest.raises(ModelRejected, match=r"it has (\d+) of the \d+ bytes"):
        read_gguf(tiny)


def test_a_missing_file_may_come_yet(tmp_path: Path) -> None:
    with pytest.raises(ModelUnusable, match="No such file") as raised:
        read_gguf(tmp_path / "none.gguf")
    assert not isinstance(raised.value, ModelRejected)


def _magic(data: bytearray) -> None:
    data[:4] = b"ELF\x7f"


def _version(data: bytearray) -> None:
    data[4:8] = (3).to_bytes(4, "big")


def _tensor_count(data: bytearray) -> None:
    data[8:16] = (2**60).to_bytes(8, "little")


def _key_length(data: bytearray) -> None:
    data[24:32] = (2**63).to_bytes(8, "little")


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_magic, "begins with"),
        (_version, "other byte order"),
        (_tensor_count, "too many"),
        (_key_length, "text of 9223372036854775808 bytes"),
    ],
)
def test_a_damaged_header_is_rejected_in_words(
    tiny: Path, damage: Callable[[bytearray], None], words: str
) -> None:
    data = bytearray(tiny.read_bytes())
    damage(data)
    tiny.write_bytes(data)
    with pytest.raises(ModelRejected, match=words):
        read_gguf(tiny)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(at=st.integers(0, 20_000), put=st.binary(min_size=1, max_size=16))
def test_any_damage_is_read_or_rejected_and_nothing_else(tiny: Path, at: int, put: bytes) -> None:
    data = bytearray(tiny.read_bytes())
    data[at : at + len(put)] = put
    damaged = tiny.with_name("damaged.gguf")
    damaged.write_bytes(data)
    try:
        header = read_gguf(damaged)
    except ModelRejected:
        return
    assert sum(tensor.size_bytes for tensor in header.tensors) <= damaged.stat().st_size


def _split(folder: Path) -> list[Path]:
    """A model in two files, made by the writer's own splitting."""
    writer = gguf.GGUFWriter(str(folder / "model.gguf"), "llama", split_max_tensors=2)
    tensors = np.zeros((4, 8), dtype=np.float32)
    for name in ("a", "b", "c"):
        writer.add_tensor(name, tensors)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return sorted(folder.glob("model-*.gguf"))


def test_a_model_in_several_files_is_read_whole(tmp_path: Path) -> None:
    first, _ = _split(tmp_path)
    assert [tensor.name for tensor in read_gguf(first).tensors] == ["a", "b", "c"]


def test_a_missing_part_is_named(tmp_path: Path) -> None:
    first, second = _split(tmp_path)
    second.unlink()
    with pytest.raises(ModelUnusable, match=r"Cannot read .*model-00002-of-00002\.gguf"):
        read_gguf(first)


def test_only_the_first_part_is_a_model(tmp_path: Path) -> None:
    first, second = _split(tmp_path)
    with pytest.raises(ModelRejected, match="not the first of 2 files"):
        read_gguf(second)
    renamed = first.rename(tmp_path / "renamed.gguf")
    with pytest.raises(ModelRejected, match="rename them"):
        read_gguf(renamed)
