"""The engine process: take commands, plan, decode, sample, send. One loop on one thread.

`python -m agent.engine.worker FD PARENT_PID`. It ends with its agent, whatever happens to that:
the kernel kills it (PR_SET_PDEATHSIG), and the loop looks at the socket and the parent's pid.
"""

from __future__ import annotations

import ctypes
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
    Loaded,
    LoadFailed,
    PauseCall,
    Ready,
    Shutdown,
    Start,
    Submit,
    command_decoder,
)
from agent.engine.stderr_lines import make_non_blocking, say
from agent.errors import ModelUnusable

if TYPE_CHECKING:
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
    # Ctrl-C and a service manager's SIGTERM reach us too, but are the agent's business: it drains
    for number in (signal.SIGINT, signal.SIGTERM):
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
        channel.send(LoadFailed(message=str(unusable)))
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
    serving = loaded(channel, options)
    while True:
        for command in commands:
            take(serving, command)
        step = serving.turn()
        if step is not None:
            channel.send(step)
        if not serving.has_work:
            channel.wait(IDLE_WAIT_MS)
        commands = received(channel)


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


def loaded(channel: Channel, options: EngineOptions) -> Serving:
    """Load the model, decode once, be ready; raises `ModelUnusable`."""
    try:
        # here, not above: the parent must be watched before anything slow happens
        from agent.engine.facts import facts_of  # noqa: PLC0415 (see above)
        from agent.engine.llama.context import Context  # noqa: PLC0415 (likewise)
        from agent.engine.llama.log import start_backend  # noqa: PLC0415 (likewise)
        from agent.engine.llama.model import Model  # noqa: PLC0415 (likewise)
        from agent.engine.serving import Serving  # noqa: PLC0415 (likewise)
    except (ImportError, OSError, RuntimeError) as error:
        raise ModelUnusable(
            f"llama-cpp-python cannot be imported: {error}. Install `paddler-py[agent]`, "
            "or build it anew: `make clean-llama`, then start again."
        ) from error
    log = start_backend()
    model = Model(options, log)
    context = Context(model, options, log)
    serving = Serving(model, context)
    channel.send(Loaded())
    serving.warm_up()
    channel.send(Ready(facts=facts_of(model, context)))
    return serving


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


def take(serving: Serving, command: Command) -> None:
    """Hand a command to the calls."""
    match command:
        case Submit():
            serving.submit(command)
        case CancelCall():
            serving.cancel(command)
        case PauseCall():
            serving.pause(command)
        case ContinueCall():
            serving.go_on(command)
        case Shutdown():
            raise ShutDown
        case Start():
            say("a second Start is dropped")


if __name__ == "__main__":
    os._exit(main(sys.argv[1:]))
