"""Sequence states on their way through an agent, for tests of both directions."""

from __future__ import annotations

import os
import struct
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct, structs

from agent.engine.query_frames import Exported, ExportSequence, ImportSequence
from protocol import to_agent
from protocol.codec import decode_result
from protocol.generation import GenerationRequest
from protocol.jsonrpc import CallId, ErrorResponse, Notification, Response
from protocol.transfer_messages import AbortTransfer, Credit
from protocol.transfers import PIECE_BYTES, WINDOW_BYTES
from tests.support.cluster import eventually
from tests.support.fake_balancer import FakeBalancer
from tests.support.fake_engine import FACTS, FakeEngine

_S = TypeVar("_S", bound=Struct)
MIB = 1024 * 1024
STATE = os.urandom(MIB) * 3
IDS = (5, 6, -7)
"""Media have ids below 0."""
WHOLE = STATE + struct.pack("<3i", *IDS)
MOVES = structs.replace(FACTS, file_digest="f", kv_layout="k", host_cache_bytes=16 * MIB)


def open_states() -> int:
    """Files of states that this process has open."""
    count = 0
    for descriptor in Path("/proc/self/fd").iterdir():
        try:
            count += "sequence-state" in os.readlink(descriptor)
        except OSError:
            continue
    return count


async def no_states() -> None:
    """Wait until there is none."""
    await eventually(lambda: not open_states(), what="all files are closed")


async def kv_key(balancer: FakeBalancer) -> str:
    """The agent's, once it serves."""
    key = (await balancer.has_slots(4)).kv_key
    assert key
    return key


async def running(balancer: FakeBalancer) -> int:
    """A call that is committed."""
    call = await balancer.call(GenerationRequest(prompt="hi"))
    await balancer.answered(call)
    return call


async def refusal(balancer: FakeBalancer, call: CallId) -> tuple[int, object]:
    """The code and the reason."""
    answer = await balancer.answered(call)
    assert isinstance(answer, ErrorResponse), answer
    data = answer.error.data
    return answer.error.code, data.get("reason") if isinstance(data, dict) else None


async def result(balancer: FakeBalancer, call: CallId, kind: type[_S]) -> _S:
    """The good answer."""
    answer = await balancer.answered(call)
    assert isinstance(answer, Response), answer
    return decode_result(answer.result, kind)


async def commanded(engine: FakeEngine, kind: type[_S], count: int = 1) -> list[_S]:
    """The engine's commands of a kind, once there are so many."""

    def found() -> list[_S]:
        return [command for command in engine.commands if isinstance(command, kind)]

    await eventually(lambda: len(found()) >= count, what=f"{count} {kind.__name__}")
    return found()


async def export_of(engine: FakeEngine, count: int = 1) -> ExportSequence:
    """The newest of so many exports."""
    return (await commanded(engine, ExportSequence, count))[-1]


def write(
    engine: FakeEngine, export: ExportSequence, state: bytes = STATE, *, says: int | None = None
) -> None:
    """What the engine does with an export, or `says` that it did."""
    Path(export.path).write_bytes(state)
    size = len(state) if says is None else says
    engine.answer(Exported(call=export.call, tokens=3, size_bytes=size, token_ids=IDS))


def read(command: ImportSequence) -> bytes:
    """What the engine would find."""
    return Path(command.path).read_bytes()


def import_of(key: str, **more: object) -> to_agent.ImportSequence:
    """An announcement of `WHOLE`, or of something else."""
    fields: dict[str, Any] = {"tokens": 3, "size_bytes": len(WHOLE), "kv_key": key}
    return to_agent.ImportSequence(**{**fields, "cache_scope": "s", **more})


def flow(balancer: FakeBalancer) -> list[Credit | AbortTransfer]:
    """What the agent said of transfers, in order."""
    found = (message.params for message in balancer.heard if isinstance(message, Notification))
    return [params for params in found if isinstance(params, Credit | AbortTransfer)]


async def send(
    balancer: FakeBalancer, call: int, data: bytes, *, transfer: int = 1, most: int | None = None
) -> None:
    """Send a state in pieces as credit comes, until it is out or aborted; `most`: break off then.

    One transfer of this number; what was said of others does not count.
    """
    end = len(data) if most is None else most
    for start in range(0, end, PIECE_BYTES):
        piece = data[start : min(start + PIECE_BYTES, end)]

        await _until_granted(balancer, transfer, start + len(piece))
        if AbortTransfer(transfer=transfer) in flow(balancer):
            return
        last = start + len(piece) == len(data)
        await balancer.say_binary(struct.pack("<IQIB", transfer, start, call, last) + piece)


async def _until_granted(balancer: FakeBalancer, transfer: int, end: int) -> None:
    def may_go() -> bool:
        said = [one for one in flow(balancer) if one.transfer == transfer]
        granted = sum(one.bytes_taken for one in said if isinstance(one, Credit))
        is_aborted = any(isinstance(one, AbortTransfer) for one in said)
        return is_aborted or end <= WINDOW_BYTES + granted

    await balancer.until(may_go, "credit")
