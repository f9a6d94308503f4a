"""Reads what a GGUF file says of itself, before anything is loaded. Bounded, and trusts nothing.

Format: the project's docs/gguf.md. A model in several files (`…-00001-of-00003.gguf`) is read from
its first; llama.cpp finds the others by their names, and so does this.
"""

from __future__ import annotations

import re
from math import prod
from pathlib import Path
from struct import Struct as Layout
from typing import BinaryIO

from msgspec import Struct

from agent.errors import ModelRejected, ModelUnusable

MAX_ENTRIES = 1_000_000
MAX_TEXT_BYTES = 64 * 1024 * 1024
MAX_HEADER_BYTES = 1024 * 1024 * 1024
MAX_KEPT_ITEMS = 4096
"""Longer arrays (vocabularies) are counted, not kept; one value a layer fits."""
MAX_PARTS = 1000
_MAX_DIMENSIONS = 4
_CHUNK_BYTES = 4 * 1024 * 1024
_DEFAULT_ALIGNMENT = 32

Scalar = int | float | bool | str
Value = Scalar | tuple[Scalar, ...] | None
"""None: an array too long to be kept."""

_U32, _U64 = Layout("<I"), Layout("<Q")
_TEXT, _ARRAY = 8, 9
_SCALARS = {
    number: Layout("<" + code)
    for number, code in enumerate(("B", "b", "H", "h", "I", "i", "f", "?", "", "", "Q", "q", "d"))
    if code
}
# ggml's tensor types (ggml_blck_size, ggml_type_size): by weights in a block, the block's bytes
_BYTES_BY_BLOCK: dict[int, dict[int, int]] = {
    1: {0: 4, 1: 2, 24: 1, 25: 2, 26: 4, 27: 8, 28: 8, 30: 2},
    32: {2: 18, 3: 20, 6: 22, 7: 24, 8: 34, 20: 18, 39: 17},
    64: {40: 36, 42: 18},
    128: {41: 18},
    256: dict(zip(range(10, 20), (84, 110, 144, 176, 210, 292, 66, 74, 98, 50), strict=True))
    | {21: 110, 22: 82, 23: 136, 29: 56, 34: 54, 35: 66},
}
_BLOCKS = {
    kind: (block, size) for block, sizes in _BYTES_BY_BLOCK.items() for kind, size in sizes.items()
}


class Tensor(Struct, frozen=True):
    """A tensor's name, its dimensions (the innermost first) and its bytes."""

    name: str
    dimensions: tuple[int, ...]
    size_bytes: int


class GgufHeader(Struct, frozen=True, kw_only=True):
    """What one or more files of a model say."""

    metadata: dict[str, Value]
    counts: dict[str, int]
    """The lengths of the metadata's arrays."""
    tensors: tuple[Tensor, ...]


def read_gguf(path: Path) -> GgufHeader:
    """The header of a whole model. Raises `ModelUnusable` if it cannot be read, and its child
    `ModelRejected` if what is read is no complete model and will be none at a second try."""
    first = _read_one(path)
    parts = first.metadata.get("split.count")
    if not isinstance(parts, int) or parts <= 1:
        return first
    if parts > MAX_PARTS:
        raise ModelRejected(f"{path} is one of {parts} files, at most {MAX_PARTS} are read.")
    others = [_read_one(part) for part in _parts(path, parts)[1:]]
    return GgufHeader(
        metadata=first.metadata,
        counts=first.counts,
        tensors=sum((other.tensors for other in others), first.tensors),
    )


def _parts(path: Path, count: int) -> list[Path]:
    found = re.fullmatch(r"(.*)-(\d{5})-of-(\d{5})\.gguf", path.name)
    if found is None or int(found[3]) != count:
        raise ModelRejected(
            f"{path} is one of {count} files of a model, whose names must end in "
            f"-00001-of-{count:05}.gguf and so on; rename them."
        )
    if int(found[2]) != 1:
        raise ModelRejected(f"{path} is not the first of {count} files; give --model that one.")
    return [path.with_name(f"{found[1]}-{i:05}-of-{count:05}.gguf") for i in range(1, count + 1)]


def _read_one(path: Path) -> GgufHeader:
    try:
        with path.open("rb") as file:
            return _checked(path, file)
    except OSError as error:
        raise ModelUnusable(f"Cannot read the model file {path}: {error.strerror}.") from error


def _checked(path: Path, file: BinaryIO) -> GgufHeader:
    reader = _Reader(file)
    try:
        header, end = _parse(reader)
    except EOFError as error:
        size = path.stat().st_size
        raise ModelRejected(f"{path} ends within its header, at {size} bytes. {_REMEDY}") from error
    except (ValueError, OverflowError) as error:
        raise ModelRejected(f"{path} cannot be read as GGUF: {error}. {_REMEDY}") from error
    size = path.stat().st_size
    if size < end:
        raise ModelRejected(
            f"{path} is incomplete: it has {size} of the {end} bytes that its header lists "
            f"({100 * size // end} %). {_REMEDY}"
        )
    return header


_REMEDY = "Download it again, and compare its size or checksum with the source's."


