"""Moving a sequence's state to another engine: out of the KV cache into a file, and back in.

What is moved is the cache's content alone. Everything else of a call follows from its tokens and
goes with its `resume`: a call that is submitted where its state was imported finds it as a cached
prefix, and goes on bit for bit as it would have here. Files are the agent's (memfds, by their path
under /proc), so that nothing stays behind whoever dies.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from agent.engine.call import Call
from agent.engine.kv_store import KvStore
from agent.engine.query_frames import (
    Exported,
    ExportSequence,
    Imported,
    ImportSequence,
    MoveCall,
    QueryRefused,
)
from agent.engine.scheduler import Seat
from protocol.refusals import RefusalCode


def exported(
    store: KvStore, call: Call | None, seat: Seat | None, command: ExportSequence
) -> Exported | QueryRefused:
    """Write the state of a call's sequence to the file; the call goes on unharmed."""
    if call is None or seat is None or not seat.cached:
        return _refused(command, "not_cached", "the call has no tokens in the KV cache")
    if seat.group:
        return _refused(command, "adapters", "what adapters made of the tokens is not moved")
    size = store.state_bytes(seat.slot)
    if size > command.most_bytes:
        message = f"the state has {size} bytes, allowed are {command.most_bytes}"
        return _refused(command, "too_large", message)
    try:
        state = store.state_of(seat.slot)
        if not len(state):
            message = "the sequence is being copied, or its context was shifted"
            return _refused(command, "not_cached", message)
        Path(command.path).write_bytes(state.data)
    except (OSError, MemoryError) as error:
        return _refused(command, "no_memory", f"the state could not be written: {error}")
    return Exported(
        call=command.call,
        tokens=seat.cached,
        size_bytes=len(state),
        token_ids=tuple(call.content(seat.cached).tolist()),
        sampler_state=call.generation.sampler.state(),
    )


def imported(store: KvStore, command: ImportSequence) -> Imported | QueryRefused:
    """Keep the state in the file as a cached prefix; it is tried when a call asks for it."""
    tokens = np.array(command.token_ids, dtype=np.int32)
    try:
        state = np.fromfile(command.path, dtype=np.uint8)
    except (OSError, MemoryError) as error:
        return _refused(command, "no_memory", f"the state could not be read: {error}")
    if len(state) != command.size_bytes or not len(tokens):
        message = f"{len(state)} bytes of state for {len(tokens)} tokens: damaged"
        return _refused(command, "damaged", message)
    if not store.adopt(command.scope, tokens, state):
        message = "the memory for saved states has no room: --host-cache"
        return _refused(command, "too_large", message)
    return Imported(call=command.call)


def _refused(command: MoveCall, reason: str, message: str) -> QueryRefused:
    code = int(RefusalCode.CANNOT_MOVE)
    return QueryRefused(call=command.call, code=code, message=message, facts={"reason": reason})
