"""The hashes by which the balancer and its agents name what a prompt begins with.

A request's *canonical text* is made of segments of bytes:

    a chat      `[enable_thinking, template_arguments, tools]` as JSON if any of them is given, then
                one segment a message
    a text      the prompt in UTF-8, open: an answer and more may follow where it ends
    infill      a prompt with a suffix: the prompt, 0xFF, the suffix, open
    token ids   the ids, little-endian 32 bit, open

A message is its role, name, tool call id, reasoning and content, then id, name and arguments of
each tool call, in UTF-8: 0xFF between two of them and 0xFE at the end, neither of which occurs in
UTF-8. What templates show alike is alike: None and "", a text and its parts, an arguments object
however it is spaced. An image or a sound counts by the hash of its file. A segment is cut into
blocks every 512 bytes and where it ends; the rest of an open one is no block yet.

A block's hash is blake2b-128 over the hash before it and the block's bytes; before the first stands
the root, blake2b-128 over the cache scope and the adapters in force (0xFF, then name and scale of
each as JSON, if there are any), personalised by the kind of text. So equal hashes mean equal
beginnings in the same scope under the same adapters, and a conversation that goes on goes on with
its chain. The chain steers routing; nothing's correctness may depend on it.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from hashlib import blake2b
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from protocol.chat import ImagePart, Message, Part, TextPart
from protocol.generation import GenerationRequest

HASH_BYTES = 16
BLOCK_BYTES = 512
MAX_BLOCKS = 4096
"""Blocks of one chain; what follows after them has no hash."""
MAX_CACHED_BLOCKS = 65_536
"""Different blocks that an agent reports as cached; what it caches beyond them, it keeps silent."""

PackedBlocks = Annotated[bytes, Meta(max_length=MAX_BLOCKS * HASH_BYTES)]
"""Hashes one behind the other; base64 in JSON, 88 KB at most."""

Kind = Literal["chat", "text", "infill", "ids"]
_PERSONS: dict[Kind, bytes] = {
    "chat": b"paddler chat 1",
    "text": b"paddler text 1",
    "infill": b"paddler infill 1",
    "ids": b"paddler ids 1",
}
_BETWEEN = b"\xff"
_END = b"\xfe"


class PrefixChain:
    """A canonical text's blocks. `blocks` are hashes; block i ends `ends[i]` bytes into the text,
    which has `size_bytes` in all, those past the last block included."""

    def __init__(self, kind: Kind, *, root: bytes, known: bytes = b"") -> None:
        """`root` is what must be equal beside the text. `known` are hashes of this very text,
        packed: taken as they are, not computed again."""
        self.kind: Kind = kind
        self.blocks: list[bytes] = []
        self.ends: list[int] = []
        self._closed_bytes = 0
        self._rest = b""
        self._known = known[: len(known) - len(known) % HASH_BYTES]
        self._last = blake2b(root, digest_size=HASH_BYTES, person=_PERSONS[kind]).digest()

    @classmethod
    def of(cls, request: GenerationRequest, *, cache_scope: str, known: bytes = b"") -> PrefixChain:
        """The chain of a request. Raises `UnicodeEncodeError` for text that is none."""
        root = _root(request, cache_scope)
        if request.messages is not None:
            chain = cls("chat", root=root, known=known)
            chain._close(_preamble(request))
            for message in request.messages:
                chain._close(_canonical(message))
        elif isinstance(request.prompt, tuple):
            chain = cls("ids", root=root, known=known)
            chain._go_on(struct.pack(f"<{len(request.prompt)}I", *request.prompt))
        elif request.suffix is not None:
            chain = cls("infill", root=root, known=known)
            chain._go_on((request.prompt or "").encode() + _BETWEEN + request.suffix.encode())
        else:
            chain = cls("text", root=root, known=known)
            chain._go_on((request.prompt or "").encode())
        return chain

    @property
    def size_bytes(self) -> int:
        """How long the canonical text is."""
        return self._closed_bytes + len(self._rest)

    @property
    def packed(self) -> bytes:
        """The hashes as they cross the link."""
        return b"".join(self.blocks)

    def append_answer(self, answer: Message) -> None:
        """Go on with an answer as its client will send it back: as a message, or as text behind
        the prompt. Behind token ids nothing is appended, as clients get text, and nothing behind a
        suffix, as the answer stands before it."""
        if self.kind == "chat":
            self._close(_canonical(answer))
        elif self.kind == "text":
            self._go_on(_content(answer).encode())

    def _go_on(self, data: bytes) -> None:
        """Take bytes of an open segment."""
        data = self._rest + data
        whole = len(data) - len(data) % BLOCK_BYTES
        self._close(data[:whole])
        self._rest = data[whole:]

    def _close(self, segment: bytes) -> None:
        """Take a whole segment."""
        begin = self._closed_bytes
        self._closed_bytes += len(segment)
        room = MAX_BLOCKS - len(self.blocks)
        for start in range(0, min(len(segment), room * BLOCK_BYTES), BLOCK_BYTES):
            block = segment[start : start + BLOCK_BYTES]
            at = len(self.blocks) * HASH_BYTES
            self._last = (
                self._known[at : at + HASH_BYTES]
                or blake2b(self._last + block, digest_size=HASH_BYTES).digest()
            )
            self.blocks.append(self._last)
            self.ends.append(begin + start + len(block))


def prefix_chain(request: GenerationRequest, *, cache_scope: str) -> bytes:
    """The request's chain, packed. Empty for text that is not valid Unicode: no agent can be sent
    such a request anyway."""
    try:
        return PrefixChain.of(request, cache_scope=cache_scope).packed
    except UnicodeEncodeError:
        return b""


def unpacked(blocks: bytes) -> Iterable[bytes]:
    """The hashes of packed blocks."""
    return (blocks[at : at + HASH_BYTES] for at in range(0, len(blocks), HASH_BYTES))


def _root(request: GenerationRequest, cache_scope: str) -> bytes:
    """Adapters count in whatever order they are named; at scale 0 one does nothing."""
    in_force = sorted((name, float(scale)) for name, scale in request.adapters if scale)
    if not in_force:
        return cache_scope.encode()
    return cache_scope.encode() + _BETWEEN + msgspec.json.encode(in_force)


def _preamble(request: GenerationRequest) -> bytes:
    if request.enable_thinking is None and not (request.template_arguments or request.tools):
        return b""
    outside = (request.enable_thinking, request.template_arguments, request.tools)
    return msgspec.json.encode(outside) + _END


def _canonical(message: Message) -> bytes:
    fields = [
        message.role,
        message.name or "",
        message.tool_call_id or "",
        message.reasoning_content or "",
        _content(message),
    ]
    for call in message.tool_calls:
        fields += (call.id, call.function.name, _arguments(call.function.arguments))
    return _BETWEEN.join([field.encode() for field in fields]) + _END


def _content(message: Message) -> str:
    content = message.content
    if isinstance(content, tuple):
        return "".join(map(_shown, content))
    return content or ""


def _shown(part: Part) -> str:
    if isinstance(part, TextPart):
        return part.text
    kind = "image" if isinstance(part, ImagePart) else "audio"
    return f"\0{kind} {blake2b(part.data, digest_size=HASH_BYTES).hexdigest()}\0"


def _arguments(written: str) -> str:
    """Compact JSON for an object, as clients parse and write it again; else as it stands."""
    try:
        value = msgspec.json.decode(written)
        return msgspec.json.encode(value).decode() if isinstance(value, dict) else written
    except (msgspec.MsgspecError, UnicodeError, RecursionError):
        return written
