"""The engine process: take commands, plan, decode, sample, send. One loop on one thread; a second
thread tokenises long texts and compiles grammars, nothing else (text_thread.py).

`python -m agent.engine.worker FD PARENT_PID`. It ends with its agent, whatever happens to that:
the kernel kills it (PR_SET_PDEATHSIG), and the loop looks at the socket and the parent's pid.
"""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import socket
import sys
from typing import TYPE_CHECKING

import msgspec

from agent.engine.channel import AgentGone, Channel
from agent.engine.frames import (
    CancelCall,
    Command,
    ContinueCall,
    EngineOptions,
    LoadFailed,
    PauseCall,
    Shutdown,
    Start,
    Submit,
    command_decoder,
)
from agent.engine.query_frames import (
    DetokenizeCall,
    EmbedCall,
    ExportSequence,
    ImportSequence,
    RerankCall,
    TokenizeCall,
)
from agent.engine.stderr_lines import make_non_blocking, say
from agent.errors import ModelRejected, ModelUnusable
from protocol.crashes import tell_crashes

if TYPE_CHECKING:
    from agent.engine.loading.start import Served
    from agent.engine.no_generation import NoGeneration
    from agent.engine.queries import Queries
    from agent.engine.serving import Serving

PR_SET_PDEATHSIG = 1
IDLE_WAIT_MS = 500
LAST_WORDS_LIMIT_S = 2.0
EXIT_SHUTDOWN = 0
EXIT_LOAD_FAILED = 3
EXIT_AGENT_GONE = 4


class ShutDown(Exception):
    """The agent asked for the end."""


def main(arguments: list[str]) -> int:
    """The exit code."""
    descriptor, parent_pid = map(int, arguments)
    die_with_parent()
    tell_crashes()  # the agent logs what is written to standard error
    # Ctrl-C, a terminal's end and a service manager's SIGTERM reach us too, but are the agent's
    # business: it drains
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1):
        signal.signal(number, signal.SIG_IGN)
    make_non_blocking()
    channel = Channel(socket.socket(fileno=descriptor), parent_pid)
    try:
        run(channel)
    except ShutDown:
        return EXIT_SHUTDOWN
    except AgentGone as gone:
        say(f"engine ends: {gone}")
        return EXIT_AGENT_GONE
    except ModelUnusable as unusable:
        final = isinstance(unusable, ModelRejected)
        channel.send(LoadFailed(message=str(unusable), final=final))
        channel.flush_within(LAST_WORDS_LIMIT_S)
        return EXIT_LOAD_FAILED
    return EXIT_SHUTDOWN


def die_with_parent() -> None:
    """Have the kernel kill us when the thread that spawned us ends; Linux only, else no effect.

    A parent that died before this call is noticed by `Channel.receive`.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def run(channel: Channel) -> None:
    """Load what the first command says, then serve until something ends it by an exception."""
    options, commands = awaited_start(channel)
    serving, queries = loaded(channel, options, commands)
    channel.also_wake_on(queries.texts.wakes)
    # what is there now stays: the collector need not look at it between two tokens
    gc.collect()
    gc.freeze()
    while True:
        for command in commands:
            take(serving, queries, command)
        if not turn(channel, serving, queries):
            channel.wait(IDLE_WAIT_MS)
        commands = received(channel)


def turn(channel: Channel, serving: Serving | NoGeneration, queries: Queries) -> bool:
    """Decode once, for the calls and for the queries; whether there is more to do."""
    queries.texts.collect()
    step = serving.turn()
    if step is not None:
        channel.send(step)
    is_generating = step.has_work if step is not None else serving.has_work
    if not queries.has_work:
        return is_generating
    for answer in queries.turn(serving.prompt_budget if is_generating else None):
        channel.send(answer)
    return is_generating or queries.has_work


def awaited_start(channel: Channel) -> tuple[EngineOptions, list[Command]]:
    """Wait for the first command; with it, those that came right behind it."""
    while True:
        commands = received(channel)
        for index, command in enumerate(commands):
            match command:
                case Start():
                    return command.options, commands[index + 1 :]
                case Shutdown():
                    raise ShutDown
                case _:
                    say(f"{type(command).__name__} came before Start and is dropped")
        channel.wait(IDLE_WAIT_MS)


def loaded(channel: Channel, options: EngineOptions, commands: list[Command]) -> Served:
    """Load the model, decode once, be ready; raises `ModelUnusable`.

    What comes in meanwhile is added to `commands`; a `Shutdown` cancels the load.
    """
    try:
        # here, not above: the parent must be watched before anything slow happens
        from agent.engine.loading import start  # noqa: PLC0415 (see above)
    except (ImportError, OSError, RuntimeError) as error:
        raise ModelRejected(
            f"llama-cpp-python cannot be imported: {error}. Install `paddler-py[agent]`, "
            "or build it anew: `make clean-llama`, then start again."
        ) from error
    return start.loaded(channel, options, lambda: listen(channel, commands))


def listen(channel: Channel, commands: list[Command]) -> None:
    """Keep what has come in for later; raises what ends the engine."""
    new = received(channel)
    if any(isinstance(command, Shutdown) for command in new):
        raise ShutDown
    commands.extend(new)


def received(channel: Channel) -> list[Command]:
    """The commands that have come in; what is none is logged and dropped."""
    commands: list[Command] = []
    try:
        bodies = channel.receive()
    except ValueError as error:
        raise AgentGone(f"the agent sent what is no frame: {error}") from error
    for body in bodies:
        try:
            commands.append(command_decoder.decode(body))
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            say(f"a command of {len(body)} bytes is dropped: {error}")
    return commands


def take(serving: Serving | NoGeneration, queries: Queries, command: Command) -> None:
    """Hand a command to the calls."""
    match command:
        case Submit():
            serving.submit(command)
        case CancelCall():
            serving.cancel(command)
            queries.cancel(command.call)
        case PauseCall():
            serving.pause(command)
        case ContinueCall():
            serving.go_on(command)
        case Shutdown():
            raise ShutDown
        case ExportSequence() | ImportSequence():
            queries.tell(serving.moved(command))
        case EmbedCall() | RerankCall() | TokenizeCall() | DetokenizeCall():
            queries.submit(command)
        case Start():
            say("a second Start is dropped")


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