def _parse(reader: _Reader) -> tuple[GgufHeader, int]:
    """The header, and the size in bytes that the file must have."""
    magic = reader.take(4)
    if magic != b"GGUF":
        raise ValueError(f"it begins with {magic!r}")
    version = reader.number(_U32)
    if version not in (2, 3):
        hint = ", of the other byte order" if version & 0xFFFF == 0 else ""
        raise ValueError(f"version {version}{hint} is not 2 or 3")
    tensor_count, entry_count = reader.number(_U64), reader.number(_U64)
    if max(tensor_count, entry_count) > MAX_ENTRIES:
        raise ValueError(f"{tensor_count} tensors and {entry_count} entries are too many")
    metadata: dict[str, Value] = {}
    counts: dict[str, int] = {}
    for _ in range(entry_count):
        key = reader.text()
        metadata[key], count = _value(reader, reader.number(_U32))
        if count is not None:
            counts[key] = count
    return _tensors(reader, tensor_count, metadata, counts)


def _value(reader: _Reader, kind: int) -> tuple[Value, int | None]:
    """A value, and its length if it is an array."""
    if kind == _TEXT:
        return reader.text(), None
    if kind != _ARRAY:
        return reader.scalar(kind), None
    kind, count = reader.number(_U32), reader.number(_U64)
    if count <= MAX_KEPT_ITEMS and kind != _ARRAY:
        items = [reader.text() if kind == _TEXT else reader.scalar(kind) for _ in range(count)]
        return tuple(items), count
    if kind == _TEXT:
        reader.skip_texts(count)
    else:
        reader.skip(count * _layout(kind).size)
    return None, count


def _tensors(
    reader: _Reader, count: int, metadata: dict[str, Value], counts: dict[str, int]
) -> tuple[GgufHeader, int]:
    found: list[tuple[int, str, tuple[int, ...], int]] = []
    for _ in range(count):
        name = reader.text()
        dimensions = reader.number(_U32)
        if not 1 <= dimensions <= _MAX_DIMENSIONS:
            raise ValueError(f"tensor {name[:64]!r} has {dimensions} dimensions")
        shape = tuple(reader.number(_U64) for _ in range(dimensions))
        kind = reader.number(_U32)
        found.append((reader.number(_U64), name, shape, kind))
    alignment = metadata.get("general.alignment", _DEFAULT_ALIGNMENT)
    if not isinstance(alignment, int) or alignment < 1:
        raise ValueError(f"the alignment is {alignment!r}")
    data_start = -(-reader.position // alignment) * alignment
    found.sort()
    # of a type that we do not know, everything up to the next tensor
    ends = [offset for offset, *_ in found[1:] + found[-1:]]
    tensors = []
    data_end = 0
    for (offset, name, shape, kind), end in zip(found, ends, strict=True):
        size = _size_bytes(shape, kind) if kind in _BLOCKS else end - offset
        data_end = max(data_end, offset + size)
        tensors.append(Tensor(name, shape, size))
    header = GgufHeader(metadata=metadata, counts=counts, tensors=tuple(tensors))
    return header, data_start + data_end if tensors else reader.position


def _size_bytes(shape: tuple[int, ...], kind: int) -> int:
    block, block_bytes = _BLOCKS[kind]
    return prod(shape) // block * block_bytes


def _layout(kind: int) -> Layout:
    layout = _SCALARS.get(kind)
    if layout is None:
        raise ValueError(f"there is a value of unknown type {kind}")
    return layout


class _Reader:
    """Reads forward in chunks. Raises `EOFError` at the end, `ValueError` past a bound."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._data = b""
        self._at = 0
        self._before = 0

    @property
    def position(self) -> int:
        """Bytes read from the start of the file."""
        return self._before + self._at

    def take(self, size: int) -> bytes:
        """The next bytes."""
        self._hold(size)
        start, self._at = self._at, self._at + size
        return self._data[start : self._at]

    def number(self, layout: Layout) -> int:
        """The next unsigned number."""
        (value,) = layout.unpack(self.take(layout.size))
        return int(value)

    def scalar(self, kind: int) -> Scalar:
        """The next number of a GGUF type."""
        layout = _layout(kind)
        value: Scalar = layout.unpack(self.take(layout.size))[0]
        return value

    def text(self) -> str:
        """The next string; what is no UTF-8 in it is replaced."""
        size = self.number(_U64)
        if size > MAX_TEXT_BYTES:
            raise ValueError(f"there is a text of {size} bytes")
        return self.take(size).decode("utf-8", "replace")

    def skip(self, size: int) -> None:
        """Pass over bytes."""
        while size > 0:
            step = min(size, _CHUNK_BYTES)
            self._hold(step)
            self._at += step
            size -= step

    def skip_texts(self, count: int) -> None:
        """Pass over strings; a vocabulary has hundreds of thousands of them."""
        unpack = _U64.unpack_from
        while count > 0:
            self._hold(_U64.size)
            data, at = self._data, self._at
            last = len(data) - _U64.size
            while count > 0 and at <= last:
                at += _U64.size + unpack(data, at)[0]
                count -= 1
            # the last of them may reach beyond what is here
            self._at = min(at, len(data))
            self.skip(min(at - self._at, MAX_HEADER_BYTES + 1))

    def _hold(self, size: int) -> None:
        """Have that many bytes at hand."""
        missing = size - (len(self._data) - self._at)
        if missing <= 0:
            return
        if self.position + size > MAX_HEADER_BYTES:
            raise ValueError(f"the header is longer than {MAX_HEADER_BYTES} bytes")
        self._before += self._at
        self._data = self._data[self._at :] + self._file.read(max(missing, _CHUNK_BYTES))
        self._at = 0
        if len(self._data) < size:
            raise EOFError
